/*
 * The page service of a lazy restore: guest memory that is not there yet is put there when somebody
 * touches it, and the rest in the background. Private to migration/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "image-places.h"
#include "lazy-record.h"

typedef struct LazyService LazyService;

typedef enum {
    LAZY_SERVING,  /* pages are missing still */
    LAZY_COMPLETE, /* everything that is not zero is there */
    LAZY_FAILED,   /* a page could not be had: whoever touches it waits */
    LAZY_VM_GONE,  /* QEMU has ended */
} LazyStatus;

typedef struct LazyCounters {
    guint64 done;  /* bytes put there so far, without zero pages */
    guint64 total; /* 0 = not counted yet */
    guint64 faults;
} LazyCounters;

/*
 * Serves faults from now on, in a thread of its own. @uffd (not taken) has the blocks of @record
 * registered; @pidfd (not taken) is QEMU's. All arguments must outlive it. SF_ERROR_MISMATCH where
 * the image has not the blocks of the record.
 */
LazyService *lazy_service_start(int uffd, int pidfd, const ImagePlaces *places, LazyRecord *record,
                                GError **errp);
/* And all that is missing too, at most @max_bandwidth bytes a second; 0: no limit. */
void lazy_service_fill(LazyService *service, guint64 max_bandwidth);
/* Waits until it is not serving any more, or for @timeout_ms. */
LazyStatus lazy_service_wait(LazyService *service, guint timeout_ms);
void lazy_service_get_counters(LazyService *service, LazyCounters *counters);
/* Why it failed; owned by the service. */
const GError *lazy_service_get_error(LazyService *service);
/* Ends the threads; faults are not answered any more. NULL is allowed. */
void lazy_service_free(LazyService *service);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(LazyService, lazy_service_free)
