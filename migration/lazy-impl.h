/*
 * What the two threads of the page service share. Only lazy-*.c may include this.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <stdatomic.h>

#include "lazy-service.h"

/* Normal pages that one fault brings: the next ones are likely to be wanted too. */
#define FAULT_RUN (64ULL * 1024)
/* What the fill puts there in one go, with the lock held: some 40 us. */
#define FILL_RUN (128ULL * 1024)

typedef struct LazyBlock {
    const char *name;
    guint64 host;
    guint64 page_size;
    guint64 pages;
    guint8 *state; /* LazyPageState of each page, in the record; changed under the lock */
    const PlacesBlock *places;
} LazyBlock;

struct LazyService {
    int uffd;
    int pidfd;
    int stop_event;
    const ImagePlaces *places;
    LazyBlock *blocks;
    guint n_blocks;
    guint64 largest_page;
    guint64 max_bandwidth;
    /*
     * Held while messages are read and their events noted, and while pages are put there: so no
     * page of the image gets into memory that has just been given back.
     */
    GMutex lock;
    GThread *fault_thread;
    GThread *fill_thread;
    GMutex status_lock; /* for status and error */
    GCond status_changed;
    LazyStatus status;
    GError *error;
    _Atomic guint64 done;
    _Atomic guint64 total;
    _Atomic guint64 faults;
    atomic_bool stopping;
};

/* Memory of one thread for pages on their way. */
typedef struct LazyBuffer {
    guint8 *data;
    gsize size;
    guint8 *scratch;
} LazyBuffer;

gboolean lazy_buffer_init(LazyBuffer *buffer, LazyService *service, guint64 size, GError **errp);
void lazy_buffer_clear(LazyBuffer *buffer);

/* Takes @error. The first one counts. */
void lazy_service_fail(LazyService *service, GError *error);
void lazy_service_set_status(LazyService *service, LazyStatus status);

/* Whether the image has nothing but zeros for a page. */
gboolean lazy_page_is_zero(const LazyService *service, const LazyBlock *block, guint64 page);
/* How many pages from @first on are to be had from the image, at most @max; they are one run. */
guint64 lazy_missing_run(const LazyService *service, const LazyBlock *block, guint64 first,
                         guint64 max);
/* The run's bytes into the buffer. Without the lock: it may wait for a disk. */
gboolean lazy_load(LazyService *service, const LazyBlock *block, guint64 first, guint64 count,
                   LazyBuffer *buffer, GError **errp);
/*
 * Puts pages there, and wakes who waits for them. Locked. 0, -EAGAIN where an event has to be read
 * first, another -errno where it cannot be done. What is there already stays as it is.
 */
int lazy_put(LazyService *service, LazyBlock *block, guint64 first, guint64 count,
             const guint8 *data);
/* The same for zeros. */
int lazy_put_zeros(LazyService *service, LazyBlock *block, guint64 page, guint8 *zeros);
/* What to do about an -errno of these: FALSE to try again later. */
gboolean lazy_put_failed(LazyService *service, const LazyBlock *block, int err);

gpointer lazy_fault_thread(gpointer service);
gpointer lazy_fill_thread(gpointer service);
