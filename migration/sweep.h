/*
 * The sweep: walks the blocks, writes what no fault has claimed, releases it. A thread of its own,
 * the only one that waits for the destination. Private to migration/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "outcome.h"
#include "output.h"
#include "throttle.h"
#include "write-tracking.h"

typedef struct Sweep Sweep;

/* Starts the thread, at T0. Everything given must outlive it; errors go to @outcome. */
Sweep *sweep_start(GuestRam *ram, WriteTracking *tracking, Output *output, Throttle throttle,
                   Outcome *outcome, GError **errp);

/*
 * Waits at most @timeout_ms. TRUE: the walk is over, and every page is saved or claimed by a fault
 * thread; the sweep does nothing to QEMU any more, and goes on writing faulted pages.
 */
gboolean sweep_wait(Sweep *sweep, guint timeout_ms);
/* Pages that the sweep saved so far. Any thread. */
guint64 sweep_get_pages(Sweep *sweep);
/* Whether everything is written after buffer_pool_finish(), or an error ended it. Any thread. */
gboolean sweep_is_done(Sweep *sweep);

/*
 * When this returns, the sweep does nothing to QEMU any more, wherever it is, and its walk ends
 * soon.
 */
void sweep_detach(Sweep *sweep);
/* Waits for the thread's end. After a failure the channel must have been interrupted. */
void sweep_stop(Sweep *sweep);
