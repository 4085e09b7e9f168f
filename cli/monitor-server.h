/*
 * The process behind "stillframe run" that serves a QEMU's monitors.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "monitor/monitor-args.h"

/* Places with the sockets on which their clients come. */
typedef struct MonitorServer {
    MonitorArgs *args; /* not owned */
    int *listen_fds;   /* one a place; -1 for stdio */
    const char *folder;
} MonitorServer;

/*
 * Makes the listening sockets as QEMU would, then waits at each place that asks for it until a
 * client is there.
 */
gboolean monitor_server_listen(MonitorServer *server, GError **errp);

/*
 * Leaves a process behind that serves until QEMU, that is the calling process, ends, and then
 * removes the folder. It belongs to the process group, but no signal of the terminal ends it.
 */
gboolean monitor_server_fork(MonitorServer *server, GError **errp);
