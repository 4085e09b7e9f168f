/*
 * Promise: what Stillframe prints for HMP's migrate family is, byte for byte, what the running
 * QEMU prints. Each line is given to the real QEMU twice: straight to its own HMP, and taken apart
 * by us into QMP commands for the same QEMU.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "monitor/hmp-internal.h"
#include "monitor/hmp-migrate.h"
#include "vm.h"

/* QEMU itself in the place of the front; its refusals without the client's own words. */
static JsonNode *execute(gpointer user, const char *command, JsonObject *arguments, GError **errp)
{
    TestVm *vm = user;
    g_autoptr(GError) error = NULL;
    JsonNode *answer = qmp_client_execute(test_vm_get_qmp(vm), command,
                                          arguments ? json_object_ref(arguments) : NULL, &error);
    if (!answer) {
        g_assert_error(error, SF_ERROR, SF_ERROR_MONITOR_COMMAND);
        const char *text = strstr(error->message, "\": ");
        g_assert_nonnull(text);
        g_set_error_literal(errp, SF_ERROR, SF_ERROR_MONITOR_COMMAND, text + 3);
    }
    return answer;
}

static char *run_ours(TestVm *vm, const char *line, gboolean *wait)
{
    g_autoptr(GError) error = NULL;
    guint version = qmp_client_get_version(test_vm_get_qmp(vm));
    g_assert_true(hmp_migrate_owns_line(line));
    char *text = hmp_migrate_run(line, version, execute, vm, wait, &error);
    g_assert_no_error(error);
    return text;
}

/* The answer to @command as text, to compare. */
static char *query(TestVm *vm, const char *command)
{
    g_autoptr(JsonNode) answer = test_vm_qmp(vm, command, NULL);
    return json_to_string(answer, FALSE);
}

static void assert_same(const char *line, const char *ours, const char *own)
{
    if (g_strcmp0(ours, own)) {
        g_error("\"%s\": QEMU prints:\n%s\nwe print:\n%s", line, own, ours);
    }
}

/* Everything that can be wrong with a line, and whatever changes nothing in QEMU. */
static void test_lines(void)
{
    static const char *const lines[] = {
        "migrate",
        "migrate -x",
        "migrate -d",
        "migrate -r -d foo:bar",
        "migrate -d foo:bar",
        "migrate foo:bar",
        "  migrate\tfoo:bar ",
        "migrate  \"foo:\\\"bar\" baz",
        "migrate \"foo:\\\"b a\\nr\\\\\"",
        "migrate -b -d x",
        "migrate -b foo:x",
        "migrate -d -b -i foo:x",
        "migrate -dr foo",
        "migrate -d-r foo",
        "migrate -",
        "migrate --",
        "migrate -d foo bar",
        "migrate -dfoo",
        "migrate/x",
        "migrate -d tcp:1",
        "migrate -d unix:",
        "migrate -d fd:",
        "migrate -d fd:77",
        "migrate -d \"fd:a b\"",
        "migrate -d vsock:1",
        "migrate -d file:/nonexistent/x",
        "migrate -d file:/tmp/x,offset=q",
        "migrate_cancel",
        "  migrate_cancel ",
        "migrate_cancel x",
        "migrate_cancel/x",
        "migrate_incoming",
        "migrate_incoming foo:",
        "migrate_incoming tcp:1",
        "migrate_incoming file:x y",
        "migrate_incoming file:/nonexistent",
        "migrate_set_capability",
        "migrate_set_capability foo",
        "migrate_set_capability foo on",
        "migrate_set_capability foo baz",
        "migrate_set_capability events on",
        "migrate_set_capability events ON",
        "migrate_set_capability events of",
        "migrate_set_capability events on x",
        "migrate_set_capability \"events\" off ",
        "migrate_set_capability events",
        "migrate_set_capability postcopy-preempt on",
        "migrate_set_capability xbz on",
        "migrate_set_capability events \"on\"",
        "migrate_set_parameter",
        "migrate_set_parameter x",
        "migrate_set_parameter x y",
        "migrate_set_parameter max-band 1",
        "migrate_set_parameter downtime-limit 7 7",
        "info migrate",
        " info  migrate ",
        "info migrate foo",
        "info migrate -a",
        "info migrate_capabilities",
        "info migrate_capabilities x",
        "info migrate_parameters",
        "info migrate_parameters/x",
        "info\tmigrate_parameters",
    };
    TestVm *vm = test_vm_start(0, "-S", "-m", "32", NULL);
    for (guint i = 0; i < G_N_ELEMENTS(lines); i++) {
        g_autofree char *own = test_vm_hmp(vm, lines[i]);
        g_autofree char *after_own = query(vm, "query-migrate-capabilities");
        g_autofree char *ours = run_ours(vm, lines[i], NULL);
        g_autofree char *after_ours = query(vm, "query-migrate-capabilities");
        assert_same(lines[i], ours, own);
        assert_same(lines[i], after_ours, after_own);
    }
    test_vm_free(vm);
}

static void test_foreign_lines(void)
{
    static const char *const lines[] = {
        "",     "mig",   "info",           "info mig",       "help migrate",  "migrate_continue x",
        "quit", "infos", "info migrate_x", "savevm migrate", "migrate_pause", "MIGRATE x",
    };
    for (guint i = 0; i < G_N_ELEMENTS(lines); i++) {
        g_assert_false(hmp_migrate_owns_line(lines[i]));
    }
}

static void reset_parameters(TestVm *vm)
{
    test_vm_qmp_void(vm, "migrate-set-parameters",
                     "{'max-bandwidth': 134217728, 'multifd-channels': 2}");
    if (qmp_client_get_version(test_vm_get_qmp(vm)) >= 90100) {
        test_vm_qmp_void(vm, "migrate-set-parameters", "{'direct-io': false}");
    }
}

/* QEMU's own reading of a value and ours: the same words, and the same value afterwards. */
static void check_parameter(TestVm *vm, const char *name, const char *value)
{
    g_autofree char *line = g_strdup_printf("migrate_set_parameter %s %s", name, value);
    reset_parameters(vm);
    g_autofree char *own = test_vm_hmp(vm, line);
    g_autofree char *own_values = query(vm, "query-migrate-parameters");
    g_autofree char *own_info = test_vm_hmp(vm, "info migrate_parameters");
    reset_parameters(vm);
    g_autofree char *ours = run_ours(vm, line, NULL);
    g_autofree char *our_values = query(vm, "query-migrate-parameters");
    g_autofree char *our_info = run_ours(vm, "info migrate_parameters", NULL);
    assert_same(line, ours, own);
    assert_same(line, our_values, own_values);
    assert_same("info migrate_parameters", our_info, own_info);
}

static void test_parameters(void)
{
    static const char *const names[] = { "max-bandwidth", "multifd-channels", "direct-io",
                                         "downtime-limit", "tls-hostname" };
    static const char *const values[] = {
        "0",
        "1",
        "16",
        "010",
        "255",
        "256",
        "1k",
        "1K",
        "1M",
        "1.5G",
        "2.0000001k",
        "1.",
        "8E",
        "7E",
        "on",
        "off",
        "yes",
        "no",
        "true",
        "y",
        "n",
        "false",
        "ON",
        "foo",
        "-1",
        "\"\"",
        "0x10",
        "0X1f",
        "0x10k",
        "99999999999999999999",
        "1 ",
        "300.5",
        "2000000001",
        "9223372036854775807B",
        "9223372036854775808B",
        "8796093022207",
        "8796093022208",
        "18446744073709551615",
        "none",
        "1e3",
        "1B",
        "+5",
        "\" 7\"",
        "\"7 \"",
        "1kk",
        "1.5.5",
        "0.3B",
        "0.7B",
    };
    TestVm *vm = test_vm_start(0, "-S", "-m", "32", NULL);
    gboolean has_direct_io = qmp_client_get_version(test_vm_get_qmp(vm)) >= 90100;
    for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
        if (g_str_equal(names[i], "direct-io") && !has_direct_io) {
            continue;
        }
        for (guint k = 0; k < G_N_ELEMENTS(values); k++) {
            check_parameter(vm, names[i], values[k]);
        }
    }
    test_vm_free(vm);
}

/* Lines of which each value may be another one by the time of the second question. */
static char *mask_times(const char *text)
{
    g_autoptr(GRegex) regex = g_regex_new("^(total time|downtime|expected downtime): [0-9]+ ms",
                                          G_REGEX_MULTILINE, 0, NULL);
    return g_regex_replace(regex, text, -1, 0, "\\1: N ms", 0, NULL);
}

/* The layout proper, not the text of QEMU that hmp_migrate_run() may prefer. */
static void check_info(TestVm *vm, const char *status)
{
    g_autofree char *own = test_vm_hmp(vm, "info migrate");
    g_autoptr(JsonNode) info = test_vm_qmp(vm, "query-migrate", NULL);
    g_assert_cmpstr(
        json_object_get_string_member_with_default(json_node_get_object(info), "status", "none"),
        ==, status);
    g_autofree char *ours =
        hmp_info_migrate(own, info, qmp_client_get_version(test_vm_get_qmp(vm)));
    g_autofree char *own_masked = mask_times(own);
    g_autofree char *our_masked = mask_times(ours);
    assert_same(status, our_masked, own_masked);
    if (g_str_equal(status, "completed")) {
        assert_same(status, ours, own);
    }
}

static void wait_for_status(TestVm *vm, const char *status)
{
    gint64 end = g_get_monotonic_time() + 20 * G_TIME_SPAN_SECOND;
    for (;;) {
        g_autoptr(JsonNode) info = test_vm_qmp(vm, "query-migrate", NULL);
        const char *now = json_object_get_string_member_with_default(json_node_get_object(info),
                                                                     "status", "none");
        if (g_str_equal(now, status)) {
            return;
        }
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(10000);
    }
}

static void test_info(void)
{
    TestVm *vm = test_vm_start(0, "-S", "-m", "32", NULL);
    gboolean wait = TRUE;
    check_info(vm, "none");
    g_autofree char *failed = run_ours(vm, "migrate -d \"exec:exec false\"", &wait);
    g_assert_cmpstr(failed, ==, "");
    g_assert_false(wait);
    wait_for_status(vm, "failed");
    check_info(vm, "failed");

    g_autofree char *setup =
        run_ours(vm, "migrate_set_capability pause-before-switchover on", NULL);
    g_assert_cmpstr(setup, ==, "");
    g_autofree char *detached = run_ours(vm, "migrate \"exec:cat >/dev/null\"", NULL);
    g_assert_cmpstr(detached, ==,
                    "terminal does not allow synchronous migration, continuing detached\r\n");
    wait_for_status(vm, "pre-switchover");
    check_info(vm, "pre-switchover");
    g_autofree char *own = test_vm_hmp(vm, "migrate -d exec:true");
    g_autofree char *twice = run_ours(vm, "migrate -d exec:true", NULL);
    assert_same("migrate", twice, own);
    g_autofree char *cancel = run_ours(vm, "migrate_cancel", NULL);
    g_assert_cmpstr(cancel, ==, "");
    wait_for_status(vm, "cancelled");
    check_info(vm, "cancelled");

    g_free(test_vm_hmp(vm, "cont")); /* QEMU had stopped it */
    g_free(test_vm_hmp(vm, "migrate_set_capability pause-before-switchover off"));
    g_autofree char *sync = run_ours(vm, "migrate \"exec:cat >/dev/null\"", &wait);
    g_assert_cmpstr(sync, ==, "");
    g_assert_true(wait);
    wait_for_status(vm, "completed");
    check_info(vm, "completed");
    g_free(test_vm_hmp(vm, "migrate_set_capability xbzrle on"));
    check_info(vm, "completed");
    test_vm_free(vm);
}

/* query-migrate-parameters of a front that keeps what QEMU does not know. */
static void test_overlay(void)
{
    g_autoptr(JsonNode) values = json_from_string(
        "{\"max-bandwidth\": 5, \"multifd-channels\": 9, \"direct-io\": true}", NULL);
    g_autofree char *old =
        hmp_info_parameters("a: 1\r\nmax-bandwidth: 1 bytes/second\r\nmultifd-channels: 2\r\n"
                            "tls-authz: ''\r\n",
                            values);
    g_assert_cmpstr(old, ==,
                    "a: 1\r\nmax-bandwidth: 5 bytes/second\r\nmultifd-channels: 9\r\n"
                    "tls-authz: ''\r\ndirect-io: on\r\n");
    g_autofree char *newer = hmp_info_parameters("direct-io: off\r\nz: 1\r\n", values);
    g_assert_true(g_str_has_prefix(newer, "direct-io: on\r\nz: 1\r\n"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_take_qemu_argument(argc, argv);
    g_test_add_func("/hmp/foreign-lines", test_foreign_lines);
    g_test_add_func("/hmp/overlay", test_overlay);
    g_test_add_func("/hmp/lines", test_lines);
    g_test_add_func("/hmp/parameters", test_parameters);
    g_test_add_func("/hmp/info", test_info);
    return g_test_run();
}
