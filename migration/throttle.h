/*
 * The limit on how fast the sweep lets the image grow. Faults have threads of their own, which
 * never come here. Private to migration/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "migration/channel.h"

typedef struct Throttle {
    const volatile guint64 *max_bandwidth; /* bytes a second, 0 for none, may change; or NULL */
    Channel *channel;
    guint64 limit; /* that counts since then */
    guint64 began_ns;
    guint64 began_bytes;
} Throttle;

/* Whether the image has grown faster than it may. One thread. */
gboolean throttle_holds(Throttle *throttle);
