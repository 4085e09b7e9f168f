/*
 * System calls in a thread of another process. Only the guardian calls this: whoever borrows the
 * registers of a thread must live until they are back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>
#include <sys/types.h>

#include "util/error.h"

typedef struct RemoteThread RemoteThread;

typedef struct RemoteCall {
    long number;
    gulong args[6];
    gboolean take_fd; /* the result is a descriptor: take it over and close it there */
    gboolean keep_fd; /* with take_fd: leave it open there */
    guint timeout_ms; /* for all of it: a thread in the kernel may not stop in time */
} RemoteCall;

typedef struct RemoteResult {
    long value;        /* as the kernel returns it: -errno on failure */
    int taken_fd;      /* O_CLOEXEC, -1 for none; the caller's */
    gint64 stopped_us; /* how long the thread stood still */
} RemoteResult;

/*
 * Looks at the main thread of @pid, without touching it, and finds a system call instruction in
 * the process. SF_ERROR_PERMISSION, SF_ERROR_VM_GONE, SF_ERROR_UNSUPPORTED.
 */
RemoteThread *remote_thread_new(pid_t pid, GError **errp);

/*
 * Stops the thread, runs the call, lets go. Same thread each time: ptrace belongs to a thread.
 * SIGCHLD must not be ignored. Errors as in guardian_remote_syscall(). After a time-out the
 * thread may still be held; remote_thread_free() ends that.
 */
gboolean remote_thread_call(RemoteThread *thread, const RemoteCall *call, RemoteResult *result,
                            GError **errp);

/* Waits, without a limit, until a thread that did not stop in time has been let go. */
void remote_thread_free(RemoteThread *thread);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(RemoteThread, remote_thread_free)
