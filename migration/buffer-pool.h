/*
 * The bounded memory between the fault threads and the destination: a pool of page-sized slots, and
 * the queue of those that are full. A fault thread that finds no free slot waits here and nowhere
 * else. Private to migration/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

#define POOL_SLOT_SIZE 4096U

/* What a slot holds. */
typedef struct Extent {
    guint block;
    guint64 offset;
    guint64 length;
    const guint8 *data;
} Extent;

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

/* No more will be pushed. What is queued is still to be fetched. */
void buffer_pool_finish(BufferPool *pool);
/* The snapshot is lost: everybody who waits gets nothing, from now on. Any thread. */
void buffer_pool_close(BufferPool *pool);

/*
 * For the one consumer: fetches up to @max full slots in the order of their faults and returns
 * their number. With @wait it waits while there are none, and 0 means finished and empty, or
 * closed.
 */
guint buffer_pool_fetch(BufferPool *pool, gint *slots, guint max, gboolean wait);
/* What a fetched slot holds. */
Extent buffer_pool_slot_extent(BufferPool *pool, gint slot);
/* Gives back what was fetched. */
void buffer_pool_return(BufferPool *pool, const gint *slots, guint n_slots);

/* Bytes in use now, and at most so far. Any thread. */
guint64 buffer_pool_get_used(BufferPool *pool);
guint64 buffer_pool_get_peak(BufferPool *pool);
