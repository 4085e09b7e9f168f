/*
 * The sweep: walks the blocks, claims what no fault has claimed, copies it out, releases it.
 * Runs in the snapshot thread. Private to migration/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "touched.h"

typedef struct Sweep {
    GuestRam *ram;
    WriteTracking *tracking;
    BufferPool *pool;
    KeepGoing keep_going; /* asked between chunks and while waiting for memory */
    gpointer user;
    guint64 pages_saved; /* by the sweep so far */
} Sweep;

/* When it returns TRUE, every page is saved or claimed by a fault thread. */
gboolean sweep_run(Sweep *sweep, GError **errp);
