/*
 * An unmodified Linux guest under KVM that counts on its console and rewrites its memory: a live
 * snapshot, the end of QEMU, and stock QEMU goes on from the image at the right number. The guest
 * (scripts/demo-guest) checks on the way that its memory is as it left it.
 *
 * Usage: test-linux-guest KERNEL INITRAMFS. For the nested rig, tests/nested/run-nested.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tests/qtest/linux-guest.h"

/* What KVM_RUN failing looks like from outside ("kvm run failed Bad address"). */
static void assert_no_complaint(TestVm *vm)
{
    g_autofree char *said = test_vm_read_stderr(vm);

    g_assert_cmpstr(said, ==, "");
    test_vm_assert_status(vm, "running");
}

static void take_snapshot(TestVm *vm, const char *image)
{
    g_autofree char *said = NULL, *out = NULL;
    int status = test_tool_run(&out, &said, "snapshot", "--no-sync", "--json", "--qmp",
                               test_vm_get_socket(vm), image, NULL);

    g_assert_cmpstr(said, ==, "");
    g_assert_cmpint(status, ==, 0);
    g_test_message("%s", out);
}

static void test_goes_on(gconstpointer data)
{
    static const char *const cpu[] = { "-cpu", "host", NULL };
    const LinuxGuest *guest = data;
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *image = test_dir_file(dir, "image");
    g_autofree char *uri = g_strdup_printf("exec:cat '%s'", image);
    g_autoptr(TestVm) vm = linux_guest_new(guest, cpu);
    g_autoptr(TestVm) restored = linux_guest_new(guest, cpu);

    test_vm_launch(vm);
    guint64 before = linux_guest_wait_for_counts(vm, 5);
    take_snapshot(vm, image);
    guint64 after = linux_guest_read_count(vm, TRUE);
    linux_guest_wait_for_counts(vm, 5);
    assert_no_complaint(vm);
    test_vm_kill(vm);

    test_vm_launch_incoming(restored, uri);
    linux_guest_assert_goes_on(restored, before, after);
    assert_no_complaint(restored);
}

int main(int argc, char **argv)
{
    static LinuxGuest guests[] = {
        { .memory = "memory-backend-memfd,id=mem0,size=160M,share=on" },
        { .memory = "memory-backend-ram,id=mem0,size=160M" },
    };
    static const char *const names[] = { "/linux/memfd", "/linux/anonymous" };
    g_autofree char *reason = NULL;

    g_test_init(&argc, &argv, NULL);
    if (argc != 3) {
        g_printerr("Usage: %s KERNEL INITRAMFS\n", argv[0]);
        return 2;
    }
    if (!test_have_kvm(&reason)) {
        test_skip_all(reason);
    }
    for (guint i = 0; i < G_N_ELEMENTS(guests); i++) {
        guests[i].accel = "kvm";
        guests[i].kernel = argv[1];
        guests[i].initramfs = argv[2];
        g_test_add_data_func(names[i], &guests[i], test_goes_on);
    }
    return g_test_run();
}
