/*
 * Promise of "stillframe monitor": QEMU's human monitor as it is, with migrate as a live snapshot;
 * piped or at a terminal; and a clear word when it cannot be.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "typist.h"
#include "writer-guest.h"

#define PROMPT "(qemu) "

/* Pipes @script, a shell command's output, into the console. */
static TestTool *start_piped(const char *socket, const char *script)
{
    g_autofree char *command =
        g_strdup_printf("(%s) | \"$STILLFRAME_BIN\" monitor '%s'", script, socket);
    const char *const argv[] = { "/bin/sh", "-c", command, NULL };
    return test_tool_start_command(argv);
}

static int run_piped(TestVm *vm, const char *script, char **out, char **err)
{
    return test_tool_finish(start_piped(test_vm_get_socket(vm), script), 60000, out, err);
}

static Typist *start_typist(TestVm *vm)
{
    const char *const argv[] = { g_getenv("STILLFRAME_BIN"), "monitor", test_vm_get_socket(vm),
                                 NULL };
    return typist_start(argv);
}

/* What QEMU answers comes through byte for byte, without prompt or echo. */
static void test_piped(void)
{
    static const char *const lines[] = { "info version", "info qtree", "info mtree -f",
                                         "x /4xb 0",     "help info",  "info migrate",
                                         "info ramblock" };
    g_autoptr(TestVm) vm = test_vm_start(0, "-S", "-m", "32", NULL);
    g_autoptr(GString) expected = g_string_new(NULL);
    g_autoptr(GString) script = g_string_new("printf '");
    g_autofree char *out = NULL, *err = NULL;
    for (guint i = 0; i < G_N_ELEMENTS(lines); i++) {
        g_autofree char *text = test_vm_hmp(vm, lines[i]);
        g_string_append(expected, text);
        /* The last one has no line end, another one that of DOS. */
        g_string_append_printf(script, "%s%s", lines[i],
                               i + 1 == G_N_ELEMENTS(lines) ? "'"
                               : i % 2                      ? "\\r\\n"
                                                            : "\\n\\n");
    }
    g_assert_cmpint(run_piped(vm, script->str, &out, &err), ==, 0);
    g_assert_cmpstr(err, ==, "");
    g_assert_cmpstr(out, ==, expected->str);
}

/* The exit status tells whether every line was carried out. */
static void test_piped_status(void)
{
    static const char *const wrong[] = { "unheard of",        "migrate",
                                         "migrate nonsense:", "migrate_set_capability events maybe",
                                         "device_del nobody", "info unheard" };
    g_autoptr(TestVm) vm = test_vm_start(0, "-S", "-m", "32", NULL);
    for (guint i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autofree char *script = g_strdup_printf("echo '%s'; echo info status", wrong[i]);
        g_autofree char *text = test_vm_hmp(vm, wrong[i]);
        g_autofree char *out = NULL, *err = NULL;
        g_test_message("%s", wrong[i]);
        g_assert_cmpint(run_piped(vm, script, &out, &err), ==, 1);
        g_assert_true(g_str_has_prefix(out, "Error: ") || g_str_has_prefix(out, text));
        g_assert_nonnull(strstr(out, "VM status: paused")); /* the rest was done */
        g_assert_nonnull(strstr(err, "not every line was carried out"));
    }
}

/* QEMU's own monitor would remember the current CPU from line to line. */
static void test_cpu(void)
{
    g_autoptr(TestVm) vm = test_vm_start(0, "-S", "-m", "32", "-smp", "2", NULL);
    g_autofree char *out = NULL;
    g_assert_cmpint(run_piped(vm, "echo cpu 1; echo info cpus", &out, NULL), ==, 0);
    g_assert_nonnull(strstr(out, "* CPU #1"));
    g_assert_null(strstr(out, "* CPU #0"));
}

static void test_wrong_sockets(void)
{
    g_autoptr(TestVm) vm = test_vm_start(0, "-S", "-m", "32", NULL);
    g_autofree char *usage = NULL, *none = NULL, *busy = NULL;
    g_assert_cmpint(test_tool_run(NULL, &usage, "monitor", NULL), ==, 2);
    g_assert_nonnull(strstr(usage, "give one SOCKET"));
    g_assert_cmpint(test_tool_run(NULL, &none, "monitor", "/nonexistent", NULL), ==, 1);
    g_assert_nonnull(strstr(none, "/nonexistent"));

    g_autoptr(QmpClient) other = qmp_client_open(test_vm_get_socket(vm), 10000, NULL);
    g_assert_nonnull(other);
    g_assert_cmpint(test_tool_run(NULL, &busy, "monitor", test_vm_get_socket(vm), NULL), ==, 1);
    g_assert_nonnull(strstr(busy, "another client holds it"));
}

/* "quit" is an end as wished; any other is an error. */
static void test_end_of_qemu(void)
{
    g_autoptr(TestVm) quits = test_vm_start(0, "-S", "-m", "32", NULL);
    g_autofree char *quit_err = NULL;
    g_assert_cmpint(run_piped(quits, "echo quit; sleep 1; echo info status", NULL, &quit_err), ==,
                    0);
    g_assert_cmpstr(quit_err, ==, "");

    g_autoptr(TestVm) dies = test_vm_start(0, "-S", "-m", "32", NULL);
    g_autofree char *err = NULL;
    TestTool *tool =
        start_piped(test_vm_get_socket(dies), "echo info status; sleep 2; echo info status");
    g_usleep(700000);
    test_vm_kill(dies);
    g_assert_cmpint(test_tool_finish(tool, 20000, NULL, &err), ==, 1);
    g_assert_nonnull(strstr(err, "QEMU has ended"));
}

/* At a terminal: banner, prompt, editing, history, completion, Ctrl-C, Ctrl-D. */
static void test_terminal(void)
{
    g_autoptr(TestVm) vm = test_vm_start(0, "-S", "-m", "32", NULL);
    Typist *typist = start_typist(vm);
    typist_expect(typist, "monitor - type 'help' for more information");
    typist_expect(typist, PROMPT);
    typist_type(typist, "info stattus\033[D\033[D\033[D\177\n");
    typist_expect(typist, "VM status: paused");
    typist_expect(typist, PROMPT);
    typist_type(typist, "cont\n");
    typist_expect(typist, PROMPT);
    typist_type(typist, "\033[A\033[A\n");
    typist_expect(typist, "VM status: running");
    typist_expect(typist, PROMPT);
    typist_type(typist, "migrate_set_cap\tback\ton\n");
    typist_expect(typist, "migrate_set_capability background-snapshot on");
    typist_expect(typist, PROMPT);
    typist_type(typist, "info migrate_\t");
    typist_expect(typist, "migrate_capabilities  migrate_parameters");
    typist_expect(typist, "info migrate_");
    typist_type(typist, "\003");
    typist_expect(typist, "^C");
    typist_expect(typist, PROMPT);
    typist_type(typist, "info name\n");
    typist_expect(typist, PROMPT);
    typist_type(typist, "\004");
    g_assert_cmpint(typist_finish(typist), ==, 0);
}

/* QEMU's end shows at once, also while nobody types. */
static void test_terminal_end_of_qemu(void)
{
    g_autoptr(TestVm) quits = test_vm_start(0, "-S", "-m", "32", NULL);
    Typist *typist = start_typist(quits);
    typist_expect(typist, PROMPT);
    typist_type(typist, "quit\n");
    typist_expect(typist, "QEMU has ended");
    g_assert_cmpint(typist_finish(typist), ==, 0);

    g_autoptr(TestVm) dies = test_vm_start(0, "-S", "-m", "32", NULL);
    Typist *other = start_typist(dies);
    typist_expect(other, PROMPT);
    test_vm_kill(dies);
    typist_expect(other, "QEMU has ended");
    g_assert_cmpint(typist_finish(other), ==, 1);
}

#define CAPABILITY_ON "migrate_set_capability background-snapshot on"

/* The three lines of QEMU's manual, piped in; the image is in @path. */
static void take_piped_snapshot(TestVm *vm, const char *path)
{
    g_autofree char *script = g_strdup_printf(
        "echo " CAPABILITY_ON "; echo 'migrate file:%s'; echo info migrate; echo info status",
        path);
    g_autofree char *out = NULL, *err = NULL;
    int status = run_piped(vm, script, &out, &err);
    g_assert_cmpstr(err, ==, "");
    g_assert_cmpint(status, ==, 0);
    g_assert_true(g_str_has_prefix(out, "globals:\r\n"));
    g_assert_nonnull(strstr(out, "\r\nMigration status: completed\r\ntotal time: "));
    g_assert_nonnull(strstr(out, " ms\r\ntransferred ram: "));
    g_assert_true(g_str_has_suffix(out, "VM status: running\r\n"));
}

static void test_snapshot(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");
    take_piped_snapshot(vm, path);
    writer_guest_check_image(path, 0);
    writer_guest_assert_goes_on(vm);
    writer_guest_assert_loads(path, "running");
    test_dir_assert_holds(dir, "image", NULL);
}

/* KVM here may be a slow software variant: a small working set. */
static TestVm *new_kvm_guest(void)
{
    const char *const args[] = {
        "-accel", "kvm",     "-machine",        "q35",     "-m",
        "96",     "-kernel", test_guest_path(), "-append", "ranges=0x1000000+0x800000",
        NULL
    };
    return test_vm_new(TEST_VM_NO_ACCEL, args);
}

static void test_snapshot_kvm(void)
{
    g_autofree char *reason = NULL;
    if (!test_have_kvm(&reason)) {
        g_test_skip(reason);
        return;
    }
    g_autoptr(TestVm) vm = new_kvm_guest();
    g_autoptr(TestVm) next = new_kvm_guest();
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");
    g_autofree char *uri = g_strdup_printf("exec:cat '%s'", path);
    test_vm_launch(vm);
    test_vm_serial_wait(vm, "VV", WRITER_TIMEOUT_MS);
    take_piped_snapshot(vm, path);
    writer_guest_check_image(path, 0);
    writer_guest_assert_goes_on(vm);
    test_vm_launch_incoming(next, uri);
    test_vm_assert_status(next, "running");
    writer_guest_assert_goes_on(next);
}

/* Asks until the answer has @text in it. */
static void typist_expect_answer(Typist *typist, const char *line, const char *text)
{
    for (int i = 0; i < 200; i++) {
        gsize from = typist->read_to;
        typist_type(typist, line);
        typist_expect(typist, PROMPT);
        if (strstr(typist->heard->str + from, text)) {
            return;
        }
        g_usleep(20000);
    }
    g_error("no \"%s\" in the answers: %s", text, typist->heard->str);
}

/* Progress on the terminal; Ctrl-C cancels and nothing is left; then again, to the end. */
static void test_snapshot_on_terminal(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");
    g_autofree char *line = g_strdup_printf("migrate file:%s\n", path);
    g_autofree char *detached = g_strdup_printf("migrate -d file:%s\n", path);
    g_setenv("TERM", "xterm", TRUE);
    Typist *typist = start_typist(vm);
    typist_expect(typist, PROMPT);
    typist_type(typist, CAPABILITY_ON "\nmigrate_set_parameter max-bandwidth 2\n");
    typist_expect(typist, "max-bandwidth 2");
    typist_expect(typist, PROMPT);
    typist_type(typist, line);
    typist_expect(typist, "active");
    typist_type(typist, "\003");
    typist_expect(typist, "Migration status: cancelled\r");
    typist_expect(typist, PROMPT);
    test_dir_assert_holds(dir, NULL, NULL);
    typist_type(typist, "info migrate\n");
    typist_expect(typist, "Migration status: cancelled\r");
    typist_expect(typist, PROMPT);
    writer_guest_assert_goes_on(vm);

    typist_type(typist, "migrate_set_parameter max-bandwidth 20\n");
    typist_expect(typist, PROMPT);
    typist_type(typist, detached);
    typist_expect(typist, PROMPT);
    /* Arming comes first: "setup" for a while. */
    typist_expect_answer(typist, "info migrate\n", "Migration status: active\r");
    typist_type(typist, "\004");
    typist_expect(typist, "waiting for the end of the snapshot");
    g_assert_cmpint(typist_finish(typist), ==, 0);
    writer_guest_check_image(path, 0);
    writer_guest_assert_goes_on(vm);
}

/* What cannot be done is said as QEMU says it, and the exit status tells. */
static void test_snapshot_fails(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    g_autofree char *out = NULL;
    g_assert_cmpint(run_piped(vm,
                              "echo " CAPABILITY_ON "; echo 'migrate \"exec:cat >/dev/full\"'; "
                              "echo info migrate",
                              &out, NULL),
                    ==, 1);
    g_assert_nonnull(strstr(out, "Error: "));
    g_assert_nonnull(strstr(out, "Migration status: failed ("));
    writer_guest_assert_goes_on(vm);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_take_qemu_argument(argc, argv);
    g_test_add_func("/monitor/snapshot/tcg", test_snapshot);
    g_test_add_func("/monitor/snapshot/kvm", test_snapshot_kvm);
    g_test_add_func("/monitor/snapshot/terminal", test_snapshot_on_terminal);
    g_test_add_func("/monitor/snapshot/fails", test_snapshot_fails);
    g_test_add_func("/monitor/piped", test_piped);
    g_test_add_func("/monitor/piped-status", test_piped_status);
    g_test_add_func("/monitor/cpu", test_cpu);
    g_test_add_func("/monitor/wrong-sockets", test_wrong_sockets);
    g_test_add_func("/monitor/end-of-qemu", test_end_of_qemu);
    g_test_add_func("/monitor/terminal", test_terminal);
    g_test_add_func("/monitor/terminal-end-of-qemu", test_terminal_end_of_qemu);
    return g_test_run();
}
