/*
 * The guardian: a small process forked off before the engine has threads or a userfaultfd. It does
 * what must be finished even when the engine is killed in the middle:
 *
 *  - it is the ptracer: a QEMU thread whose registers are borrowed for a system call gets them back
 *    although the engine has died meanwhile;
 *  - it keeps a copy of the monitor connection, and when the engine ends between "stop" and "cont",
 *    killed or not, it sends the "cont"; when the engine is killed it also takes back a descriptor
 *    that QEMU was handed.
 *
 * It never holds a userfaultfd longer than it takes to pass it on: the kernel drops all protection
 * with the last descriptor, and that must be the engine's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>
#include <sys/types.h>

#include "util/error.h"

typedef struct Guardian Guardian;

/*
 * Forks the guardian, in a session of its own, with all descriptors closed but its socket, @qmp_fd
 * (-1 for none) and standard error, and signals that the terminal sends ignored. Call it before any
 * thread is created.
 */
Guardian *guardian_start(int qmp_fd, GError **errp);

/*
 * The same where @qmp_fd leads to QEMU through another process: @spare_fd (-1 for none) is that
 * process's own connection to QEMU, past its negotiation, and is used when @qmp_fd has ended
 * because that process died.
 */
Guardian *guardian_start_with_spare(int qmp_fd, int spare_fd, GError **errp);

/*
 * Ends and reaps it. NULL is allowed. A VM that is still marked frozen is resumed first, as it is
 * when the engine is killed, and standard error tells how that went: it can take 10 seconds.
 */
void guardian_stop(Guardian *guardian);

/*
 * Runs one system call in a thread of @pid (its main thread) and returns its result (-errno on
 * failure) in *result. With @take_fd the result is a descriptor in @pid: it is taken over with
 * pidfd_getfd into *taken_fd (owned by the caller, O_CLOEXEC), and closed in @pid. The thread's
 * registers, and a system call that was interrupted for it, are restored in every case.
 * x86-64 only. SF_ERROR_PERMISSION where ptrace is refused, SF_ERROR_VM_GONE, SF_ERROR_FAILED.
 */
gboolean guardian_remote_syscall(Guardian *guardian, pid_t pid, long number, const gulong args[6],
                                 gboolean take_fd, long *result, int *taken_fd, GError **errp);

/*
 * The same for a call whose result is a descriptor that @pid keeps: *result is its number there,
 * *shared_fd our copy.
 */
gboolean guardian_remote_share_fd(Guardian *guardian, pid_t pid, long number, const gulong args[6],
                                  long *result, int *shared_fd, GError **errp);

/*
 * To be called right before "stop" is sent and after "cont" was answered well. If the engine ends
 * in between, the guardian sends "cont" on its copy of the monitor connection. Costs one store to
 * shared memory. Any thread.
 */
void guardian_set_frozen(Guardian *guardian, gboolean frozen);

/*
 * The number of a descriptor set that QEMU is about to be given by add-fd, -1 when it has been
 * removed again. If the engine dies in between, the guardian removes it: QEMU itself does that only
 * when its last monitor connection, whoever's, ends. Any thread.
 */
void guardian_set_fdset(Guardian *guardian, gint64 fdset);

/* The monitor connection is not needed any more: the guardian closes its copy. */
void guardian_release_monitor(Guardian *guardian);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Guardian, guardian_stop)
