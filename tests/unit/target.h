/*
 * A child process to attach to: it runs one of a test's functions in a loop until it is killed,
 * and tells in shared memory how it fares.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/process.h"

typedef struct Target Target;
typedef void (*TargetLoop)(Target *target);

struct Target {
    pid_t pid;
    volatile guint64 progress; /* rounds done */
    volatile guint64 failures; /* rounds in which something was not as it should be */
    volatile guint64 value;    /* the test's own */
};

static inline Target *target_start(TargetLoop loop)
{
    Target *target =
        mmap(NULL, sizeof(*target), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    g_assert_true(target != MAP_FAILED);
    pid_t pid = fork();
    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        target->pid = getpid();
        for (;;) {
            loop(target);
            target->progress++;
        }
    }
    target->pid = pid;
    return target;
}

/* Asserts that it gets to @goal rounds since its start. */
static inline void target_assert_reaches(Target *target, guint64 goal)
{
    gint64 deadline = g_get_monotonic_time() + 20 * G_TIME_SPAN_SECOND;

    while (target->progress < goal) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        g_usleep(500);
    }
}

/* Asserts that it makes @rounds more rounds from now on. */
static inline void target_assert_progress(Target *target, guint64 rounds)
{
    target_assert_reaches(target, target->progress + rounds);
}

static inline void target_stop(Target *target)
{
    kill(target->pid, SIGKILL);
    waitpid(target->pid, NULL, 0);
    munmap(target, sizeof(*target));
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Target, target_stop)

static inline void wait_for_state(pid_t pid, char state)
{
    gint64 deadline = g_get_monotonic_time() + 5 * G_TIME_SPAN_SECOND;

    while (read_state(pid) != state) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        g_usleep(500);
    }
}

/*
 * A loop whose process sits in uninterruptible sleep (state D) for as long as target->value is 0:
 * the parent of a vfork() waits for its child like that.
 */
static inline void target_loop_uninterruptible(Target *target)
{
    pid_t child = vfork();

    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (target->value == 0) {
            struct timespec nap = { 0, 1000000 };
            nanosleep(&nap, NULL);
        }
        _exit(0);
    }
    waitpid(child, NULL, 0);
}
