/*
 * The bounded memory between the copiers (fault threads, sweep) and the destination: a pool of
 * page-sized slots for faults, a few large batches for the sweep, and the queues of what is full.
 * A copier that finds no free memory waits here and nowhere else. Private to migration/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

#define POOL_SLOT_SIZE 4096U
#define BATCH_DATA_SIZE (256U << 10)
#define BATCH_EXTENTS_MAX 512

/* A run of pages of one block; data is NULL where they are zero. */
typedef struct Extent {
    guint block;
    guint64 offset;
    guint64 length;
    const guint8 *data;
} Extent;

/* What the sweep hands over at once. */
typedef struct Batch {
    guint8 *data; /* BATCH_DATA_SIZE */
    guint count;
    Extent extent[BATCH_EXTENTS_MAX];
} Batch;

typedef struct BufferPool BufferPool;

/* Reserves @bytes (at least SNAPSHOT_MAX_BUFFER_MIN); the kernel gives them at first use. */
BufferPool *buffer_pool_new(guint64 bytes, GError **errp);
void buffer_pool_free(BufferPool *pool);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BufferPool, buffer_pool_free)

/*
 * A slot for a faulted page, or -1: none is free and @wait is FALSE, or the pool was closed.
 * Any thread.
 */
gint buffer_pool_take_slot(BufferPool *pool, gboolean wait);
guint8 *buffer_pool_slot_data(BufferPool *pool, gint slot);
/* Queues a slot that holds @length (<= POOL_SLOT_SIZE) bytes of @block at @offset. */
void buffer_pool_push_slot(BufferPool *pool, gint slot, guint block, guint64 offset);

/* An empty batch; waits at most @timeout_ms. NULL: none in time, or the pool was closed. */
Batch *buffer_pool_take_batch(BufferPool *pool, guint timeout_ms);
void buffer_pool_push_batch(BufferPool *pool, Batch *batch);
/* The fewest batches a pool has: a caller may hold that many at once without waiting for itself. */
#define POOL_BATCHES_MIN 8

/* No more will be pushed. What is queued is still to be fetched. */
void buffer_pool_finish(BufferPool *pool);
/* The snapshot is lost: everybody who waits gets nothing, from now on. Any thread. */
void buffer_pool_close(BufferPool *pool);

/*
 * For the one consumer: fetches up to @max full slots and at most one batch, faults first. Waits
 * while there is nothing. FALSE when finished and empty, or closed.
 */
gboolean buffer_pool_fetch(BufferPool *pool, gint *slots, guint max, guint *n_slots, Batch **batch);
/* What a fetched slot holds. */
Extent buffer_pool_slot_extent(BufferPool *pool, gint slot);
/* Gives back what was fetched. */
void buffer_pool_return(BufferPool *pool, const gint *slots, guint n_slots, Batch *batch);

/* Bytes in use now, and at most so far. Any thread. */
guint64 buffer_pool_get_used(BufferPool *pool);
guint64 buffer_pool_get_peak(BufferPool *pool);
