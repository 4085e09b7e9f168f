/*
 * The parts of a restore: the QEMU that is started for it, what feeds it, and the comparison
 * before. Private to incoming*.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <sys/types.h>

#include "migration/image-reader.h"
#include "migration/incoming.h"
#include "monitor/qmp.h"

/* ---- incoming-qemu.c: the process ---- */

typedef struct IncomingQemu {
    pid_t child;    /* what was started, ours to wait for; 0 when it has been */
    int status;     /* of the child, when it has been waited for */
    pid_t pid;      /* QEMU itself: behind -daemonize not the child; 0 when unknown */
    int pidfd;      /* of it, when it is not the child */
    int monitor_fd; /* our end, until @qmp has it */
    QmpClient *qmp;
} IncomingQemu;

/*
 * Starts @command with -incoming defer and a private monitor on an inherited socket, and returns at
 * once. SF_ERROR_USAGE where the command has words that contradict that.
 */
gboolean incoming_qemu_start(IncomingQemu *qemu, char **command, GError **errp);
/* Waits for the monitor as long as QEMU lives and *cancel is 0: preallocation may take minutes. */
gboolean incoming_qemu_wait_monitor(IncomingQemu *qemu, const volatile int *cancel, GError **errp);
/*
 * Puts SF_ERROR_VM_GONE into *errp in place of @error (taken) where that only says that the
 * monitor's connection ended: how QEMU ended. Returns FALSE.
 */
gboolean incoming_qemu_explain(IncomingQemu *qemu, GError *error, GError **errp);
/* Waits for its own end; FALSE after @timeout_ms. */
gboolean incoming_qemu_wait_end(IncomingQemu *qemu, guint timeout_ms);
/* Asks it to go, which it does without a word, unlike after a signal. */
void incoming_qemu_quit(IncomingQemu *qemu);
/* Ends it, in one way or another. */
void incoming_qemu_end(IncomingQemu *qemu);
/* Forgets it: it goes on by itself. */
void incoming_qemu_release(IncomingQemu *qemu);

/* ---- incoming-feed.c: the stream on its way ---- */

typedef struct IncomingFeed IncomingFeed;

typedef struct FeedRange {
    guint64 start; /* in the file */
    guint64 end;
} FeedRange;

#define FEED_RANGES 2

/*
 * Hands QEMU the reading end of a pipe, has it load from there (migrate-incoming), and writes the
 * ranges of @fd into it from a thread of its own. @fd must outlive the feed.
 */
IncomingFeed *incoming_feed_start(QmpClient *qmp, int fd, const FeedRange ranges[FEED_RANGES],
                                  GError **errp);
/*
 * The same for an image of any kind: its pages as a stream that is made on the way. @reader must
 * outlive the feed, and is the feed's until then.
 */
IncomingFeed *incoming_feed_start_converted(QmpClient *qmp, ImageReader *reader, GError **errp);
/*
 * QEMU (9.0 or later) reads a mapped-ram image from @fd, where it begins at @offset, by itself. Its
 * descriptor is taken back by incoming_feed_free(), while @qmp is still there.
 */
IncomingFeed *incoming_feed_start_mapped(QmpClient *qmp, int fd, guint64 offset, GError **errp);
/* Bytes of the image that are written to a feed in all; of a converted one, of guest memory. */
guint64 incoming_feed_get_total(IncomingFeed *feed);
/* Takes over why the image could not be read, if that is so; else FALSE. */
gboolean incoming_feed_take_failure(IncomingFeed *feed, GError **errp);
/* Bytes written so far. */
guint64 incoming_feed_get_done(IncomingFeed *feed);
/* Why the thread stopped early: an errno, EPIPE being QEMU's end of reading; 0 while all is well.
 */
int incoming_feed_get_error(IncomingFeed *feed);
/* QEMU is going to be ended: nothing is asked of it any more. */
void incoming_feed_forget_qemu(IncomingFeed *feed);
/* Waits for the thread, which ends when QEMU stops reading. NULL is allowed. */
void incoming_feed_free(IncomingFeed *feed);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(IncomingFeed, incoming_feed_free)

/* ---- incoming-compare.c, incoming-devices.c: whether it can fit ---- */

typedef struct IncomingDifferences {
    GPtrArray *certain;    /* sentences */
    GPtrArray *suspected;  /* sentences, too; only the load itself can judge them */
    GHashTable *places;    /* of the devices among the certain ones, see incoming_device_place() */
    gboolean qemu_refuses; /* QEMU itself sees one of the certain ones */
} IncomingDifferences;

void incoming_differences_init(IncomingDifferences *differences);
void incoming_differences_clear(IncomingDifferences *differences);
void incoming_differences_add(GPtrArray *list, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* The pages were walked before. FALSE: the comparison itself failed. */
gboolean incoming_compare(QmpClient *qmp, ImageReader *reader, IncomingDifferences *differences,
                          GError **errp);
/* The devices' part of it. */
gboolean incoming_compare_devices(QmpClient *qmp, ImageReader *reader,
                                  IncomingDifferences *differences, GError **errp);
/* Where a section's or block's device sits on its bus; NULL for one that sits on none. Caller
 * frees. */
char *incoming_device_place(const char *name);
