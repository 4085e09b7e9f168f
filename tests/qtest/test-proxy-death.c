/*
 * Promise: whoever dies, QEMU goes on, its guest runs, and the next proxy takes over with the
 * capabilities as they were.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <signal.h>
#include <string.h>

#include "proxy-harness.h"

#define START "{'execute': 'migrate', 'arguments': {'uri': '%s'}}"

/* The guest runs, capabilities are as before, and a snapshot works: the proxy is a new one. */
static void assert_takes_over(ProxiedVm *proxied)
{
    g_autofree char *path = proxied_vm_file(proxied, "after.sf");
    g_autoptr(RawQmp) raw = raw_qmp_open(proxied->socket);
    g_autofree char *caps = raw_qmp_run(raw, "{'execute': 'query-migrate-capabilities'}");

    if (!strstr(caps, "{\"state\": true, \"capability\": \"background-snapshot\"}")) {
        g_error("background-snapshot is not on any more: %s", caps);
    }
    writer_guest_assert_goes_on(proxied->vm);
    test_vm_assert_status(proxied->vm, "running");
    gsize from = strlen(raw_qmp_text(raw));
    raw_qmp_must(raw, START, "exec:cat >/dev/null");
    raw_qmp_wait(raw, from, "{\"status\": \"completed\"}");
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
}

/* The proxy is killed @delay_us after @event of a snapshot has come. */
static void kill_proxy_at(const char *event, const char *faults, guint delay_us)
{
    g_autoptr(ProxiedVm) proxied = proxied_vm_start(faults);
    g_autofree char *path = proxied_vm_file(proxied, "vm.sf");
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    {
        g_autoptr(RawQmp) raw = proxied_vm_open_on(proxied);
        raw_qmp_must(raw, "{'execute': 'migrate-set-parameters', 'arguments': "
                          "{'max-bandwidth': 65536}}");
        gsize from = strlen(raw_qmp_text(raw));
        g_autofree char *command =
            g_strdup_printf("{\"execute\": \"migrate\", \"arguments\": {\"uri\": \"%s\"}}\n", uri);
        raw_qmp_say(raw, command);
        raw_qmp_wait(raw, from, event);
        g_usleep(delay_us);
        proxied_vm_kill_proxy(proxied);
    }
    /* Nobody but the guardian can resume it, and it does. */
    test_vm_assert_status(proxied->vm, "running");
    proxied_vm_start_proxy(proxied, NULL);
    {
        g_autoptr(RawQmp) raw = raw_qmp_open(proxied->socket);
        raw_qmp_must(raw, "{'execute': 'migrate-set-parameters', 'arguments': "
                          "{'max-bandwidth': 0}}");
    }
    g_usleep(300000); /* the engine looks ten times a second whether its front is there */
    assert_takes_over(proxied);
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
}

static void test_proxy_in_setup(void)
{
    kill_proxy_at("{\"status\": \"setup\"}", NULL, 20000);
}

/* Two seconds of freeze, in the middle of which the way to QEMU's monitor breaks. */
static void test_proxy_in_freeze(void)
{
    if (test_need_faults()) {
        kill_proxy_at("\"STOP\"", "long-freeze", 200000);
    }
}

static void test_proxy_in_sweep(void)
{
    kill_proxy_at("\"RESUME\"", NULL, 50000);
}

static void kill_engine_at(const char *event, const char *faults)
{
    g_autoptr(ProxiedVm) proxied = proxied_vm_start(faults);
    g_autoptr(RawQmp) raw = proxied_vm_open_on(proxied);
    gsize from = strlen(raw_qmp_text(raw));

    raw_qmp_must(raw, "{'execute': 'migrate-set-parameters', 'arguments': "
                      "{'max-bandwidth': 65536}}");
    raw_qmp_must(raw, START, "exec:cat >/dev/null");
    pid_t engine = proxied_vm_find_engine(proxied);
    raw_qmp_wait(raw, from, event);
    kill(engine, SIGKILL);
    raw_qmp_wait(raw, from, "{\"status\": \"failed\"}");
    g_autofree char *info = raw_qmp_run(raw, "{'execute': 'query-migrate'}");
    g_assert_nonnull(strstr(info, "\"error-desc\": \"the snapshot engine was ended by signal 9"));
    raw_qmp_wait(raw, from, "\"RESUME\"");
    test_vm_assert_status(proxied->vm, "running");
    raw_qmp_must(raw, "{'execute': 'migrate-set-parameters', 'arguments': "
                      "{'max-bandwidth': 0}}");
    g_clear_pointer(&raw, raw_qmp_free);
    assert_takes_over(proxied);
}

static void test_engine_in_freeze(void)
{
    if (test_need_faults()) {
        kill_engine_at("\"STOP\"", "long-freeze");
    }
}

static void test_engine_in_sweep(void)
{
    kill_engine_at("\"RESUME\"", NULL);
}

/* The client goes in the middle: as with QEMU the snapshot goes on, and the next one sees it. */
static void client_goes_at(const char *event)
{
    g_autoptr(ProxiedVm) proxied = proxied_vm_start(NULL);
    g_autofree char *path = proxied_vm_file(proxied, "vm.sf");
    {
        g_autoptr(RawQmp) raw = proxied_vm_open_on(proxied);
        gsize from = strlen(raw_qmp_text(raw));
        g_autofree char *command = g_strdup_printf(
            "{\"execute\": \"migrate\", \"arguments\": {\"uri\": \"file:%s\"}}\n", path);
        raw_qmp_say(raw, command);
        raw_qmp_wait(raw, from, event);
    }
    g_autoptr(RawQmp) raw = raw_qmp_open(proxied->socket);
    for (guint i = 0; i < 1000; i++) {
        g_autofree char *info = raw_qmp_run(raw, "{'execute': 'query-migrate'}");
        if (strstr(info, "\"completed\"")) {
            writer_guest_check_image(path, 0);
            writer_guest_assert_goes_on(proxied->vm);
            return;
        }
        g_assert_null(strstr(info, "\"failed\""));
        g_usleep(20000);
    }
    g_assert_not_reached();
}

static void test_client_in_setup(void)
{
    client_goes_at("{\"status\": \"setup\"}");
}

static void test_client_in_sweep(void)
{
    client_goes_at("\"RESUME\"");
}

/* QEMU's death ends its client's connection, the snapshot and the proxy; nothing is left. */
static void test_qemu(void)
{
    g_autoptr(ProxiedVm) proxied = proxied_vm_start(NULL);
    g_autofree char *path = proxied_vm_file(proxied, "vm.sf");
    g_autoptr(RawQmp) raw = proxied_vm_open_on(proxied);
    gsize from = strlen(raw_qmp_text(raw));

    raw_qmp_must(raw, "{'execute': 'migrate-set-parameters', 'arguments': "
                      "{'max-bandwidth': 65536}}");
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    raw_qmp_must(raw, START, uri);
    raw_qmp_wait(raw, from, "\"RESUME\"");
    test_vm_kill(proxied->vm);
    raw_qmp_wait_end(raw);
    g_assert_cmpint(test_tool_finish(proxied->proxy, 30000, NULL, NULL), ==, 0);
    proxied->proxy = NULL;
    test_dir_assert_holds(proxied->dir, NULL);
}

/* What was set is forgotten with the VM, and a proxy that ends in order gives a snapshot up. */
static void test_ended_in_order(void)
{
    g_autoptr(ProxiedVm) proxied = proxied_vm_start(NULL);
    g_autofree char *path = proxied_vm_file(proxied, "vm.sf");
    g_autoptr(RawQmp) raw = proxied_vm_open_on(proxied);
    gsize from = strlen(raw_qmp_text(raw));

    raw_qmp_must(raw, "{'execute': 'migrate-set-parameters', 'arguments': "
                      "{'max-bandwidth': 65536}}");
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    raw_qmp_must(raw, START, uri);
    raw_qmp_wait(raw, from, "\"RESUME\"");
    kill(test_tool_get_pid(proxied->proxy), SIGTERM);
    g_assert_cmpint(test_tool_finish(proxied->proxy, 30000, NULL, NULL), ==, 0);
    proxied->proxy = NULL;
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    writer_guest_assert_goes_on(proxied->vm);
    proxied_vm_start_proxy(proxied, NULL);
    g_clear_pointer(&raw, raw_qmp_free);
    raw = raw_qmp_open(proxied->socket);
    raw_qmp_must(raw, "{'execute': 'migrate-set-parameters', 'arguments': {'max-bandwidth': 0}}");
    g_clear_pointer(&raw, raw_qmp_free);
    assert_takes_over(proxied);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/proxy/death/proxy-in-setup", test_proxy_in_setup);
    g_test_add_func("/proxy/death/proxy-in-freeze", test_proxy_in_freeze);
    g_test_add_func("/proxy/death/proxy-in-sweep", test_proxy_in_sweep);
    g_test_add_func("/proxy/death/engine-in-freeze", test_engine_in_freeze);
    g_test_add_func("/proxy/death/engine-in-sweep", test_engine_in_sweep);
    g_test_add_func("/proxy/death/client-in-setup", test_client_in_setup);
    g_test_add_func("/proxy/death/client-in-sweep", test_client_in_sweep);
    g_test_add_func("/proxy/death/qemu", test_qemu);
    g_test_add_func("/proxy/death/ended-in-order", test_ended_in_order);
    return g_test_run();
}
