/*
 * "stillframe check" is right about a kernel that is known: KVM and every kind of memory work on
 * Debian 12's 6.1, and what came later is missing.
 *
 * For the nested rig, tests/nested/run-nested.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "kernel-version.h"
#include "tests/qtest/vm.h"

typedef struct Answer {
    const char *id;
    const char *result;
} Answer;

static JsonObject *find_row(JsonArray *rows, const char *id)
{
    for (guint i = 0; i < json_array_get_length(rows); i++) {
        JsonObject *row = json_array_get_object_element(rows, i);

        if (g_str_equal(json_object_get_string_member(row, "id"), id)) {
            return row;
        }
    }
    g_error("there is no row %s", id);
}

/* A second and more each time in the rig: once for all tests. */
static JsonNode *run_check(void)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *out = NULL, *said = NULL;
    TestReaper *hugepages = NULL;
    gboolean reserved = test_hugepages_reserve(8, &hugepages);
    int status = test_tool_run(&out, &said, "check", "--json", NULL);

    test_reaper_finish(hugepages);
    g_assert_true(reserved);
    g_assert_cmpstr(said, ==, "");
    g_assert_cmpint(status, ==, 0);
    JsonNode *report = json_from_string(out, &error);
    g_assert_no_error(error);
    return report;
}

static void assert_answers(JsonNode *report, const Answer *answers)
{
    JsonObject *object = json_node_get_object(report);

    g_assert_true(json_object_get_boolean_member(object, "kvm"));
    for (; answers->id; answers++) {
        JsonObject *row = find_row(json_object_get_array_member(object, "checks"), answers->id);
        const char *result = json_object_get_string_member(row, "result");
        const char *note = json_object_get_string_member(row, "note");

        g_test_message("%s: %s (%s)", answers->id, result, note);
        g_assert_cmpstr(result, ==, answers->result);
    }
}

static void test_works(gconstpointer report)
{
    static const Answer answers[] = {
        { "uffd-wp", "yes" },
        { "uffd-wp-shmem", "yes" },
        { "uffd-event-remove", "yes" },
        { "ptrace", "yes" },
        { "uffd-syscall", "yes" },
        { "uffd-device", "yes" },
        { "memory-anonymous", "yes" },
        { "memory-memfd-shared", "yes" },
        { "memory-memfd-private", "yes" },
        { "memory-hugetlb", "yes" },
        { "kvm", "yes" },
        { "kvm-anonymous", "yes" },
        { "kvm-anonymous-hole", "yes" },
        { "kvm-memfd-shared", "yes" },
        { "kvm-memfd-shared-hole", "yes" },
        { "kvm-hugetlb", "yes" },
        { NULL },
    };

    assert_answers((JsonNode *)report, answers);
}

static void test_old_kernel(gconstpointer report)
{
    static const Answer answers[] = {
        { "uffd-wp-unpopulated", "no" },
        { "uffd-wp-async", "no" },
        { "uffd-move", "no" },
        { "pagemap-scan", "no" },
        { NULL },
    };

    if (test_need_kernel_before_6_4()) {
        assert_answers((JsonNode *)report, answers);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_autoptr(JsonNode) report = run_check();
    g_test_add_data_func("/check-host/kvm-and-all-memory", report, test_works);
    g_test_add_data_func("/check-host/missing-in-6.1", report, test_old_kernel);
    return g_test_run();
}
