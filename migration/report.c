/*
 * A snapshot's report, as JSON and for people.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/stats.h"

void snapshot_report_clear(SnapshotReport *report)
{
    g_clear_pointer(&report->monitor, g_free);
    g_clear_pointer(&report->machine_type, g_free);
    g_clear_pointer(&report->run_state, g_free);
}

static void add_int(JsonBuilder *builder, const char *name, guint64 value)
{
    json_builder_set_member_name(builder, name);
    json_builder_add_int_value(builder, (gint64)value);
}

static void add_ms(JsonBuilder *builder, const char *name, guint64 ns)
{
    json_builder_set_member_name(builder, name);
    json_builder_add_double_value(builder, (double)ns / 1e6);
}

static void add_us(JsonBuilder *builder, const char *name, guint64 ns)
{
    json_builder_set_member_name(builder, name);
    json_builder_add_double_value(builder, (double)ns / 1e3);
}

static void add_string(JsonBuilder *builder, const char *name, const char *value)
{
    json_builder_set_member_name(builder, name);
    if (value) {
        json_builder_add_string_value(builder, value);
    } else {
        json_builder_add_null_value(builder);
    }
}

static void begin(JsonBuilder *builder, const char *name)
{
    json_builder_set_member_name(builder, name);
    json_builder_begin_object(builder);
}

static void add_times(JsonBuilder *builder, const SnapshotReport *report)
{
    begin(builder, "downtime-ms");
    add_ms(builder, "total", report->downtime_ns);
    add_ms(builder, "stop", report->stop_ns);
    add_ms(builder, "arm", report->rearm_ns);
    add_ms(builder, "device-state", report->device_ns);
    add_ms(builder, "cont", report->cont_ns);
    json_builder_end_object(builder);

    begin(builder, "time-ms");
    add_ms(builder, "total", report->total_ns);
    add_ms(builder, "attach", report->attach_ns);
    add_ms(builder, "pre-arm", report->arm_ns);
    add_ms(builder, "sweep", report->sweep_ns);
    add_ms(builder, "finish", report->finish_ns);
    json_builder_end_object(builder);
}

static void add_pages(JsonBuilder *builder, const SnapshotReport *report)
{
    begin(builder, "pages");
    add_int(builder, "size", report->page_size);
    add_int(builder, "zero", report->pages_zero);
    add_int(builder, "saved-by-sweep", report->pages_swept);
    add_int(builder, "saved-by-fault", report->pages_faulted);
    add_int(builder, "armed-in-freeze", report->touched_pages);
    add_int(builder, "armed-in-freeze-ranges", report->rearm_ranges);
    add_int(builder, "arming-passes", report->arm_passes);
    json_builder_end_object(builder);
}

static void add_faults(JsonBuilder *builder, const SnapshotReport *report)
{
    const LatencyHistogram *latency = &report->fault_latency;

    begin(builder, "faults");
    add_int(builder, "count", report->faults);
    add_int(builder, "before-freeze", report->faults_prearm);
    add_int(builder, "spurious", report->faults_spurious);
    add_int(builder, "threads", report->fault_threads);
    begin(builder, "latency-us");
    add_us(builder, "p50", latency_histogram_percentile(latency, 0.50));
    add_us(builder, "p99", latency_histogram_percentile(latency, 0.99));
    add_us(builder, "p999", latency_histogram_percentile(latency, 0.999));
    add_us(builder, "max", latency->max_ns);
    json_builder_end_object(builder);
    json_builder_end_object(builder);
}

static void add_buffer(JsonBuilder *builder, const SnapshotReport *report)
{
    begin(builder, "buffer");
    add_int(builder, "limit", report->max_buffer);
    add_int(builder, "peak", report->buffer_peak);
    add_int(builder, "stalls", report->stalls);
    add_ms(builder, "stalled-ms", report->stall_ns);
    json_builder_end_object(builder);
}

JsonNode *snapshot_report_to_json(const SnapshotReport *report)
{
    g_autoptr(JsonBuilder) builder = json_builder_new();

    json_builder_begin_object(builder);
    add_int(builder, "pid", (guint64)report->pid);
    add_string(builder, "monitor", report->monitor);
    add_string(builder, "machine", report->machine_type);
    add_string(builder, "run-state", report->run_state);
    add_string(builder, "userfaultfd-by", report->door);
    add_string(builder, "holes-by", report->holes_by);
    add_int(builder, "ram-bytes", report->ram_bytes);
    add_int(builder, "ram-blocks", report->ram_blocks);
    add_int(builder, "blocks-left-out", report->skipped_blocks);
    add_times(builder, report);
    add_pages(builder, report);
    add_faults(builder, report);
    add_buffer(builder, report);
    add_int(builder, "device-state-bytes", report->device_bytes);
    add_string(builder, "format", report->format);
    add_int(builder, "bytes-kept", report->kept_bytes);
    add_int(builder, "bytes-written", report->bytes_written);
    add_int(builder, "index-bytes", report->index_bytes);
    json_builder_end_object(builder);
    return json_builder_get_root(builder);
}

static double ms(guint64 ns)
{
    return (double)ns / 1e6;
}

static void describe_downtime(GString *text, const SnapshotReport *report)
{
    if (!report->downtime_ns) {
        g_string_append_printf(text, "Downtime   none: the VM was not running (%s) and stays so\n",
                               report->run_state);
        return;
    }
    g_string_append_printf(
        text, "Downtime   %.2f ms (stop %.2f, arm %.2f, device state %.2f, cont %.2f)\n",
        ms(report->downtime_ns), ms(report->stop_ns), ms(report->rearm_ns), ms(report->device_ns),
        ms(report->cont_ns));
}

static void describe_faults(GString *text, const SnapshotReport *report)
{
    const LatencyHistogram *latency = &report->fault_latency;

    g_string_append_printf(text, "Faults     %" G_GUINT64_FORMAT, report->faults);
    if (latency->count) {
        g_string_append_printf(text, ", latency p50 %.0f us, p99 %.0f us, max %.0f us",
                               (double)latency_histogram_percentile(latency, 0.50) / 1e3,
                               (double)latency_histogram_percentile(latency, 0.99) / 1e3,
                               (double)latency->max_ns / 1e3);
    }
    g_string_append_c(text, '\n');
}

char *snapshot_report_to_text(const SnapshotReport *report)
{
    GString *text = g_string_new(NULL);
    guint64 pages = report->ram_bytes / report->page_size;
    g_autofree char *ram = g_format_size_full(report->ram_bytes, G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *written = g_format_size_full(report->bytes_written, G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *limit = g_format_size_full(report->max_buffer, G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *peak = g_format_size_full(report->buffer_peak, G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *rate = g_format_size_full(
        report->total_ns ? (guint64)((double)report->bytes_written * 1e9 / (double)report->total_ns)
                         : 0,
        G_FORMAT_SIZE_IEC_UNITS);

    describe_downtime(text, report);
    g_string_append_printf(
        text, "Total      %.0f ms (attach %.1f, pre-arm %.1f, sweep %.0f, finish %.0f)\n",
        ms(report->total_ns), ms(report->attach_ns), ms(report->arm_ns), ms(report->sweep_ns),
        ms(report->finish_ns));
    g_string_append_printf(
        text,
        "Memory     %s in %u blocks: %" G_GUINT64_FORMAT " pages, %" G_GUINT64_FORMAT
        " of them zero; saved by sweep %" G_GUINT64_FORMAT ", by fault %" G_GUINT64_FORMAT "\n",
        ram, report->ram_blocks, pages, report->pages_zero, report->pages_swept,
        report->pages_faulted);
    describe_faults(text, report);
    g_string_append_printf(text,
                           "Buffer     at most %s of %s; %" G_GUINT64_FORMAT " stalls, %.0f ms\n",
                           peak, limit, report->stalls, ms(report->stall_ns));
    if (report->kept_bytes) {
        g_autofree char *kept = g_format_size_full(report->kept_bytes, G_FORMAT_SIZE_IEC_UNITS);
        g_string_append_printf(text, "Kept       %s as in the parent\n", kept);
    }
    g_string_append_printf(text, "Written    %s, %s/s\n", written, rate);
    return g_string_free(text, FALSE);
}
