/*
 * The monitors among QEMU's arguments: which of them Stillframe can serve in QEMU's place, and the
 * arguments with which QEMU gives us what is needed for it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

/* A monitor that the user asked for, at a place where we can serve it. */
typedef struct MonitorPlace {
    gboolean is_qmp; /* else HMP */
    gboolean is_stdio;
    char *path; /* a unix socket to listen on; NULL: @host and @port, or stdio */
    char *host; /* "" = any address */
    char *port;
    gboolean wait; /* the VM is not to start before the first client has come */
    char *backend; /* the path at which QEMU offers QMP to us instead */
} MonitorPlace;

typedef struct MonitorArgs {
    GPtrArray *argv;        /* QEMU's new arguments, NULL-terminated (char *, owned) */
    GPtrArray *places;      /* MonitorPlace, owned */
    gboolean is_daemonized; /* QEMU goes on under another process id */
} MonitorArgs;

/*
 * Takes the monitors out of @argv (NULL-terminated, argv[0] being the program) that stand on
 * standard input and output, or on a unix or TCP socket on which QEMU would listen: -monitor, -qmp,
 * -qmp-pretty, and -mon with its -chardev when nothing else uses that. In the place of each, QEMU
 * gets a QMP monitor on a socket in @folder. Everything else stays as it is: multiplexed (mon:),
 * pty, vc, pipe, telnet, TLS, abstract and inherited sockets, those that connect to somebody.
 * @has_terminal: standard input is a terminal; then QEMU still opens stdio for a human monitor,
 * without reading it, so that it sets the terminal up and puts it right at its end, as without us.
 * A terminal with QMP stays as it is: QEMU asks for echo there.
 */
MonitorArgs *monitor_args_new(char **argv, const char *folder, gboolean has_terminal);
void monitor_args_free(MonitorArgs *args);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MonitorArgs, monitor_args_free)
