/*
 * The latency histogram keeps its promises: resolution, percentiles, merging.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/stats.h"

static void test_percentiles_within_resolution(void)
{
    g_autofree LatencyHistogram *histogram = g_new0(LatencyHistogram, 1);

    for (guint64 ns = 1; ns <= 100000; ns++) {
        latency_histogram_add(histogram, ns);
    }
    const double shares[] = { 0.01, 0.5, 0.9, 0.99, 0.999 };
    for (guint i = 0; i < G_N_ELEMENTS(shares); i++) {
        double exact = shares[i] * 100000;
        double found = (double)latency_histogram_percentile(histogram, shares[i]);
        g_assert_cmpfloat(found, >=, exact);
        g_assert_cmpfloat(found, <=, exact * 1.07);
    }
    g_assert_cmpuint(latency_histogram_percentile(histogram, 1.0), ==, 100000);
    g_assert_cmpuint(histogram->max_ns, ==, 100000);
}

static void test_extremes(void)
{
    g_autofree LatencyHistogram *histogram = g_new0(LatencyHistogram, 1);

    g_assert_cmpuint(latency_histogram_percentile(histogram, 0.5), ==, 0);
    latency_histogram_add(histogram, 0);
    g_assert_cmpuint(latency_histogram_percentile(histogram, 1.0), ==, 0);
    latency_histogram_add(histogram, G_MAXUINT64);
    g_assert_cmpuint(latency_histogram_percentile(histogram, 1.0), ==, G_MAXUINT64);
    for (guint power = 0; power < 64; power++) {
        latency_histogram_add(histogram, 1ULL << power);
    }
    g_assert_cmpuint(histogram->count, ==, 66);
}

static void test_merge_is_the_sum(void)
{
    g_autofree LatencyHistogram *a = g_new0(LatencyHistogram, 1);
    g_autofree LatencyHistogram *b = g_new0(LatencyHistogram, 1);

    for (int i = 0; i < 90; i++) {
        latency_histogram_add(a, 1000);
    }
    for (int i = 0; i < 10; i++) {
        latency_histogram_add(b, 1000000);
    }
    latency_histogram_merge(a, b);
    g_assert_cmpuint(a->count, ==, 100);
    g_assert_cmpuint(a->max_ns, ==, 1000000);
    g_assert_cmpuint(latency_histogram_percentile(a, 0.9), <, 1100);
    g_assert_cmpuint(latency_histogram_percentile(a, 0.91), >=, 1000000);
}

static void test_report_names_every_figure(void)
{
    SnapshotReport report = { .pid = 42,
                              .run_state = g_strdup("running"),
                              .page_size = 4096,
                              .ram_bytes = 8192,
                              .downtime_ns = 3100000,
                              .stop_ns = 700000,
                              .rearm_ns = 100000,
                              .device_ns = 1800000,
                              .cont_ns = 500000,
                              .faults = 7 };
    g_autoptr(JsonNode) node = snapshot_report_to_json(&report);
    JsonObject *downtime = json_object_get_object_member(json_node_get_object(node), "downtime-ms");
    g_autofree char *text = snapshot_report_to_text(&report);

    g_assert_cmpfloat(json_object_get_double_member(downtime, "total"), ==, 3.1);
    g_assert_cmpfloat(json_object_get_double_member(downtime, "device-state"), ==, 1.8);
    g_assert_nonnull(strstr(text, "3.10 ms (stop 0.70, arm 0.10, device state 1.80, cont 0.50)"));
    snapshot_report_clear(&report);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/stats/percentiles-within-resolution", test_percentiles_within_resolution);
    g_test_add_func("/stats/extremes", test_extremes);
    g_test_add_func("/stats/merge-is-the-sum", test_merge_is_the_sum);
    g_test_add_func("/stats/report-names-every-figure", test_report_names_every_figure);
    return g_test_run();
}
