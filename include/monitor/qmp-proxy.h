/*
 * A QMP server in front of a running QEMU's monitor: clients one after the other, each with a
 * connection to QEMU of its own, as QEMU itself serves them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>
#include <sys/types.h>

#include "util/error.h"

typedef struct QmpProxyOptions {
    const char *qmp; /* QEMU's monitor: "PATH", "unix:PATH" or "tcp:HOST:PORT" */
    int listen_fd;   /* a listening stream socket; not taken */
    pid_t pid;       /* the QEMU process; 0: found from the monitor */
    /* Called once, when clients can come; @pid is 0 where it is not known. NULL for none. */
    void (*ready)(pid_t pid, gpointer user);
    gpointer ready_user;
} QmpProxyOptions;

/*
 * Serves until QEMU ends (TRUE) or *cancel is set (TRUE), whatever clients do. FALSE when the
 * monitor cannot be reached at the start. May run in a thread of its own.
 */
gboolean qmp_proxy_run(const QmpProxyOptions *options, const volatile int *cancel, GError **errp);
