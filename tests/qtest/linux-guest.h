/*
 * An unmodified Linux guest that counts on its console and rewrites its memory
 * (scripts/demo-guest). It checks on the way that each page is as it left it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "vm.h"

typedef struct LinuxGuest {
    const char *accel;  /* for -accel */
    const char *kernel; /* paths */
    const char *initramfs;
    const char *memory; /* a memory backend's arguments, with id=mem0 and size=160M */
} LinuxGuest;

/* Prepares a VM with it; @more (NULL-terminated, or NULL) are further arguments for QEMU. */
TestVm *linux_guest_new(const LinuxGuest *guest, const char *const *more);
/*
 * The number of the first or the last whole line of the console that has one; 0 where there is
 * none. Asserts that every line in between is the next one, and the guest's memory right.
 */
guint64 linux_guest_read_count(TestVm *vm, gboolean last);
/* Asserts that the guest counts @more numbers; returns where it is then. */
guint64 linux_guest_wait_for_counts(TestVm *vm, guint64 more);
/*
 * Asserts that @restored counts on behind an instant at which the last whole line was one of
 * @before to @after, and says so.
 */
void linux_guest_assert_goes_on(TestVm *restored, guint64 before, guint64 after);
