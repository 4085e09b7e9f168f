/*
 * A small VM with the bare-metal guest that writes all the time: what the tests of behaviour and of
 * errors take their snapshots of.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "instant-check.h"

#define WRITER_TIMEOUT_MS 60000

/* A 96 MiB q35 that rewrites 48 MiB; it has written each page twice. More arguments may follow,
 * NULL at the end. */
TestVm *writer_guest_start(const char *first, ...);
/* The same, not started yet. */
TestVm *writer_guest_new(const char *first, ...);
/* How many pages it has written. */
guint64 writer_guest_read_counter(TestVm *vm);
/* It finishes two more rounds without having found a wrong page in its own memory. */
void writer_guest_assert_goes_on(TestVm *vm);
/* Has it check every word of its memory (a key is pressed), and it says that all are right. */
void writer_guest_assert_checks_itself(TestVm *vm);
/* The memory of such a guest in the image at @path, from @offset on; to be freed. */
InstantMemory *writer_guest_load_image(const char *path, guint64 offset);
/* The image at @path, from @offset on, is one instant of such a guest; returns the counter. */
guint64 writer_guest_check_image(const char *path, guint64 offset);
/* Stock QEMU loads the image at @path and is then in run state @state; goes on if "running". */
void writer_guest_assert_loads(const char *path, const char *state);
/*
 * Starts a snapshot to the file @path by way of a reader that takes the first @mib MiB, then
 * nothing for three seconds: it stands in the middle of its sweep, which begins with the pages that
 * the guest writes.
 */
TestTool *writer_guest_start_slow(TestVm *vm, const char *path, guint mib, const char *faults);
/* Waits until the instant of a snapshot is over: the guest was stopped, and goes on. */
void writer_guest_wait_for_instant(TestVm *vm);
/* No file in @dir but those named, NULL at the end. */
void test_dir_assert_holds(TestDir *dir, const char *first, ...);
