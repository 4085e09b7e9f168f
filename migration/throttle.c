/*
 * Bytes against time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "throttle.h"

#include "clock.h"

gboolean throttle_holds(Throttle *throttle)
{
    guint64 limit = throttle->max_bandwidth ? *throttle->max_bandwidth : 0;

    if (!limit) {
        return FALSE;
    }
    guint64 written = channel_get_bytes(throttle->channel);
    guint64 now = clock_now_ns();
    if (limit != throttle->limit) {
        /* A new limit counts from its beginning. */
        throttle->limit = limit;
        throttle->began_ns = now;
        throttle->began_bytes = written;
    }
    double allowed = (double)limit * ((double)(now - throttle->began_ns) / 1e9);
    return (double)(written - throttle->began_bytes) > allowed;
}
