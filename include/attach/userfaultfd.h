/*
 * A userfaultfd of another process: made inside it, held here. And the features of this kernel.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "attach/guardian.h"
#include "monitor/qmp.h"

/* The end of every error about a feature of the kernel or about a door. */
#define USERFAULTFD_SEE_CHECK "; run \"stillframe check\", which tells what this host can do"

/* Which way led to the descriptor; for reports. */
typedef enum {
    UFFD_DOOR_SYSCALL, /* the userfaultfd system call inside QEMU */
    UFFD_DOOR_DEVICE,  /* /dev/userfaultfd, handed over by add-fd */
} UffdDoor;

/*
 * Opens a full userfaultfd (never UFFD_USER_MODE_ONLY: KVM's faults come from the kernel) inside
 * process @pid, O_CLOEXEC | O_NONBLOCK, without UFFDIO_API done. QEMU keeps no copy. The system
 * call is tried first, then the device through @qmp (may be NULL: then only the system call); the
 * other way round where QEMU runs under a seccomp filter, which may kill for a call it does not
 * expect. On failure the error is SF_ERROR_PERMISSION and the text says for each of the three doors
 * (ptrace access to the process; the system call; the device) whether it is shut and how to open
 * it. Runs in @guardian, see there. Takes about 0.1 ms of one QEMU thread's time.
 */
int attach_userfaultfd(Guardian *guardian, pid_t pid, QmpClient *qmp, UffdDoor *door,
                       GError **errp);

/*
 * The same, but QEMU keeps its copy, so that its threads go on waiting when ours is closed; *remote
 * gets the number that it has there. Close that one too when it has done its work.
 */
int attach_userfaultfd_shared(Guardian *guardian, pid_t pid, QmpClient *qmp, UffdDoor *door,
                              int *remote, GError **errp);

/* Whose faults a userfaultfd of this process sees. */
typedef enum {
    UFFD_SCOPE_FULL, /* the kernel's too, as KVM's are */
    UFFD_SCOPE_USER, /* those of user space alone; such a descriptor is given to everybody (5.11) */
    UFFD_SCOPE_ANY,  /* full where that is allowed, else user space alone */
} UffdScope;

/*
 * Opens a userfaultfd for the memory of this process, O_CLOEXEC | O_NONBLOCK, without UFFDIO_API
 * done: by the system call, else by /dev/userfaultfd. -1 and SF_ERROR_PERMISSION where neither is
 * allowed, SF_ERROR_UNSUPPORTED where the kernel has none. Any thread.
 */
int userfaultfd_open_own(UffdScope scope, GError **errp);

/*
 * The UFFD_FEATURE_* mask of this kernel, asked from a throw-away descriptor of this process;
 * 0 and *errp where none can be opened.
 */
gboolean userfaultfd_query_features(guint64 *features, GError **errp);

/*
 * Whether ptrace access to @pid is given, by the harmless way of reading one byte of its memory.
 */
gboolean attach_check_ptrace(pid_t pid, GError **errp);

/*
 * Whether attach_userfaultfd() would find an open door, asked without touching QEMU (permissions,
 * sysctl vm.unprivileged_userfaultfd, /dev/userfaultfd, capabilities of QEMU's process). Used by
 * "list". Same errors.
 */
gboolean attach_check_doors(pid_t pid, gboolean can_send_fd, GError **errp);
