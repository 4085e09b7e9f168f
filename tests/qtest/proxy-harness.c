/*
 * Starting and ending proxies.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "proxy-harness.h"

#include <signal.h>
#include <string.h>

#include "attach/proc.h"

#define END_TIMEOUT_MS 30000

void proxied_vm_start_proxy(ProxiedVm *proxied, const char *faults)
{
    const char *const args[] = { "proxy",    "--qmp",         test_vm_get_socket(proxied->vm),
                                 "--listen", proxied->socket, NULL };
    g_setenv("STILLFRAME_RUNTIME_DIR", proxied->dir->path, TRUE);
    proxied->proxy = test_tool_start_faulty(faults, args);
    g_unsetenv("STILLFRAME_RUNTIME_DIR");
    /* From here on it ends in order; a client's connection waits until it serves. */
    while (!g_file_test(proxied->socket, G_FILE_TEST_EXISTS)) {
        g_usleep(1000);
    }
}

static ProxiedVm *wrap(TestVm *vm, const char *faults)
{
    ProxiedVm *proxied = g_new0(ProxiedVm, 1);

    proxied->vm = vm;
    proxied->dir = test_dir_new();
    proxied->socket = test_dir_file(proxied->dir, "proxy.sock");
    proxied_vm_start_proxy(proxied, faults);
    return proxied;
}

ProxiedVm *proxied_vm_start(const char *faults)
{
    return wrap(writer_guest_start(NULL), faults);
}

ProxiedVm *proxied_vm_start_empty(const char *const *args)
{
    static const char *const fewest[] = { "-m", "16", NULL };
    TestVm *vm = test_vm_new(TEST_VM_DEFAULT, args ? args : fewest);

    test_vm_launch(vm);
    return wrap(vm, NULL);
}

static void end_proxy(ProxiedVm *proxied, int signal_number, int expected)
{
    g_autofree char *said = NULL;

    kill(test_tool_get_pid(proxied->proxy), signal_number);
    int status = test_tool_finish(proxied->proxy, END_TIMEOUT_MS, NULL, &said);
    proxied->proxy = NULL;
    if (status != expected) {
        g_error("the proxy ended with %d, not %d; it said: %s", status, expected, said);
    }
}

void proxied_vm_kill_proxy(ProxiedVm *proxied)
{
    end_proxy(proxied, SIGKILL, 128 + SIGKILL);
}

void proxied_vm_free(ProxiedVm *proxied)
{
    if (!proxied) {
        return;
    }
    if (proxied->proxy) {
        end_proxy(proxied, SIGTERM, 0);
        g_assert_false(g_file_test(proxied->socket, G_FILE_TEST_EXISTS));
    }
    test_vm_free(proxied->vm);
    test_dir_free(proxied->dir);
    g_free(proxied->socket);
    g_free(proxied);
}

static gboolean is_engine_of(pid_t pid, pid_t proxy)
{
    g_auto(GStrv) argv = proc_read_cmdline(pid, NULL);
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", (int)pid);
    g_autofree char *stat = NULL;

    if (!argv || g_strv_length(argv) != 2 || strcmp(argv[1], "engine") ||
        !g_file_get_contents(path, &stat, NULL, NULL)) {
        return FALSE;
    }
    const char *rest = strrchr(stat, ')'); /* state and parent follow */
    return rest && strlen(rest) > 4 && g_ascii_strtoll(rest + 4, NULL, 10) == proxy;
}

pid_t proxied_vm_find_engine(ProxiedVm *proxied)
{
    gint64 end = g_get_monotonic_time() + 10 * G_TIME_SPAN_SECOND;

    while (g_get_monotonic_time() < end) {
        g_autoptr(GArray) pids = proc_list_pids();
        for (guint i = 0; i < pids->len; i++) {
            pid_t pid = g_array_index(pids, pid_t, i);
            if (is_engine_of(pid, test_tool_get_pid(proxied->proxy))) {
                return pid;
            }
        }
        g_usleep(2000);
    }
    g_error("the proxy has started no engine");
}

RawQmp *proxied_vm_open_on(ProxiedVm *proxied)
{
    RawQmp *raw = raw_qmp_open(proxied->socket);

    raw_qmp_must(raw, "{'execute': 'migrate-set-capabilities', 'arguments': {'capabilities': ["
                      "{'capability': 'background-snapshot', 'state': true}, "
                      "{'capability': 'events', 'state': true}]}}");
    return raw;
}

char *proxied_vm_file(ProxiedVm *proxied, const char *name)
{
    return test_dir_file(proxied->dir, name);
}
