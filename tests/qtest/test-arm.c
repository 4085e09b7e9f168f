/*
 * CONFIGURATION fits the target: the ARM targets choose their page size with the machine, and a
 * stream that says another one is refused by QEMU's loader.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/image-reader.h"
#include "vm.h"

typedef struct Machine {
    const char *name;
    const char *program;
    const char *args[5];
    guint page_bits;
} Machine;

static const Machine machines[] = {
    { "aarch64-virt", "qemu-system-aarch64", { "-M", "virt", "-cpu", "cortex-a57" }, 12 },
    { "arm-virt", "qemu-system-arm", { "-M", "virt" }, 12 },
    { "cortex-m", "qemu-system-arm", { "-M", "mps2-an385" }, 10 },
    { "raspi3b", "qemu-system-aarch64", { "-M", "raspi3b" }, 10 },
};

static TestVm *new_machine(const Machine *machine)
{
    g_autoptr(GPtrArray) args = g_ptr_array_new();

    for (guint i = 0; machine->args[i]; i++) {
        g_ptr_array_add(args, (gpointer)machine->args[i]);
    }
    g_ptr_array_add(args, (gpointer) "-S");
    g_ptr_array_add(args, NULL);
    g_setenv("STILLFRAME_QEMU", machine->program, TRUE);
    return test_vm_new(TEST_VM_DEFAULT, (const char *const *)args->pdata);
}

/* Counts the KiB of memory that the image holds. */
static gboolean count_page(guint block, guint64 offset, const void *data, guint64 length,
                           gpointer user, GError **errp)
{
    *(guint64 *)user += length / 1024;
    return TRUE;
}

static void check_image(const char *path, const Machine *machine)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(ImageReader) reader = image_reader_open(path, 0, &error);
    guint64 total = 0, seen = 0;

    g_assert_no_error(error);
    const ImageHead *head = image_reader_get_head(reader);
    g_assert_cmpint(head->send_page_bits, ==, machine->page_bits != 10);
    g_assert_true(image_reader_foreach_page(reader, NULL, NULL, &error));
    g_assert_cmpuint(head->target_page_bits, ==, machine->page_bits);
    g_assert_true(image_reader_foreach_page(reader, count_page, &seen, &error));
    g_assert_no_error(error);
    for (guint i = 0; i < head->blocks->len; i++) {
        total += ((const ImageBlock *)g_ptr_array_index(head->blocks, i))->used_length;
    }
    g_assert_cmpuint(seen, ==, total / 1024);
}

static void test_machine(gconstpointer data)
{
    const Machine *machine = data;
    g_autofree char *program = g_find_program_in_path(machine->program);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");
    g_autofree char *uri = g_strdup_printf("exec:cat '%s'", path);
    g_autofree char *said = NULL;

    if (!program) {
        g_autofree char *why = g_strdup_printf("%s is not installed", machine->program);
        g_test_skip(why);
        return;
    }
    g_autoptr(TestVm) vm = new_machine(machine);
    test_vm_launch(vm);
    int status = test_tool_run(NULL, &said, "snapshot", "--qmp", test_vm_get_socket(vm),
                               "--no-sync", path, NULL);
    g_assert_cmpstr(said, ==, "");
    g_assert_cmpint(status, ==, 0);
    check_image(path, machine);

    g_autoptr(TestVm) restored = new_machine(machine);
    test_vm_launch_incoming(restored, uri);
    test_vm_assert_status(restored, "prelaunch");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (guint i = 0; i < G_N_ELEMENTS(machines); i++) {
        g_autofree char *path = g_strdup_printf("/arm/%s", machines[i].name);
        g_test_add_data_func(path, &machines[i], test_machine);
    }
    return g_test_run();
}
