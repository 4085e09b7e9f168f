/*
 * What the QMP client's parts share: finding the end of a message, connecting, and telling a busy
 * monitor from a dead one. For monitor/ and its tests only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

#include "util/error.h"

/*
 * Where a JSON object ends in a stream of bytes that arrives in pieces. Lines are no frame: a
 * monitor with pretty=on spreads a message over several. Starts zeroed.
 */
typedef struct QmpFramer {
    gsize scanned;
    guint depth;
    gboolean in_string;
    gboolean escaped;
} QmpFramer;

/*
 * Goes on at framer->scanned. Returns the length of the object that @data begins with, or 0 when
 * its end has not arrived.
 */
gsize qmp_framer_scan(QmpFramer *framer, const char *data, gsize length);

/* Connects a blocking stream socket to a monitor's address; -1 and *errp on failure. */
int qmp_connect(const char *address, guint timeout_ms, GError **errp);

/*
 * Whether the monitor behind @fd, that has not greeted us, serves another client. Then TRUE with
 * SF_ERROR_MONITOR_BUSY in *errp, naming the client where it can be found.
 */
gboolean qmp_connection_is_busy(int fd, GError **errp);
