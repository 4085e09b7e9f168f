/*
 * What the walk (sweep.c) and the writing of a piece (sweep-pages.c) share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "guest-window.h"
#include "sweep.h"

/* Read and written at once: it stays in the processor's own cache between the two. */
#define SWEEP_BUFFER_SIZE (512U << 10)

struct Sweep {
    GThread *thread;
    GuestRam *ram;
    WriteTracking *tracking;
    Output *output;
    Throttle throttle;
    Outcome *outcome;
    guint8 *buffer;      /* SWEEP_BUFFER_SIZE */
    GuestWindow *window; /* NULL for none */
    _Atomic guint64 pages_saved;
    atomic_bool done;
    /* Held while something is done to QEMU's memory map, and nowhere else by this thread. */
    GMutex tracking_lock;
    atomic_bool detached; /* set with the lock held */
    GMutex lock;
    GCond walked_cond;
    gboolean walked;
};

/* Writes what is still pending of some pages, marks it saved and releases it. */
gboolean sweep_pages(Sweep *sweep, GuestBlock *block, guint64 first, guint64 count, GError **errp);
/* The same for one huge page. */
gboolean sweep_huge_page(Sweep *sweep, GuestBlock *block, guint64 page, GError **errp);
