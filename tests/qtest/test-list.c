/*
 * "stillframe list" tells which VMs there are and whether each can be snapshotted, with the reason.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "util/autofd.h"
#include "writer-guest.h"

/* The entry of @vm in "list --json"; the caller owns it. */
static JsonObject *list_entry(TestVm *vm)
{
    g_autofree char *out = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_cmpint(test_tool_run(&out, NULL, "list", "--json", NULL), ==, 0);
    g_autoptr(JsonNode) node = json_from_string(out, &error);
    g_assert_no_error(error);
    JsonArray *all = json_node_get_array(node);
    for (guint i = 0; i < json_array_get_length(all); i++) {
        JsonObject *entry = json_array_get_object_element(all, i);
        if (json_object_get_int_member(entry, "pid") == test_vm_get_pid(vm)) {
            return json_object_ref(entry);
        }
    }
    g_error("the VM is missing in: %s", out);
}

static void assert_refused(TestVm *vm, const char *word)
{
    g_autoptr(JsonObject) entry = list_entry(vm);
    g_autoptr(GString) text = g_string_new(NULL);
    JsonArray *reasons = json_object_get_array_member(entry, "reasons");

    g_assert_false(json_object_get_boolean_member(entry, "snapshot"));
    for (guint i = 0; i < json_array_get_length(reasons); i++) {
        g_string_append(text, json_array_get_string_element(reasons, i));
    }
    if (!strstr(text->str, word)) {
        g_error("\"%s\" is missing in the reasons: %s", word, text->str);
    }
}

static void test_running_vm(void)
{
    g_autoptr(TestVm) vm = writer_guest_start("-name", "guest=lister", NULL);
    g_autofree char *table = NULL;
    g_autofree char *pid = g_strdup_printf("%d", (int)test_vm_get_pid(vm));

    for (guint paused = 0; paused < 2; paused++) {
        g_autoptr(JsonObject) entry = list_entry(vm);
        g_assert_cmpstr(json_object_get_string_member(entry, "name"), ==, "lister");
        g_assert_cmpstr(json_object_get_string_member(entry, "state"), ==,
                        paused ? "paused" : "running");
        g_assert_cmpint(json_object_get_int_member(entry, "memory"), ==, 96 << 20);
        g_assert_nonnull(strstr(json_object_get_string_member(entry, "monitor"), "/"));
        g_assert_true(json_object_get_boolean_member(entry, "snapshot"));
        test_vm_qmp_void(vm, paused ? "cont" : "stop", NULL);
    }
    g_assert_cmpint(test_tool_run(&table, NULL, "list", NULL), ==, 0);
    g_assert_nonnull(strstr(table, pid));
    g_assert_nonnull(strstr(table, "lister"));
    writer_guest_assert_goes_on(vm);
}

static void test_blocked_vm(void)
{
    g_autoptr(TestVm) vm = writer_guest_start("-blockdev", "driver=null-co,node-name=d0", "-device",
                                              "nvme,serial=x,drive=d0", NULL);
    assert_refused(vm, "nvme");
}

static void test_busy_monitor(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    sf_autofd other = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char greeting[8];

    g_strlcpy(address.sun_path, test_vm_get_socket(vm), sizeof(address.sun_path));
    g_assert_cmpint(connect(other, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    g_assert_cmpint(recv(other, greeting, sizeof(greeting), MSG_WAITALL), ==, sizeof(greeting));
    assert_refused(vm, "another client");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/list/running-vm", test_running_vm);
    g_test_add_func("/list/blocked-vm", test_blocked_vm);
    g_test_add_func("/list/busy-monitor", test_busy_monitor);
    return g_test_run();
}
