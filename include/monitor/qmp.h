/*
 * A QMP client: one connection to one monitor, used from one thread at a time. Calls are
 * synchronous, because the freeze wants the shortest way from the command to its answer. Events
 * that arrive in between are kept in a small queue.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>
#include <json-glib/json-glib.h>

#include "util/error.h"

typedef struct QmpClient QmpClient;

/* How long a command may take before its answer counts as missing. */
#define QMP_TIMEOUT_MS 30000
/* How long the greeting may take. A monitor that serves another client never sends one. */
#define QMP_GREETING_TIMEOUT_MS 3000

/*
 * Connects to @address ("PATH", "unix:PATH" or "tcp:HOST:PORT"), reads the greeting and sends
 * qmp_capabilities. Returns NULL and sets *errp: SF_ERROR_MONITOR_BUSY when another client holds
 * the monitor (the message names its process where it can be found), SF_ERROR_MONITOR_SILENT when
 * nothing came in @greeting_timeout_ms, SF_ERROR_MONITOR_PROTOCOL when what came is not QMP (HMP's
 * prompt is recognised and said), SF_ERROR_FAILED when the connection itself failed.
 */
QmpClient *qmp_client_open(const char *address, guint greeting_timeout_ms, GError **errp);

/* The same on a connected stream socket. Takes @fd, and closes it on failure too. */
QmpClient *qmp_client_new_from_fd(int fd, guint greeting_timeout_ms, GError **errp);

/* Closes the connection. NULL is allowed. */
void qmp_client_free(QmpClient *client);

/* The socket, owned by @client. */
int qmp_client_get_fd(QmpClient *client);

/* The version from the greeting: major * 10000 + minor * 100 + micro. */
guint qmp_client_get_version(QmpClient *client);

/* Waits so long for answers from now on, instead of QMP_TIMEOUT_MS. */
void qmp_client_set_patience(QmpClient *client, guint timeout_ms);

/*
 * Sends @command with @arguments (taken, may be NULL) and waits at most QMP_TIMEOUT_MS for its
 * answer. Returns what stands behind "return" (owned by the caller). Errors:
 * SF_ERROR_MONITOR_COMMAND with QEMU's own text, MONITOR_SILENT, MONITOR_PROTOCOL, MONITOR_CLOSED.
 */
JsonNode *qmp_client_execute(QmpClient *client, const char *command, JsonObject *arguments,
                             GError **errp);

/* The same with @fd (not taken) sent beside it by SCM_RIGHTS. Unix sockets only. */
JsonNode *qmp_client_execute_with_fd(QmpClient *client, const char *command, JsonObject *arguments,
                                     int fd, GError **errp);

/* Runs one HMP line by human-monitor-command; the caller frees the text. */
char *qmp_client_hmp(QmpClient *client, const char *line, GError **errp);

/* TRUE when descriptors can be sent, that is when the connection is a unix socket. */
gboolean qmp_client_can_send_fd(QmpClient *client);

/*
 * add-fd: QEMU gets a copy of @fd (not taken). *fdset gets the set's id (open it as
 * "/dev/fdset/ID"), *remote_fd the number of the descriptor in QEMU; either may be NULL. Remove the
 * set when it is not needed any more: QEMU itself drops it, unless a file of it is in use, only
 * when its last QMP connection, whoever's, ends, and only while its VM runs.
 */
gboolean qmp_client_add_fd(QmpClient *client, int fd, gint64 *fdset, int *remote_fd, GError **errp);
gboolean qmp_client_remove_fdset(QmpClient *client, gint64 fdset, GError **errp);

/*
 * Waits until the event @name arrives or has already arrived since the last call for the same
 * name. Returns its data (owned by the caller; an empty object where it has none), or NULL.
 */
JsonNode *qmp_client_wait_event(QmpClient *client, const char *name, guint timeout_ms,
                                GError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(QmpClient, qmp_client_free)
