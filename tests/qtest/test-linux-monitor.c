/*
 * Promise: QEMU's own commands take a live snapshot of a Linux guest that runs, in the console and
 * through the proxy; QEMU is killed, and stock QEMU goes on from the image where the guest was.
 * One guest goes through all of it, from image to image.
 *
 * Usage: test-linux-monitor SCRIPTS [other]. SCRIPTS is the folder of fetch-kernel and demo-guest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glob.h>
#include <signal.h>
#include <string.h>

#include <glib/gstdio.h>

#include "linux-guest.h"
#include "typist.h"

#define PROMPT "(qemu) "
#define CAPABILITY_ON "migrate_set_capability background-snapshot on"
#define SNAPSHOT_TIMEOUT_MS 60000
/* Fetching the kernel's package, once. */
#define MAKE_TIMEOUT_MS 300000
/* QEMU reads file: since 8.2. */
#define VERSION_FILE_URI 80200

typedef struct Chain {
    LinuxGuest guest;
    TestDir *dir; /* for images: it must outlive every VM that names it */
    TestVm *vm;   /* the one that runs now; NULL before the first boot */
} Chain;

/* How the next QEMU gets the image. */
typedef enum { LOAD_EXEC, LOAD_DEFER, LOAD_FILE } Loading;

/* The guest, running for a while. */
static TestVm *ensure_running(Chain *chain)
{
    if (!chain->vm) {
        gint64 start = g_get_monotonic_time();
        chain->vm = linux_guest_new(&chain->guest, NULL);
        test_vm_launch(chain->vm);
        linux_guest_wait_for_counts(chain->vm, 1);
        g_test_message("booted in %.1f s",
                       (double)(g_get_monotonic_time() - start) / G_TIME_SPAN_SECOND);
    }
    linux_guest_wait_for_counts(chain->vm, 5);
    return chain->vm;
}

static TestVm *load(const LinuxGuest *guest, const char *image, Loading how, gboolean knows_file)
{
    static const char *const defer[] = { "-incoming", "defer", NULL };
    TestVm *vm = linux_guest_new(guest, how == LOAD_DEFER ? defer : NULL);
    g_autofree char *uri = how == LOAD_FILE && knows_file ? g_strconcat("file:", image, NULL)
                                                          : g_strdup_printf("exec:cat %s", image);
    if (how == LOAD_DEFER) {
        test_vm_launch(vm);
        test_vm_qmp_void(vm, "migrate-incoming", "{'uri': '%s'}", uri);
        test_vm_assert_status(vm, "running");
    } else {
        test_vm_launch_incoming(vm, uri);
    }
    return vm;
}

/* The guest of @image, whose instant was between these counts, goes on in the next VM. */
static void go_on_from(Chain *chain, const char *image, guint64 before, Loading how)
{
    gboolean knows_file = qmp_client_get_version(test_vm_get_qmp(chain->vm)) >= VERSION_FILE_URI;
    guint64 after = linux_guest_read_count(chain->vm, TRUE);

    linux_guest_wait_for_counts(chain->vm, 3); /* it was live */
    test_vm_assert_status(chain->vm, "running");
    g_clear_pointer(&chain->vm, test_vm_free);
    chain->vm = load(&chain->guest, image, how, knows_file);
    linux_guest_assert_goes_on(chain->vm, before, after);
    g_assert_cmpint(g_unlink(image), ==, 0);
    test_vm_assert_status(chain->vm, "running");
}

static void test_piped(gconstpointer data)
{
    Chain *chain = (Chain *)data;
    TestVm *vm = ensure_running(chain);
    g_autofree char *image = test_dir_file(chain->dir, "image");
    g_autofree char *out = NULL, *err = NULL;
    g_autofree char *command =
        g_strdup_printf("printf '%%s\\n' '" CAPABILITY_ON "' 'migrate file:%s' 'info migrate' | "
                        "\"$STILLFRAME_BIN\" monitor '%s'",
                        image, test_vm_get_socket(vm));
    const char *const argv[] = { "/bin/sh", "-c", command, NULL };

    guint64 before = linux_guest_read_count(vm, TRUE);
    int status = test_tool_finish(test_tool_start_command(argv), SNAPSHOT_TIMEOUT_MS, &out, &err);
    g_assert_cmpstr(err, ==, "");
    g_assert_cmpint(status, ==, 0);
    g_assert_nonnull(strstr(out, "Migration status: completed\r\n"));
    go_on_from(chain, image, before, LOAD_EXEC);
}

static void test_terminal(gconstpointer data)
{
    Chain *chain = (Chain *)data;
    TestVm *vm = ensure_running(chain);
    g_autofree char *image = test_dir_file(chain->dir, "image");
    g_autofree char *line = g_strdup_printf("migrate file:%s\n", image);
    const char *const argv[] = { g_getenv("STILLFRAME_BIN"), "monitor", test_vm_get_socket(vm),
                                 NULL };
    Typist *typist = typist_start(argv);

    typist_expect(typist, PROMPT);
    typist_type(typist, CAPABILITY_ON "\n");
    typist_expect(typist, PROMPT);
    guint64 before = linux_guest_read_count(vm, TRUE);
    typist_type(typist, line);
    typist_expect(typist, PROMPT); /* at its end */
    typist_type(typist, "info migrate\n");
    typist_expect(typist, "Migration status: completed\r");
    typist_expect(typist, PROMPT);
    typist_type(typist, "\004");
    g_assert_cmpint(typist_finish(typist), ==, 0);
    go_on_from(chain, image, before, LOAD_DEFER);
}

static JsonNode *execute(QmpClient *client, const char *command, const char *arguments)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) parsed = arguments ? json_from_string(arguments, &error) : NULL;
    g_assert_no_error(error);
    JsonNode *answer =
        qmp_client_execute(client, command, parsed ? json_node_dup_object(parsed) : NULL, &error);
    g_assert_no_error(error);
    return answer;
}

/* Until query-migrate says that it is over. */
static void wait_for_completion(QmpClient *client)
{
    gint64 end = g_get_monotonic_time() + (gint64)SNAPSHOT_TIMEOUT_MS * 1000;

    for (;;) {
        g_autoptr(JsonNode) info = execute(client, "query-migrate", NULL);
        const char *status = json_object_get_string_member(json_node_get_object(info), "status");
        if (g_str_equal(status, "completed")) {
            g_assert_true(json_object_has_member(json_node_get_object(info), "stillframe"));
            return;
        }
        g_assert_true(g_str_equal(status, "setup") || g_str_equal(status, "active"));
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(20000);
    }
}

static TestTool *start_proxy(TestDir *dir, const char *qmp, const char *socket)
{
    const char *const args[] = { "proxy", "--qmp", qmp, "--listen", socket, NULL };
    g_setenv("STILLFRAME_RUNTIME_DIR", dir->path, TRUE);
    TestTool *proxy = test_tool_start(args);
    g_unsetenv("STILLFRAME_RUNTIME_DIR");
    while (!g_file_test(socket, G_FILE_TEST_EXISTS)) {
        g_usleep(1000);
    }
    return proxy;
}

static void test_proxy(gconstpointer data)
{
    Chain *chain = (Chain *)data;
    TestVm *vm = ensure_running(chain);
    g_autofree char *image = test_dir_file(chain->dir, "image");
    g_autofree char *socket = test_dir_file(chain->dir, "proxy.sock");
    g_autofree char *migrate = g_strdup_printf("{\"uri\": \"file:%s\"}", image);
    g_autofree char *said = NULL;
    g_autoptr(GError) error = NULL;
    TestTool *proxy = start_proxy(chain->dir, test_vm_get_socket(vm), socket);
    QmpClient *client = qmp_client_open(socket, SNAPSHOT_TIMEOUT_MS, &error);

    g_assert_no_error(error);
    json_node_unref(execute(client, "migrate-set-capabilities",
                            "{\"capabilities\": [{\"capability\": \"background-snapshot\","
                            " \"state\": true}]}"));
    guint64 before = linux_guest_read_count(vm, TRUE);
    json_node_unref(execute(client, "migrate", migrate));
    wait_for_completion(client);
    qmp_client_free(client);
    kill(test_tool_get_pid(proxy), SIGTERM);
    g_assert_cmpint(test_tool_finish(proxy, SNAPSHOT_TIMEOUT_MS, NULL, &said), ==, 0);
    g_assert_cmpstr(said, ==, "");
    go_on_from(chain, image, before, LOAD_FILE);
}

/* ---- What the guest is made of ---- */

/* Runs a script; its output. Skips all where it cannot be carried out, with its last word. */
static char *make(const char *scripts, const char *script, const char *argument)
{
    g_autofree char *path = g_build_filename(scripts, script, NULL);
    const char *const argv[] = { path, argument, NULL };
    char *out = NULL;
    g_autofree char *err = NULL;

    if (test_tool_finish(test_tool_start_command(argv), MAKE_TIMEOUT_MS, &out, &err) != 0) {
        const char *last = strrchr(g_strchomp(err), '\n');
        test_skip_all(*err ? (last ? last + 1 : err) : script);
    }
    return g_strchomp(out);
}

static void need_programs(void)
{
    static const char *const programs[] = { "busybox", "cpio", "cc" };
    for (guint i = 0; i < G_N_ELEMENTS(programs); i++) {
        g_autofree char *found = g_find_program_in_path(programs[i]);
        g_autofree char *reason = g_strdup_printf("no %s here to make the guest", programs[i]);
        if (!found) {
            test_skip_all(reason);
        }
    }
}

/* The kernel in the unpacked package @folder; the caller frees. */
static char *find_kernel(const char *folder)
{
    g_autofree char *pattern = g_build_filename(folder, "boot", "vmlinuz-*", NULL);
    glob_t found;

    g_assert_cmpint(glob(pattern, 0, NULL, &found), ==, 0);
    char *kernel = g_strdup(found.gl_pathv[0]);
    globfree(&found);
    return kernel;
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (argc < 2) {
        g_printerr("Usage: %s SCRIPTS [other]\n", argv[0]);
        return 2;
    }
    test_take_qemu_argument(argc - 1, argv + 1);
    need_programs();
    g_autofree char *package = make(argv[1], "fetch-kernel", NULL);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *kernel = find_kernel(package);
    g_autofree char *initramfs = test_dir_file(dir, "initramfs");
    g_free(make(argv[1], "demo-guest/build", initramfs));
    Chain chain = { .dir = dir,
                    .guest = { .accel = "tcg",
                               .kernel = kernel,
                               .initramfs = initramfs,
                               .memory = "memory-backend-ram,id=mem0,size=160M" } };
    g_test_add_data_func("/linux-monitor/piped", &chain, test_piped);
    g_test_add_data_func("/linux-monitor/terminal", &chain, test_terminal);
    g_test_add_data_func("/linux-monitor/proxy", &chain, test_proxy);
    int status = g_test_run();
    test_vm_free(chain.vm);
    return status;
}
