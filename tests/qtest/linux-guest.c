/*
 * The counting Linux guest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "linux-guest.h"

#include <string.h>

#define BOOT_TIMEOUT_MS 120000
#define COUNT_TIMEOUT_MS 30000

TestVm *linux_guest_new(const LinuxGuest *guest, const char *const *more)
{
    static const char append[] =
        "console=ttyS0 quiet panic=-1 mitigations=off LOAD_MIB=48 HOT_MIB=24";
    const char *const args[] = { "-accel",  guest->accel,  "-machine", "q35,memory-backend=mem0",
                                 "-m",      "160",         "-object",  guest->memory,
                                 "-kernel", guest->kernel, "-initrd",  guest->initramfs,
                                 "-append", append };
    g_autoptr(GPtrArray) all = g_ptr_array_new();
    for (guint i = 0; i < G_N_ELEMENTS(args); i++) {
        g_ptr_array_add(all, (gpointer)args[i]);
    }
    for (; more && *more; more++) {
        g_ptr_array_add(all, (gpointer)*more);
    }
    g_ptr_array_add(all, NULL);
    return test_vm_new(TEST_VM_NO_ACCEL, (const char *const *)all->pdata);
}

guint64 linux_guest_read_count(TestVm *vm, gboolean last)
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

guint64 linux_guest_wait_for_counts(TestVm *vm, guint64 more)
{
    guint64 count = linux_guest_read_count(vm, TRUE), wanted = count + more;
    guint timeout_ms = count ? COUNT_TIMEOUT_MS : BOOT_TIMEOUT_MS;
    gint64 end = g_get_monotonic_time() + (gint64)timeout_ms * 1000;

    while ((count = linux_guest_read_count(vm, TRUE)) < wanted) {
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

void linux_guest_assert_goes_on(TestVm *restored, guint64 before, guint64 after)
{
    linux_guest_wait_for_counts(restored, 1); /* up to the first line at all */
    linux_guest_wait_for_counts(restored, 5);
    guint64 first = linux_guest_read_count(restored, FALSE);

    g_test_message("snapshot between %" G_GUINT64_FORMAT " and %" G_GUINT64_FORMAT
                   ", restored guest goes on at %" G_GUINT64_FORMAT,
                   before, after, first);
    /* The line of the instant may be half written: the next one is the first whole one. */
    g_assert_cmpuint(first, >, before);
    g_assert_cmpuint(first, <=, after + 2);
}
