/*
 * The fault service: threads that answer write faults. They run before the first page is armed and
 * until the last is released, and wait for nothing but the buffer pool: not for QMP, not for the
 * destination, not for the allocator. Private to migration/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "guest-ram.h"
#include "migration/snapshot.h"
#include "outcome.h"
#include "write-tracking.h"

typedef enum {
    SERVICE_PREARM,  /* before T0: note the page as touched, release it */
    SERVICE_SERVE,   /* after T0: copy, then release */
    SERVICE_ABANDON, /* the snapshot is lost: release whatever comes */
} ServicePhase;

typedef struct ServiceStats {
    guint64 faults_prearm;
    guint64 faults;
    guint64 spurious;
    guint64 pages_saved;
    guint64 stalls;
    guint64 stall_ns;
    LatencyHistogram latency;
} ServiceStats;

typedef struct FaultService FaultService;

/* Everything given must outlive the service. Starts in SERVICE_PREARM. */
FaultService *fault_service_start(GuestRam *ram, WriteTracking *tracking, BufferPool *pool,
                                  Outcome *outcome, OnFull on_full, guint threads, GError **errp);

/*
 * Between these two no thread is in the middle of a message: what was released stands in the
 * touched maps, what was not read waits in the kernel. Only for the freeze.
 */
void fault_service_lock(FaultService *service);
void fault_service_unlock(FaultService *service);

/* Any thread; SERVICE_SERVE only while locked. */
void fault_service_set_phase(FaultService *service, ServicePhase phase);

/* Pages saved by fault threads, faults served; now, for progress. Any thread. */
guint64 fault_service_get_saved(FaultService *service);
guint64 fault_service_get_faults(FaultService *service);

/* Whether QEMU gave memory back so far: armed holes lose their markers with it. Any thread. */
gboolean fault_service_saw_remove(FaultService *service);

/* Ends the threads. To be called after the last page was released; stats may be NULL. */
void fault_service_stop(FaultService *service, ServiceStats *stats);
