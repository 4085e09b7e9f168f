/*
 * stillframe restore: it returns 0 only when QEMU runs (or is paused as it should be), names what
 * does not fit, and leaves no QEMU behind when it fails. The images are QEMU's own migrations.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <signal.h>
#include <string.h>

#include "vm.h"

#define EXIT_USAGE 2
#define EXIT_CANCELLED 130

typedef struct Fixture {
    TestDir *dir;
    char *image;
    TestVm *vm; /* ended, to be restored by its own command line */
} Fixture;

static const char *const machine[] = {
    "-M", "q35", "-m", "32", "-device", "virtio-net-pci,romfile=", NULL
};

static void wait_migrated(TestVm *vm)
{
    for (;;) {
        g_autoptr(JsonNode) info = test_vm_qmp(vm, "query-migrate", NULL);
        const char *status = json_object_get_string_member_with_default(json_node_get_object(info),
                                                                        "status", "none");
        g_assert_cmpstr(status, !=, "failed");
        if (!strcmp(status, "completed")) {
            return;
        }
        g_usleep(5000);
    }
}

/* @data: a run state to bring the source into, NULL for running. */
static void setup(Fixture *f, gconstpointer data)
{
    f->dir = test_dir_new();
    f->image = test_dir_file(f->dir, "image");
    f->vm = test_vm_new(TEST_VM_DEFAULT, machine);
    test_vm_launch(f->vm);
    if (data) {
        test_vm_qmp_void(f->vm, "stop", NULL);
    }
    test_vm_qmp_void(f->vm, "migrate", "{'uri': 'exec:cat > %s'}", f->image);
    wait_migrated(f->vm);
    test_vm_kill(f->vm);
}

static void teardown(Fixture *f, gconstpointer data)
{
    test_vm_free(f->vm);
    g_free(f->image);
    test_dir_free(f->dir);
}

/* "restore [OPTION] IMAGE -- QEMU-COMMAND MORE..." */
static GPtrArray *restore_args(Fixture *f, const char *option, const char *image,
                               const char *const *more)
{
    GPtrArray *args = g_ptr_array_new();

    g_ptr_array_add(args, (gpointer) "restore");
    if (option) {
        g_ptr_array_add(args, (gpointer)option);
    }
    g_ptr_array_add(args, (gpointer)image);
    g_ptr_array_add(args, (gpointer) "--");
    for (char **arg = test_vm_get_argv(f->vm); *arg; arg++) {
        g_ptr_array_add(args, *arg);
    }
    for (; more && *more; more++) {
        g_ptr_array_add(args, (gpointer)*more);
    }
    g_ptr_array_add(args, NULL);
    return args;
}

/* Restores, takes the VM over and asserts its state. */
static void restore_ok(Fixture *f, const char *option, const char *image, const char *state,
                       const char *const *more)
{
    g_autoptr(GPtrArray) args = restore_args(f, option, image, more);
    g_autofree char *out = NULL;
    g_autofree char *err = NULL;
    int status = test_tool_runv(&out, &err, (const char *const *)args->pdata);

    if (status != 0) {
        g_error("restore failed: %s", err);
    }
    g_assert_nonnull(strstr(err, state));
    g_assert_cmpstr(out, ==, "");
    test_vm_adopt(f->vm);
    g_autofree char *now = test_vm_query_status(f->vm);
    g_assert_cmpstr(now, ==, state);
}

/* No process has a word of this VM's on its command line. */
static gboolean some_qemu_is_left(Fixture *f)
{
    const char *mark = test_vm_get_dir(f->vm)->path;
    g_autoptr(GDir) proc = g_dir_open("/proc", 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(proc))) {
        g_autofree char *path = g_build_filename("/proc", name, "cmdline", NULL);
        g_autofree char *text = NULL;
        gsize length;
        if (g_ascii_isdigit(*name) && g_file_get_contents(path, &text, &length, NULL) &&
            memmem(text, length, "qemu", 4) && memmem(text, length, mark, strlen(mark))) {
            return TRUE;
        }
    }
    return FALSE;
}

/* Asserts that it fails, with each of the words (NULL-terminated) on standard error. */
static void restore_fails(Fixture *f, const char *image, int exit_status, const char *const *more,
                          const char *const *words)
{
    g_autoptr(GPtrArray) args = restore_args(f, NULL, image, more);
    g_autofree char *err = NULL;
    int status = test_tool_runv(NULL, &err, (const char *const *)args->pdata);

    g_test_message("%s", err);
    g_assert_cmpint(status, ==, exit_status);
    for (; *words; words++) {
        if (!strstr(err, *words)) {
            g_error("\"%s\" is missing in: %s", *words, err);
        }
    }
    g_assert_false(some_qemu_is_left(f));
}

#define LIST(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* ---- it runs ---- */

static void test_running(Fixture *f, gconstpointer data)
{
    restore_ok(f, NULL, f->image, "running", NULL);
}

static void test_paused(Fixture *f, gconstpointer data)
{
    restore_ok(f, NULL, f->image, "paused", NULL);
    test_vm_qmp_void(f->vm, "cont", NULL);
    test_vm_assert_status(f->vm, "running");
}

static void test_stopped_by_option(Fixture *f, gconstpointer data)
{
    restore_ok(f, NULL, f->image, "paused", LIST("-S"));
}

static void test_daemonized(Fixture *f, gconstpointer data)
{
    restore_ok(f, NULL, f->image, "running", LIST("-daemonize"));
}

/* What stands before and behind the stream is nobody's business. */
static void test_offset(Fixture *f, gconstpointer data)
{
    g_autofree char *content = NULL;
    g_autofree char *path = test_dir_file(f->dir, "shifted");
    gsize length;

    g_assert_true(g_file_get_contents(f->image, &content, &length, NULL));
    g_autoptr(GString) shifted = g_string_new_len(content, 4096);
    g_string_append_len(shifted, content, (gssize)length);
    g_string_append_len(shifted, content, 5000);
    g_assert_true(g_file_set_contents(path, shifted->str, (gssize)shifted->len, NULL));
    restore_ok(f, "--offset=4k", path, "running", NULL);
}

/* What was ours alone is gone with us: no descriptor of the restore stays in QEMU. */
static void test_leaves_nothing_in_qemu(Fixture *f, gconstpointer data)
{
    restore_ok(f, NULL, f->image, "paused", NULL);
    g_autofree char *fds = g_strdup_printf("/proc/%d/fd", (int)test_vm_get_pid(f->vm));
    g_autoptr(GDir) dir = g_dir_open(fds, 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(fds, name, NULL);
        g_autofree char *target = g_file_read_link(path, NULL);
        g_assert_false(target && strstr(target, "stillframe-device-state"));
        g_assert_cmpstr(target, !=, f->image);
    }
    g_autoptr(JsonNode) sets = test_vm_qmp(f->vm, "query-fdsets", NULL);
    g_assert_cmpuint(json_array_get_length(json_node_get_array(sets)), ==, 0);
}

static void test_json(Fixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) args = restore_args(f, "--json", f->image, NULL);
    g_autofree char *out = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_cmpint(test_tool_runv(&out, NULL, (const char *const *)args->pdata), ==, 0);
    test_vm_adopt(f->vm);
    g_autoptr(JsonNode) node = json_from_string(out, &error);
    g_assert_no_error(error);
    JsonObject *report = json_node_get_object(node);
    g_assert_cmpint(json_object_get_int_member(report, "pid"), ==, test_vm_get_pid(f->vm));
    g_assert_true(json_object_get_boolean_member(report, "running"));
    g_assert_cmpstr(json_object_get_string_member(report, "run-state"), ==, "running");
    g_assert_cmpint(json_object_get_int_member(report, "bytes"), >, 100000);
    JsonObject *times = json_object_get_object_member(report, "time-ms");
    g_assert_cmpfloat(json_object_get_double_member(times, "total"), >,
                      json_object_get_double_member(times, "load"));
}

static void test_wait(Fixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) args = restore_args(f, "--wait", f->image, NULL);
    TestTool *tool = test_tool_start((const char *const *)args->pdata);
    g_autofree char *socket = g_strdup(test_vm_get_socket(f->vm));
    g_autoptr(QmpClient) qmp = NULL;

    for (int i = 0; i < 2000 && !qmp; i++) {
        g_usleep(5000);
        qmp = qmp_client_open(socket, 10000, NULL);
    }
    g_assert_nonnull(qmp);
    for (;;) {
        g_autoptr(JsonNode) status = qmp_client_execute(qmp, "query-status", NULL, NULL);
        if (json_object_get_boolean_member(json_node_get_object(status), "running")) {
            break;
        }
        g_usleep(5000);
    }
    /* It is still there, until QEMU ends. */
    g_usleep(200000);
    g_assert_cmpint(kill(test_tool_get_pid(tool), 0), ==, 0);
    g_autoptr(JsonNode) answer = qmp_client_execute(qmp, "quit", NULL, NULL);
    g_assert_nonnull(answer);
    g_assert_cmpint(test_tool_finish(tool, 20000, NULL, NULL), ==, 0);
    g_assert_false(some_qemu_is_left(f));
}

/* ---- it does not fit ---- */

static void test_other_machine(Fixture *f, gconstpointer data)
{
    restore_fails(f, f->image, 1, LIST("-M", "pc"),
                  LIST("machine type: image has pc-q35-", "this command line pc-i440fx-",
                       "Machine type received is" /* QEMU's words */));
}

static void test_other_memory(Fixture *f, gconstpointer data)
{
    restore_fails(f, f->image, 1, LIST("-m", "64"),
                  LIST("memory: image has pc.ram 32 MiB, this command line 64 MiB",
                       "load of migration failed"));
}

static void test_more_memory(Fixture *f, gconstpointer data)
{
    restore_fails(f, f->image, 1,
                  LIST("-m", "32,slots=2,maxmem=1G", "-object", "memory-backend-ram,id=m1,size=32M",
                       "-device", "pc-dimm,memdev=m1"),
                  LIST("memory: this command line has m1 32 MiB, image has no m1"));
}

static void test_missing_device(Fixture *f, gconstpointer data)
{
    g_autoptr(TestVm) bare = test_vm_new(TEST_VM_DEFAULT, LIST("-M", "q35", "-m", "32"));
    TestVm *whole = f->vm;

    f->vm = bare;
    restore_fails(f, f->image, 1, NULL,
                  LIST("/virtio-net is in the image and not on this command line",
                       "Unknown savevm section or instance"));
    f->vm = whole;
}

static void test_additional_device(Fixture *f, gconstpointer data)
{
    restore_fails(f, f->image, 1, LIST("-device", "virtio-rng-pci"),
                  LIST("/virtio-rng is on this command line and not in the image"));
}

static void test_other_processors(Fixture *f, gconstpointer data)
{
    restore_fails(f, f->image, 1, LIST("-smp", "2"),
                  LIST("processors: image has 1, this command line 2"));
}

/* A device that cannot migrate keeps QEMU from being asked; the load itself fails. */
static void test_unmigratable_device(Fixture *f, gconstpointer data)
{
    restore_fails(f, f->image, 1, LIST("-device", "nvme,serial=x"), LIST("QEMU ended with status"));
}

static void test_behind_daemonize(Fixture *f, gconstpointer data)
{
    restore_fails(f, f->image, 1, LIST("-m", "64", "-daemonize"),
                  LIST("memory: image has pc.ram 32 MiB, this command line 64 MiB"));
}

/* ---- it cannot be ---- */

static void test_usage(Fixture *f, gconstpointer data)
{
    restore_fails(f, f->image, EXIT_USAGE, LIST("-incoming", "defer"), LIST("-incoming already"));
    restore_fails(f, f->image, EXIT_USAGE, LIST("--incoming", "defer"), LIST("-incoming already"));
    restore_fails(f, f->image, EXIT_USAGE, LIST("-loadvm", "x"), LIST("-loadvm already"));
    g_assert_cmpint(test_tool_run(NULL, NULL, "restore", f->image, NULL), ==, EXIT_USAGE);
    g_assert_cmpint(test_tool_run(NULL, NULL, "restore", f->image, "--", NULL), ==, EXIT_USAGE);
    g_assert_cmpint(test_tool_run(NULL, NULL, "restore", "--", "qemu", NULL), ==, EXIT_USAGE);
    g_assert_cmpint(
        test_tool_run(NULL, NULL, "restore", "--offset=x", f->image, "--", "qemu", NULL), ==,
        EXIT_USAGE);
}

static void test_wrong_images(Fixture *f, gconstpointer data)
{
    g_autofree char *missing = test_dir_file(f->dir, "missing");
    g_autofree char *junk = test_dir_file(f->dir, "junk");
    g_autofree char *cut = test_dir_file(f->dir, "cut");
    g_autofree char *content = NULL;
    gsize length;

    g_assert_true(g_file_get_contents(f->image, &content, &length, NULL));
    g_assert_true(g_file_set_contents(junk, "This is no image at all.", -1, NULL));
    g_assert_true(g_file_set_contents(cut, content, (gssize)length / 2, NULL));
    restore_fails(f, missing, 1, NULL, LIST("No such file"));
    restore_fails(f, junk, 1, NULL, LIST("no migration stream"));
    restore_fails(f, cut, 1, NULL, LIST("cut"));
}

static void test_wrong_commands(Fixture *f, gconstpointer data)
{
    g_autofree char *err = NULL;
    g_autofree char *early = NULL;

    restore_fails(f, f->image, 1, LIST("-device", "nosuch"),
                  LIST("not a valid device model", "QEMU ended with status 1"));
    g_assert_cmpint(test_tool_run(NULL, &err, "restore", f->image, "--", "no-such-program", NULL),
                    ==, 1);
    g_assert_nonnull(strstr(err, "cannot start no-such-program"));
    g_assert_cmpint(test_tool_run(NULL, &early, "restore", f->image, "--", "true", NULL), ==, 1);
    g_assert_nonnull(strstr(early, "QEMU ended with status 0"));
}

/* A "QEMU" that never opens its monitor: only a signal ends the wait, and it ends that program. */
static void test_cancel(Fixture *f, gconstpointer data)
{
    static const char script[] = "trap '' TERM; echo $$ > \"$0/pid\"; while :; do sleep 1; done";
    TestTool *tool =
        test_tool_start(LIST("restore", f->image, "--", "sh", "-c", script, f->dir->path));
    g_autofree char *path = test_dir_file(f->dir, "pid");
    g_autofree char *text = NULL;

    while (!g_file_get_contents(path, &text, NULL, NULL) || !strchr(text, '\n')) {
        g_clear_pointer(&text, g_free);
        g_usleep(5000);
    }
    kill(test_tool_get_pid(tool), SIGTERM);
    g_assert_cmpint(test_tool_finish(tool, 20000, NULL, NULL), ==, EXIT_CANCELLED);
    g_assert_cmpint(kill(atoi(text), 0), ==, -1);
}

#define ADD(path, state, func) g_test_add(path, Fixture, state, setup, func, teardown)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("/restore/running", NULL, test_running);
    ADD("/restore/paused", "paused", test_paused);
    ADD("/restore/stopped-by-option", NULL, test_stopped_by_option);
    ADD("/restore/daemonized", NULL, test_daemonized);
    ADD("/restore/offset", NULL, test_offset);
    ADD("/restore/leaves-nothing-in-qemu", "paused", test_leaves_nothing_in_qemu);
    ADD("/restore/json", NULL, test_json);
    ADD("/restore/wait", NULL, test_wait);
    ADD("/restore/mismatch/machine", NULL, test_other_machine);
    ADD("/restore/mismatch/memory", NULL, test_other_memory);
    ADD("/restore/mismatch/more-memory", NULL, test_more_memory);
    ADD("/restore/mismatch/missing-device", NULL, test_missing_device);
    ADD("/restore/mismatch/additional-device", NULL, test_additional_device);
    ADD("/restore/mismatch/processors", NULL, test_other_processors);
    ADD("/restore/mismatch/unmigratable", NULL, test_unmigratable_device);
    ADD("/restore/mismatch/daemonized", NULL, test_behind_daemonize);
    ADD("/restore/usage", NULL, test_usage);
    ADD("/restore/wrong-images", NULL, test_wrong_images);
    ADD("/restore/wrong-commands", NULL, test_wrong_commands);
    ADD("/restore/cancel", NULL, test_cancel);
    return g_test_run();
}
