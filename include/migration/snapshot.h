/*
 * The engine's front: one live snapshot of one running QEMU.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <json-glib/json-glib.h>
#include <sys/types.h>

#include "migration/channel.h"
#include "migration/image-index.h"
#include "migration/stats.h"

typedef enum { ON_FULL_STALL, ON_FULL_CANCEL } OnFull;

typedef enum {
    SNAPSHOT_PHASE_ATTACH,
    SNAPSHOT_PHASE_ARM,
    SNAPSHOT_PHASE_FREEZE,
    SNAPSHOT_PHASE_SWEEP,
    SNAPSHOT_PHASE_FINISH,
} SnapshotPhase;

typedef struct SnapshotProgress {
    SnapshotPhase phase;
    guint64 saved_bytes; /* guest memory that is safe: written, queued or known to be zero */
    guint64 total_bytes;
    guint64 written_bytes; /* to the destination */
    guint64 zero_bytes;    /* of what is saved */
    guint64 faults;
    guint64 buffer_used; /* bytes of the pool in use */
} SnapshotProgress;

typedef struct SnapshotOptions {
    pid_t pid;       /* 0: found from the monitor */
    const char *qmp; /* monitor address; NULL: found from the process */
    /*
     * Instead of both, through a proxy: a connection to a QMP server that leads to QEMU @pid
     * (taken, 0 for none), and the proxy's own connection to QEMU for guardian_start_with_spare()
     * (taken, 0 for none).
     */
    int qmp_fd;
    int spare_fd;
    const Destination *destination; /* not taken */
    /*
     * STREAM or MAPPED_RAM; 0: STREAM. With a parent: MAPPED_RAM or 0: a clone of it where that can
     * be, and else, as with STREAM, INCREMENTAL.
     */
    ImageFormat format;
    const char *parent; /* an image: what it has is not written again; NULL for none */
    const char *label;  /* for the index; NULL for none */
    gboolean no_screen; /* do not put the guest's screen into the index */
    gboolean sync;      /* file: sync before it gets its name */
    guint64 max_buffer; /* bytes */
    OnFull on_full;
    guint fault_threads; /* 0: chosen by the number of cores */
    /* Called from the snapshot's waiting thread about ten times a second; NULL for none. */
    void (*progress)(const SnapshotProgress *progress, gpointer user);
    /* Called when a phase begins, before anything of it is done; may wait a little. Or NULL. */
    void (*enter_phase)(SnapshotPhase phase, gpointer user);
    gpointer progress_user;
    /*
     * Bytes a second that the image may grow while the sweep makes it grow; faults are not held up.
     * 0 for no limit; may be changed meanwhile, from any thread. NULL: none.
     */
    const volatile guint64 *max_bandwidth;
} SnapshotOptions;

#define SNAPSHOT_MAX_BUFFER_DEFAULT (256 * 1024 * 1024ULL)
#define SNAPSHOT_MAX_BUFFER_MIN (8 * 1024 * 1024ULL)

/*
 * Takes the snapshot; returns when the image is complete and durable, or with an error after which
 * the VM is as it was before and no image is left. *cancel may be set from a signal handler.
 * Call it from a process that has no other threads yet (it forks the guardian first).
 * @report is filled as far as things went, also on failure; clear it with snapshot_report_clear().
 */
gboolean snapshot_run(const SnapshotOptions *options, const volatile int *cancel,
                      SnapshotReport *report, GError **errp);
