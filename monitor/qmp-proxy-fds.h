/*
 * What QEMU knows by getfd, seen from the proxy: not a copy (whoever reads a pipe waits until every
 * holder has closed it), but what it takes to find QEMU's own. For monitor/ only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <json-glib/json-glib.h>
#include <sys/types.h>

#include "util/error.h"

typedef struct QmpProxyFds QmpProxyFds;

QmpProxyFds *qmp_proxy_fds_new(void);
void qmp_proxy_fds_free(QmpProxyFds *fds);

/* A getfd with @arguments passes, and @received (int) beside it. Any thread, as the next one. */
void qmp_proxy_fds_note(QmpProxyFds *fds, JsonObject *arguments, GArray *received);

/* A duplicate of what QEMU (process @pid) has under @name. -1 and QEMU's words where it has none.
 */
int qmp_proxy_fds_take(QmpProxyFds *fds, pid_t pid, const char *name, GError **errp);
