/*
 * What the guardian's two sides share: its messages, its page of shared memory, its main function.
 * For guardian.c and guardian-process.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>
#include <sys/types.h>

#include "attach/remote-syscall.h"

typedef struct GuardianShared {
    /* Both atomic: what is to be undone when the engine ends. */
    int frozen;   /* the VM is stopped by us */
    gint64 fdset; /* QEMU has descriptors in this set from us; -1 = none */
} GuardianShared;

/* Ways to QEMU's monitor; -1 for none. */
typedef struct GuardianMonitors {
    int qmp_fd;
    int spare_fd; /* used when @qmp_fd has ended */
} GuardianMonitors;

typedef enum {
    GUARDIAN_SYSCALL,
    GUARDIAN_RELEASE_MONITOR,
} GuardianKind;

/* Both go through a socket between two copies of one program: no question of layout. */
typedef struct GuardianRequest {
    guint64 serial;
    GuardianKind kind;
    pid_t pid;
    RemoteCall call;
} GuardianRequest;

/* A taken descriptor goes beside it by SCM_RIGHTS. */
typedef struct GuardianAnswer {
    guint64 serial;
    gboolean failed;
    int error_code; /* SfError */
    long value;
    char message[1024];
} GuardianAnswer;

/* How long a remote system call may take. */
guint guardian_timeout_ms(void);

/* The life of the guardian, after fork(). */
G_NORETURN void guardian_process_main(int socket, GuardianMonitors monitors,
                                      GuardianShared *shared);
