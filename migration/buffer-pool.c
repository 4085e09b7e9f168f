/*
 * The bounded buffer between the fault threads and the destination.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "buffer-pool.h"

#include <errno.h>
#include <sys/mman.h>

#include "util/error.h"

/*
 * A single page is not worth waking the consumer for, and the fault thread has no time to do it:
 * pages wait for company, for the sweep's next look, or for somebody who finds no free slot.
 */
#define SLOTS_WORTH_WAKING 64

typedef struct SlotInfo {
    guint64 offset;
    guint block;
} SlotInfo;

struct BufferPool {
    guint8 *arena;
    gsize arena_size;
    guint n_slots;

    GMutex lock; /* held for a few instructions only, never across a system call that waits */
    GCond slot_free;
    GCond filled;
    gint *free_slots; /* a stack: the slot used last is the one still in the cache */
    guint n_free_slots;
    gint *full_slots; /* a ring that can hold them all */
    guint full_head, n_full_slots;
    SlotInfo *info;
    guint64 used, peak;
    gboolean finished, closed;
};

static void init_queues(BufferPool *pool)
{
    pool->free_slots = g_new(gint, pool->n_slots);
    pool->full_slots = g_new(gint, pool->n_slots);
    pool->info = g_new(SlotInfo, pool->n_slots);
    for (guint i = 0; i < pool->n_slots; i++) {
        pool->free_slots[i] = (gint)(pool->n_slots - 1 - i);
    }
    pool->n_free_slots = pool->n_slots;
}

BufferPool *buffer_pool_new(guint64 bytes, GError **errp)
{
    g_autoptr(BufferPool) pool = g_new0(BufferPool, 1);

    g_mutex_init(&pool->lock);
    g_cond_init(&pool->slot_free);
    g_cond_init(&pool->filled);
    pool->arena_size = bytes;
    pool->arena = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pool->arena == MAP_FAILED) {
        pool->arena = NULL;
        sf_error_set_errno(errp, SF_ERROR_FAILED, errno,
                           "cannot reserve %" G_GUINT64_FORMAT
                           " bytes for the buffer; give less with --max-buffer",
                           bytes);
        return NULL;
    }
    pool->n_slots = (guint)MIN(bytes / POOL_SLOT_SIZE, (guint64)G_MAXINT);
    init_queues(pool);
    return g_steal_pointer(&pool);
}

void buffer_pool_free(BufferPool *pool)
{
    if (!pool) {
        return;
    }
    if (pool->arena) {
        munmap(pool->arena, pool->arena_size);
    }
    g_mutex_clear(&pool->lock);
    g_cond_clear(&pool->slot_free);
    g_cond_clear(&pool->filled);
    g_free(pool->free_slots);
    g_free(pool->full_slots);
    g_free(pool->info);
    g_free(pool);
}

gint buffer_pool_take_slot(BufferPool *pool, gboolean wait)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&pool->lock);

    while (wait && !pool->n_free_slots && !pool->closed) {
        g_cond_signal(&pool->filled);
        g_cond_wait(&pool->slot_free, &pool->lock);
    }
    if (!pool->n_free_slots || pool->closed) {
        return -1;
    }
    pool->used += POOL_SLOT_SIZE;
    pool->peak = MAX(pool->peak, pool->used);
    return pool->free_slots[--pool->n_free_slots];
}

guint8 *buffer_pool_slot_data(BufferPool *pool, gint slot)
{
    return pool->arena + (gsize)slot * POOL_SLOT_SIZE;
}

void buffer_pool_push_slot(BufferPool *pool, gint slot, guint block, guint64 offset)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&pool->lock);

    pool->info[slot] = (SlotInfo){ .block = block, .offset = offset };
    pool->full_slots[(pool->full_head + pool->n_full_slots++) % pool->n_slots] = slot;
    if (pool->n_full_slots >= SLOTS_WORTH_WAKING) {
        g_cond_signal(&pool->filled);
    }
}

void buffer_pool_finish(BufferPool *pool)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&pool->lock);
    pool->finished = TRUE;
    g_cond_broadcast(&pool->filled);
}

void buffer_pool_close(BufferPool *pool)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&pool->lock);
    pool->closed = TRUE;
    g_cond_broadcast(&pool->filled);
    g_cond_broadcast(&pool->slot_free);
}

guint buffer_pool_fetch(BufferPool *pool, gint *slots, guint max, gboolean wait)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&pool->lock);
    guint n = 0;

    while (wait && !pool->n_full_slots && !pool->finished && !pool->closed) {
        g_cond_wait(&pool->filled, &pool->lock);
    }
    while (n < max && pool->n_full_slots && !pool->closed) {
        slots[n++] = pool->full_slots[pool->full_head];
        pool->full_head = (pool->full_head + 1) % pool->n_slots;
        pool->n_full_slots--;
    }
    return n;
}

Extent buffer_pool_slot_extent(BufferPool *pool, gint slot)
{
    /* Written before the slot was queued under the lock, and not again before it is returned. */
    return (Extent){ .block = pool->info[slot].block,
                     .offset = pool->info[slot].offset,
                     .length = POOL_SLOT_SIZE,
                     .data = buffer_pool_slot_data(pool, slot) };
}

void buffer_pool_return(BufferPool *pool, const gint *slots, guint n_slots)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&pool->lock);

    for (guint i = 0; i < n_slots; i++) {
        pool->free_slots[pool->n_free_slots++] = slots[i];
    }
    pool->used -= (guint64)n_slots * POOL_SLOT_SIZE;
    g_cond_broadcast(&pool->slot_free);
}

guint64 buffer_pool_get_used(BufferPool *pool)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&pool->lock);
    return pool->used;
}

guint64 buffer_pool_get_peak(BufferPool *pool)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&pool->lock);
    return pool->peak;
}
