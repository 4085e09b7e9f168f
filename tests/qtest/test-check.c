/*
 * "stillframe check" is right: on this host as it is, and, with features forced off, about a kernel
 * that has not got them. A check that hangs, or finds nothing trapped, says so.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include <unistd.h>

#include "vm.h"

static JsonObject *root_of(JsonParser *parser)
{
    return json_node_get_object(json_parser_get_root(parser));
}

/* Runs it with @faults; *status gets its exit status. */
static JsonParser *run_check(const char *faults, int *status)
{
    g_autoptr(JsonParser) parser = json_parser_new();
    g_autoptr(GError) error = NULL;
    g_autofree char *out = NULL, *err = NULL;
    TestTool *tool =
        test_tool_start_faulty(faults, (const char *const[]){ "check", "--json", NULL });

    *status = test_tool_finish(tool, 60000, &out, &err);
    g_assert_cmpstr(err, ==, "");
    g_assert_true(json_parser_load_from_data(parser, out, -1, &error));
    g_assert_no_error(error);
    g_assert_cmpint(*status, ==, json_object_get_boolean_member(root_of(parser), "kvm") ? 0 : 1);
    return g_steal_pointer(&parser);
}

/* The row @id, owned by @parser. */
static JsonObject *row_of(JsonParser *parser, const char *id)
{
    JsonArray *rows = json_object_get_array_member(root_of(parser), "checks");

    for (guint i = 0; i < json_array_get_length(rows); i++) {
        JsonObject *row = json_array_get_object_element(rows, i);
        if (g_str_equal(json_object_get_string_member(row, "id"), id)) {
            return row;
        }
    }
    g_error("there is no row %s", id);
}

static void assert_row(JsonParser *parser, const char *id, const char *result, const char *note)
{
    JsonObject *row = row_of(parser, id);
    const char *said = json_object_get_string_member(row, "note");

    g_test_message("%s: %s", id, said);
    g_assert_cmpstr(json_object_get_string_member(row, "result"), ==, result);
    g_assert_nonnull(strstr(said, note));
}

static gboolean have_kvm(void)
{
    g_autofree char *reason = NULL;

    return test_have_kvm(&reason);
}

static gboolean skip_unless_root(void)
{
    if (geteuid() != 0) {
        g_test_skip("what is said to root is tested");
        return TRUE;
    }
    return FALSE;
}

static void test_this_host(void)
{
    static const char *const always[] = { "uffd-wp", "ptrace", "uffd-syscall", "memory-anonymous" };
    static const char *const with_kvm[] = { "kvm", "kvm-anonymous", "kvm-anonymous-hole" };
    int status;

    if (skip_unless_root()) {
        return;
    }
    g_autoptr(JsonParser) parser = run_check(NULL, &status);
    for (guint i = 0; i < G_N_ELEMENTS(always); i++) {
        assert_row(parser, always[i], "yes", "");
    }
    for (guint i = 0; have_kvm() && i < G_N_ELEMENTS(with_kvm); i++) {
        assert_row(parser, with_kvm[i], "yes", "");
    }
    g_assert_true(json_object_get_boolean_member(root_of(parser), "tcg"));
    g_assert_cmpint(json_object_get_boolean_member(root_of(parser), "kvm"), ==, have_kvm());
}

static void test_huge_pages_are_tried(void)
{
    TestReaper *reaper = NULL;
    int status;

    if (test_hugepages_reserve(8, &reaper)) {
        g_autoptr(JsonParser) parser = run_check(NULL, &status);
        assert_row(parser, "memory-hugetlb", "yes", "trapped");
        if (have_kvm()) {
            assert_row(parser, "kvm-hugetlb", "yes", "trapped");
        }
    }
    test_reaper_finish(reaper);
}

/* It reserves none by itself. */
static void test_settings_are_left_alone(void)
{
    static const char *const path = "/proc/sys/vm/nr_hugepages";
    g_autofree char *before = NULL, *after = NULL;
    int status;

    g_assert_true(g_file_get_contents(path, &before, NULL, NULL));
    g_autoptr(JsonParser) parser = run_check(NULL, &status);
    g_assert_nonnull(row_of(parser, "memory-hugetlb"));
    g_assert_true(g_file_get_contents(path, &after, NULL, NULL));
    g_assert_cmpstr(after, ==, before);
}

/* A kernel without something: what is said, and whether a snapshot is possible all the same. */
typedef struct Without {
    const char *faults;
    const char *id, *result, *note; /* the row that tells */
    gboolean tcg;
    gboolean kvm; /* where there is KVM */
} Without;

static const Without kernels[] = {
    { "no-wp", "uffd-wp", "no", "no snapshot", FALSE, FALSE },
    { "no-wp", "memory-anonymous", "no", "5.7", FALSE, FALSE },
    { "no-wp-shmem", "uffd-wp-shmem", "no", "shared memory", TRUE, TRUE },
    { "no-wp-shmem", "memory-memfd-shared", "no", "5.19", TRUE, TRUE },
    { "no-wp-unpopulated", "uffd-wp-unpopulated", "no", "read once", TRUE, TRUE },
    { "no-wp-unpopulated", "memory-anonymous", "yes", "trapped", TRUE, TRUE },
    { "no-event-remove", "uffd-event-remove", "no", "balloon", TRUE, TRUE },
    { "no-wp-async", "uffd-wp-async", "no", "not needed", TRUE, TRUE },
    { "no-uffd-move", "uffd-move", "no", "not needed", TRUE, TRUE },
    { "no-pagemap-scan", "pagemap-scan", "no", "pagemap", TRUE, TRUE },
    { "no-uffd-syscall,no-uffd-device", "uffd-device", "no", "does not open", FALSE, FALSE },
    { "no-uffd-syscall,no-uffd-device", "uffd-syscall", "no", "not permitted", FALSE, FALSE },
    { "no-uffd-device", "uffd-device", "no", "does not open", TRUE, TRUE },
    { "no-ptrace,yama-scope=3", "ptrace", "no", "ptrace_scope is 3", FALSE, FALSE },
    { "no-ptrace,yama-scope=1", "ptrace", "no", "ptrace_scope is 1", FALSE, FALSE },
    { "no-kvm", "kvm", "no", "/dev/kvm does not open", TRUE, FALSE },
    { "check-arms-nothing", "memory-anonymous", "no", "not noticed", FALSE, FALSE },
    { "check-arms-nothing", "memory-memfd-private", "no", "not noticed", FALSE, FALSE },
    { "check-hangs,check-timeout-ms=200", "memory-anonymous", "no", "it hangs", FALSE, FALSE },
};

static void test_without(gconstpointer data)
{
    const Without *kernel = data;
    int status;

    if (!test_need_faults() || skip_unless_root()) {
        return;
    }
    g_autoptr(JsonParser) parser = run_check(kernel->faults, &status);
    assert_row(parser, kernel->id, kernel->result, kernel->note);
    g_assert_cmpint(json_object_get_boolean_member(root_of(parser), "tcg"), ==, kernel->tcg);
    g_assert_cmpint(status, ==, kernel->kvm && have_kvm() ? 0 : 1);
}

/* The one door that is left is enough: a kernel of 5.7 to 6.0, or a strict sysctl. */
static void test_device_alone(void)
{
    int status;

    if (!test_need_faults() || skip_unless_root()) {
        return;
    }
    if (access("/dev/userfaultfd", R_OK) != 0) {
        g_test_skip("no /dev/userfaultfd here");
        return;
    }
    g_autoptr(JsonParser) parser = run_check("no-uffd-syscall", &status);
    assert_row(parser, "uffd-device", "yes", "");
    g_assert_true(json_object_get_boolean_member(root_of(parser), "tcg"));
}

/* An ordinary user is told what is shut, and how it is opened. */
static void test_ordinary_user(void)
{
    g_autofree char *out = NULL, *setpriv = g_find_program_in_path("setpriv");

    if (skip_unless_root()) {
        return;
    }
    if (!setpriv) {
        g_test_skip("no setpriv here");
        return;
    }
    int status =
        test_tool_finish(test_tool_start_command((const char *const[]){
                             setpriv, "--reuid", "65534", "--regid", "65534", "--clear-groups",
                             g_getenv("STILLFRAME_BIN"), "check", NULL }),
                         60000, &out, NULL);
    if (!strstr(out, "Doors")) {
        g_test_skip("the program is out of an ordinary user's reach");
        return;
    }
    g_test_message("%s", out);
    g_assert_nonnull(strstr(out, "this user's own QEMUs"));
    /* User faults are trapped for everybody. */
    g_assert_nonnull(strstr(out, "anonymous, 4 KiB pages          yes"));
    if (access("/dev/userfaultfd", R_OK) == 0) {
        g_assert_nonnull(strstr(out, "Permission denied"));
        g_assert_nonnull(strstr(out, "setfacl"));
    }
    g_assert_true(status == 0 || status == 1);
}

/* 24 lines of table and what little is to be done: one screen, without colour. */
static void test_table_fits_a_screen(void)
{
    g_autofree char *out = NULL;
    guint lines = 0;

    test_tool_run(&out, NULL, "check", NULL);
    g_auto(GStrv) rows = g_strsplit(out, "\n", -1);
    for (; rows[lines]; lines++) {
        g_assert_cmpint(g_utf8_strlen(rows[lines], -1), <=, 120);
        g_assert_null(strchr(rows[lines], '\033'));
    }
    g_assert_cmpuint(lines, <=, 40);
    g_assert_nonnull(strstr(out, "possible"));
}

static void test_usage(void)
{
    g_autofree char *err = NULL;

    g_assert_cmpint(test_tool_run(NULL, &err, "check", "what", NULL), ==, 2);
    g_assert_nonnull(strstr(err, "takes no argument"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/check/this-host", test_this_host);
    g_test_add_func("/check/huge-pages-are-tried", test_huge_pages_are_tried);
    g_test_add_func("/check/settings-are-left-alone", test_settings_are_left_alone);
    g_test_add_func("/check/device-alone", test_device_alone);
    g_test_add_func("/check/ordinary-user", test_ordinary_user);
    g_test_add_func("/check/table-fits-a-screen", test_table_fits_a_screen);
    g_test_add_func("/check/usage", test_usage);
    for (guint i = 0; i < G_N_ELEMENTS(kernels); i++) {
        g_autofree char *path =
            g_strdup_printf("/check/without/%s/%s", kernels[i].faults, kernels[i].id);
        g_test_add_data_func(path, &kernels[i], test_without);
    }
    return g_test_run();
}
