/*
 * The writing guest of the tests.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "writer-guest.h"

#include <string.h>

#include "tests/guest/layout.h"

#define MIB (1024 * 1024ULL)

static TestVm *new_guest(const char *first, va_list more)
{
    g_autoptr(GPtrArray) args = g_ptr_array_new();
    const char *const own[] = { "-machine", "q35",
                                "-m",       "96",
                                "-kernel",  test_guest_path(),
                                "-append",  "ranges=0x1000000+0x3000000" };

    for (guint i = 0; i < G_N_ELEMENTS(own); i++) {
        g_ptr_array_add(args, (gpointer)own[i]);
    }
    for (const char *arg = first; arg; arg = va_arg(more, const char *)) {
        g_ptr_array_add(args, (gpointer)arg);
    }
    g_ptr_array_add(args, NULL);
    return test_vm_new(TEST_VM_DEFAULT, (const char *const *)args->pdata);
}

TestVm *writer_guest_new(const char *first, ...)
{
    va_list more;
    va_start(more, first);
    TestVm *vm = new_guest(first, more);
    va_end(more);
    return vm;
}

TestVm *writer_guest_start(const char *first, ...)
{
    va_list more;
    va_start(more, first);
    TestVm *vm = new_guest(first, more);
    va_end(more);
    test_vm_launch(vm);
    test_vm_serial_wait(vm, "VV", WRITER_TIMEOUT_MS);
    return vm;
}

guint64 writer_guest_read_counter(TestVm *vm)
{
    guint64 counter;

    test_vm_read_memory(vm, GUEST_STATE_ADDRESS + offsetof(struct guest_state, counter), &counter,
                        sizeof(counter));
    return counter;
}

void writer_guest_assert_goes_on(TestVm *vm)
{
    g_autofree char *before = test_vm_read_serial(vm);
    gboolean goes_on = test_vm_serial_wait_try(vm, strlen(before), "VV", WRITER_TIMEOUT_MS);
    g_autofree char *after = test_vm_read_serial(vm);

    if (!goes_on) {
        g_error("the guest does not go on; it said: %s", after);
    }
    if (strchr(after, 'X')) {
        g_error("the guest found a wrong page in its own memory: %s", strchr(after, 'X'));
    }
}

void writer_guest_assert_checks_itself(TestVm *vm)
{
    g_autofree char *before = test_vm_read_serial(vm);
    g_autofree char *answer = test_vm_hmp(vm, "sendkey c");

    g_assert_cmpstr(answer, ==, "");
    if (!test_vm_serial_wait_try(vm, strlen(before), "C", WRITER_TIMEOUT_MS)) {
        g_autofree char *after = test_vm_read_serial(vm);
        const char *wrong = strchr(after, 'X');

        g_error("the guest has not found all of its memory right; it said: %s",
                wrong ? wrong : after);
    }
}

InstantMemory *writer_guest_load_image(const char *path, guint64 offset)
{
    InstantMemory *memory = instant_memory_new();
    g_autoptr(GError) error = NULL;

    instant_memory_map(memory, 0, 96 * MIB, "pc.ram", 0);
    instant_memory_load_image(memory, path, offset, &error);
    g_assert_no_error(error);
    return memory;
}

guint64 writer_guest_check_image(const char *path, guint64 offset)
{
    g_autoptr(InstantMemory) memory = writer_guest_load_image(path, offset);

    return instant_check_assert(memory);
}

void writer_guest_assert_loads(const char *path, const char *state)
{
    g_autoptr(TestVm) vm = writer_guest_new(NULL);
    g_autofree char *uri = g_strdup_printf("exec:cat '%s'", path);

    test_vm_launch_incoming(vm, uri);
    test_vm_assert_status(vm, state);
    if (g_str_equal(state, "running")) {
        writer_guest_assert_goes_on(vm);
    }
}

TestTool *writer_guest_start_slow(TestVm *vm, const char *path, guint mib, const char *faults)
{
    g_autofree char *uri =
        g_strdup_printf("exec:exec > '%s'; head -c %uM; sleep 3; cat", path, mib);
    const char *const args[] = { "snapshot", "--max-buffer",         "16M",
                                 "--qmp",    test_vm_get_socket(vm), uri,
                                 NULL };

    return test_tool_start_faulty(faults, args);
}

void writer_guest_wait_for_instant(TestVm *vm)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) resumed =
        qmp_client_wait_event(test_vm_get_qmp(vm), "RESUME", WRITER_TIMEOUT_MS, &error);

    g_assert_no_error(error);
    g_assert_nonnull(resumed);
}

void test_dir_assert_holds(TestDir *dir, const char *first, ...)
{
    g_autoptr(GDir) listing = g_dir_open(dir->path, 0, NULL);
    g_autoptr(GHashTable) allowed = g_hash_table_new(g_str_hash, g_str_equal);
    const char *name;
    va_list names;

    va_start(names, first);
    for (name = first; name; name = va_arg(names, const char *)) {
        g_hash_table_add(allowed, (gpointer)name);
    }
    va_end(names);
    while ((name = g_dir_read_name(listing))) {
        if (!g_hash_table_contains(allowed, name)) {
            g_error("%s was left in the directory", name);
        }
    }
}
