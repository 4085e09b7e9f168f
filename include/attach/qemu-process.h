/*
 * Finding QEMU processes and their monitors from the outside.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "attach/proc.h"

typedef struct QemuProcess {
    pid_t pid;
    uid_t uid;
    char *name;     /* -name (guest=), else the base name of the program */
    char *program;  /* base name of the executable */
    GPtrArray *qmp; /* addresses of its QMP monitors as qmp_client_open() takes them (char *) */
    GPtrArray *hmp; /* addresses of its HMP monitors, for messages only */
    guint64 memory; /* bytes, from -m; 0 = not said */
} QemuProcess;

void qemu_process_free(QemuProcess *process);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(QemuProcess, qemu_process_free)

/*
 * Looks at one process. Monitors come from -qmp, -qmp-pretty, -monitor, -mon with -chardev (also
 * JSON arguments, and listening sockets that were handed over as fd=N: their path is found in
 * /proc/net/unix). Only sockets that QEMU listens on count. SF_ERROR_NO_PROCESS,
 * SF_ERROR_NOT_QEMU, SF_ERROR_PERMISSION.
 */
QemuProcess *qemu_process_inspect(pid_t pid, GError **errp);

/* All QEMU system emulators of the host that can be seen; never fails. */
GPtrArray *qemu_process_list(void);

/*
 * The process at the other end of a connected monitor socket: the holder of the peer's inode
 * (sock_diag for unix, /proc/net/tcp* for TCP), because SO_PEERCRED names whoever called listen(),
 * which is libvirt or a parent that has gone. SF_ERROR_NOT_QEMU, SF_ERROR_PERMISSION.
 */
pid_t qemu_process_of_socket(int fd, GError **errp);
