/*
 * The context of one snapshot, passed through its steps. Private to migration/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "attach/guardian.h"
#include "attach/ksm.h"
#include "attach/userfaultfd.h"
#include "device-capture.h"
#include "fault-service.h"
#include "migration/snapshot.h"
#include "sweep.h"
#include "touched.h"

typedef struct Snapshot {
    const SnapshotOptions *options;
    const volatile int *cancel;
    SnapshotReport *report;
    SnapshotPhase phase;
    guint64 began_ns;
    guint64 t0_ns;        /* CLOCK_MONOTONIC */
    guint64 next_look_ns; /* when snapshot_keep_going() looks around again */

    pid_t pid;
    int pidfd; /* readable when QEMU has exited */
    QmpClient *qmp;
    int spare_fd; /* see SnapshotOptions; -1 for none */
    Guardian *guardian;
    gboolean was_running;

    KsmHold *ksm;   /* where memory can be merged */
    char *ram_list; /* the RAM blocks as QEMU listed them */
    GuestRam *ram;
    ImageHead *head;
    WriteTracking tracking;
    BufferPool *pool;
    FaultService *faults;
    DeviceCapture devices;
    Channel *channel;
    Output output;
    Sweep *sweep;
    ImageIndexBuilder *index;
    ImageChain *parent; /* NULL for none */
    int screen;         /* a memory file with the guest's screen, -1 for none */
    Outcome outcome;
} Snapshot;

/* Step 1, attach.c's part of the way: process, monitor, guardian, userfaultfd. */
gboolean snapshot_attach(Snapshot *snapshot, GError **errp);
/* Step 2: machine, RAM blocks, everything that forbids a snapshot. */
gboolean snapshot_learn(Snapshot *snapshot, GError **errp);
/* FALSE when the RAM blocks are no more those of snapshot_learn(): one was plugged or unplugged. */
gboolean snapshot_check_ram(Snapshot *snapshot, GError **errp);
/* What runs and what does not, now. FALSE in states in which there is no whole machine. */
gboolean snapshot_learn_state(Snapshot *snapshot, GError **errp);
/* Opens the destination and chooses the writer; asks for what the index is to tell. */
gboolean snapshot_open_image(Snapshot *snapshot, GError **errp);
/* Writes the head. */
gboolean snapshot_begin_image(Snapshot *snapshot, GError **errp);
/* Behind the last page: device state, the end, the index. The channel is not committed. */
gboolean snapshot_finish_image(Snapshot *snapshot, GError **errp);
/* Step 4: the downtime. The VM runs again afterwards if it ran before, whatever happens. */
gboolean snapshot_freeze(Snapshot *snapshot, GError **errp);
/*
 * After it: the last questions to QEMU, and the monitor is closed. QEMU's main thread, which answers,
 * may be a writer that waits for room in the pool: only while the sweep runs.
 */
gboolean snapshot_let_go_of_monitor(Snapshot *snapshot, GError **errp);

/*
 * To be asked in every loop: FALSE and an error when the user cancelled, QEMU exited or another
 * thread failed. Reports progress ten times a second. Cheap enough for each chunk.
 */
gboolean snapshot_keep_going(gpointer snapshot, GError **errp);
