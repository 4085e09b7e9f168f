/*
 * An unmodified Linux guest under KVM that counts on its console and rewrites its memory: a live
 * snapshot, the end of QEMU, and stock QEMU goes on from the image at the right number. The guest
 * (scripts/demo-guest) checks on the way that its memory is as it left it.
 *
 * Usage: test-linux-guest KERNEL INITRAMFS. For the nested rig, tests/nested/run-nested.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "tests/qtest/vm.h"

#define BOOT_TIMEOUT_MS 120000
#define COUNT_TIMEOUT_MS 30000

typedef struct Guest {
    const char *kernel;
    const char *initramfs;
    const char *memory; /* a memory backend's arguments, with id=mem0 */
} Guest;

static TestVm *new_guest(const Guest *guest)
{
    const char *const args[] = { "-accel",
                                 "kvm",
                                 "-cpu",
                                 "host",
                                 "-machine",
                                 "q35,memory-backend=mem0",
                                 "-m",
                                 "160",
                                 "-object",
                                 guest->memory,
                                 "-kernel",
                                 guest->kernel,
                                 "-initrd",
                                 guest->initramfs,
                                 "-append",
                                 "console=ttyS0 quiet panic=-1 mitigations=off LOAD_MIB=48 "
                                 "HOT_MIB=24",
                                 NULL };

    return test_vm_new(TEST_VM_NO_ACCEL, args);
}

/*
 * The number of the first or the last whole line of the console that has one; 0 where there is
 * none. Every line in between must be the next one, and the guest's memory right.
 */
static guint64 read_count(TestVm *vm, gboolean last)
{
    g_autofree char *serial = test_vm_read_serial(vm);
    guint64 first_count = 0, count = 0;

    g_assert_null(strstr(serial, "WRONG"));
    for (const char *at = serial; (at = strstr(at, "count ")); at++) {
        const char *end = strchr(at, '\n');
        guint64 number = g_ascii_strtoull(at + strlen("count "), NULL, 10);

        if (!end) {
            break;
        }
        if (count) {
            g_assert_cmpuint(number, ==, count + 1);
        } else {
            first_count = number;
        }
        g_assert_true(g_strstr_len(at, end - at, "all good"));
        count = number;
    }
    return last ? count : first_count;
}

/* The guest counts @more numbers; returns where it is then. */
static guint64 wait_for_counts(TestVm *vm, guint64 more, guint timeout_ms)
{
    gint64 end = g_get_monotonic_time() + (gint64)timeout_ms * 1000;
    guint64 wanted = read_count(vm, TRUE) + more;
    guint64 count;

    while ((count = read_count(vm, TRUE)) < wanted) {
        if (g_get_monotonic_time() > end || !test_vm_is_alive(vm)) {
            g_autofree char *serial = test_vm_read_serial(vm);
            g_autofree char *said = test_vm_read_stderr(vm);

            g_error("the guest stands at %" G_GUINT64_FORMAT "; console: %s; QEMU: %s", count,
                    serial, said);
        }
        g_usleep(20000);
    }
    return count;
}

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
    const Guest *guest = data;
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *image = test_dir_file(dir, "image");
    g_autofree char *uri = g_strdup_printf("exec:cat '%s'", image);
    g_autoptr(TestVm) vm = new_guest(guest);
    g_autoptr(TestVm) restored = new_guest(guest);

    test_vm_launch(vm);
    guint64 before = wait_for_counts(vm, 5, BOOT_TIMEOUT_MS);
    take_snapshot(vm, image);
    guint64 after = read_count(vm, TRUE);
    wait_for_counts(vm, 5, COUNT_TIMEOUT_MS);
    assert_no_complaint(vm);
    test_vm_kill(vm);

    test_vm_launch_incoming(restored, uri);
    wait_for_counts(restored, 5, COUNT_TIMEOUT_MS);
    assert_no_complaint(restored);
    guint64 first = read_count(restored, FALSE);
    g_test_message("snapshot between %" G_GUINT64_FORMAT " and %" G_GUINT64_FORMAT
                   ", restored guest goes on at %" G_GUINT64_FORMAT,
                   before, after, first);
    /* The line of the instant may be half written: the next one is the first whole one. */
    g_assert_cmpuint(first, >, before);
    g_assert_cmpuint(first, <=, after + 2);
}

int main(int argc, char **argv)
{
    static Guest guests[] = {
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
        guests[i].kernel = argv[1];
        guests[i].initramfs = argv[2];
        g_test_add_data_func(names[i], &guests[i], test_goes_on);
    }
    return g_test_run();
}
