/*
 * Which threads of a process are giving memory back: they wait in madvise(). Nothing about QEMU.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

/* A range that a waiting thread handed to madvise() or process_madvise(). */
typedef struct Discard {
    guint64 start;
    guint64 end;
    int advice;
} Discard;

/*
 * Fills found[0..max) with the ranges of the threads of the process whose /proc/PID/task is open as
 * @task_dir, and returns their number. Threads that run are not told, those that sleep in the
 * kernel are, whatever for. @pid is needed for process_madvise(), whose ranges lie in its memory.
 * Reads /proc/PID/task/TID/syscall (needs ptrace access; CONFIG_HAVE_ARCH_TRACEHOOK). Allocates
 * nothing. Only one thread may use a @task_dir at a time. x86-64.
 */
guint discards_find(int task_dir, int pid, Discard *found, guint max);

/* One line of such a file: the ranges in it; 0 for another system call, or for a thread that runs.
 * For tests. */
guint discards_parse(const char *line, int pid, Discard *found, guint max);
