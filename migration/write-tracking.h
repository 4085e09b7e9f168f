/*
 * Write protection of guest memory through a userfaultfd: register, arm, release. Thin over the
 * kernel's ioctls; knows blocks, not the snapshot. Any thread. Private to migration/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "event-gate.h"
#include "guest-ram.h"

typedef struct WriteTracking {
    int uffd;
    guint64 features;     /* granted by UFFDIO_API */
    gboolean unpopulated; /* arming reaches holes of anonymous memory too */
    EventGate *gate;      /* NULL where the guest's memory is lost before its event comes */
    /* Asked by write_tracking_arm() while it waits; may be NULL. Snapshot thread. */
    gboolean (*keep_going)(gpointer user, GError **errp);
    gpointer user;
} WriteTracking;

/* UFFDIO_API on @uffd (taken) with the features of @offered that the blocks need. */
gboolean write_tracking_open(WriteTracking *tracking, int uffd, guint64 offered, GuestRam *ram,
                             GError **errp);
/* Closes the descriptor: the kernel drops what protection is left and wakes every waiter. */
void write_tracking_close(WriteTracking *tracking);

/* SF_ERROR_BUSY when another userfaultfd has the range: a migration, or another snapshot. */
gboolean write_tracking_register(WriteTracking *tracking, GuestBlock *block, GError **errp);
/* Ends the tracking of a region in which nothing is armed any more. Snapshot thread. */
void write_tracking_unregister_region(WriteTracking *tracking, GuestBlock *block, guint64 region);
/* Removes protection and registration of what we registered; errors are of no use here. */
void write_tracking_unregister_all(WriteTracking *tracking, GuestRam *ram, gboolean still_armed);

/*
 * UFFDIO_WRITEPROTECT answers EAGAIN while QEMU's mappings change, that is until somebody has read
 * the event for it. These two give up after a few tries and return -EAGAIN, for threads that are
 * themselves the ones to read events; 0 is success, any other value a negative errno.
 */
int write_tracking_try_arm(WriteTracking *tracking, GuestBlock *block, guint64 first,
                           guint64 count);
int write_tracking_try_release(WriteTracking *tracking, GuestBlock *block, guint64 first,
                               guint64 count);

/*
 * Protects pages against writing; waits out EAGAIN, so the fault service must be running. Snapshot
 * thread.
 */
gboolean write_tracking_arm(WriteTracking *tracking, GuestBlock *block, guint64 first,
                            guint64 count, GError **errp);

/* Turns what the try functions return (not 0) into an error; always FALSE. */
gboolean write_tracking_error(int ret, GuestBlock *block, GError **errp);
