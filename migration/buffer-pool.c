/*
 * The bounded buffer between the copiers and the destination.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "buffer-pool.h"

#include <errno.h>
#include <sys/mman.h>

#include "util/error.h"

/* The sweep's share: enough to keep the output busy, little enough to leave the rest to faults. */
#define BATCHES_MAX 32

/*
 * A single page is not worth waking the consumer for, and the fault thread has no time to do it:
 * pages wait for company, for the sweep's next batch, or for somebody who finds no free slot.
 */
#define SLOTS_WORTH_WAKING 64

typedef struct SlotInfo {
    guint64 offset;
    guint block;
} SlotInfo;

struct BufferPool {
    guint8 *arena;
    gsize arena_size;
    guint8 *slot_base;
    guint n_slots;
    guint n_batches;
    Batch *batches;

    GMutex lock; /* held for a few instructions only, never across a system call that waits */
    GCond slot_free;
    GCond batch_free;
    GCond filled;
    gint *free_slots; /* a stack: the slot used last is the one still in the cache */
    guint n_free_slots;
    gint *full_slots; /* a ring that can hold them all */
    guint full_head, n_full_slots;
    SlotInfo *info;
    Batch **free_batches;
    guint n_free_batches;
    Batch **full_batches; /* a ring as well */
    guint full_batch_head, n_full_batches;
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

    pool->batches = g_new0(Batch, pool->n_batches);
    pool->free_batches = g_new(Batch *, pool->n_batches);
    pool->full_batches = g_new(Batch *, pool->n_batches);
    for (guint i = 0; i < pool->n_batches; i++) {
        pool->batches[i].data = pool->arena + (gsize)i * BATCH_DATA_SIZE;
        pool->free_batches[i] = &pool->batches[i];
    }
    pool->n_free_batches = pool->n_batches;
}

BufferPool *buffer_pool_new(guint64 bytes, GError **errp)
{
    g_autoptr(BufferPool) pool = g_new0(BufferPool, 1);

    g_mutex_init(&pool->lock);
    g_cond_init(&pool->slot_free);
    g_cond_init(&pool->batch_free);
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
    pool->n_batches =
        (guint)CLAMP(bytes / 8 / BATCH_DATA_SIZE, (guint64)POOL_BATCHES_MIN, (guint64)BATCHES_MAX);
    pool->slot_base = pool->arena + (gsize)pool->n_batches * BATCH_DATA_SIZE;
    pool->n_slots = (guint)MIN(
        (bytes - (guint64)pool->n_batches * BATCH_DATA_SIZE) / POOL_SLOT_SIZE, (guint64)G_MAXINT);
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
    g_cond_clear(&pool->batch_free);
    g_cond_clear(&pool->filled);
    g_free(pool->free_slots);
    g_free(pool->full_slots);
    g_free(pool->info);
    g_free(pool->batches);
    g_free(pool->free_batches);
    g_free(pool->full_batches);
    g_free(pool);
}

static void account(BufferPool *pool, guint64 bytes)
{
    pool->used += bytes;
    pool->peak = MAX(pool->peak, pool->used);
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
    account(pool, POOL_SLOT_SIZE);
    return pool->free_slots[--pool->n_free_slots];
}

guint8 *buffer_pool_slot_data(BufferPool *pool, gint slot)
{
    return pool->slot_base + (gsize)slot * POOL_SLOT_SIZE;
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

Batch *buffer_pool_take_batch(BufferPool *pool, guint timeout_ms)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&pool->lock);
    gint64 deadline = g_get_monotonic_time() + (gint64)timeout_ms * 1000;

    while (!pool->n_free_batches && !pool->closed) {
        if (!g_cond_wait_until(&pool->batch_free, &pool->lock, deadline)) {
            return NULL;
        }
    }
    if (pool->closed) {
        return NULL;
    }
    account(pool, BATCH_DATA_SIZE);
    Batch *batch = pool->free_batches[--pool->n_free_batches];
    batch->count = 0;
    return batch;
}

void buffer_pool_push_batch(BufferPool *pool, Batch *batch)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&pool->lock);

    pool->full_batches[(pool->full_batch_head + pool->n_full_batches++) % pool->n_batches] = batch;
    g_cond_signal(&pool->filled);
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
    g_cond_broadcast(&pool->batch_free);
}

gboolean buffer_pool_fetch(BufferPool *pool, gint *slots, guint max, guint *n_slots, Batch **batch)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&pool->lock);

    while (!pool->n_full_slots && !pool->n_full_batches && !pool->finished && !pool->closed) {
        g_cond_wait(&pool->filled, &pool->lock);
    }
    *n_slots = 0;
    *batch = NULL;
    if (pool->closed || (!pool->n_full_slots && !pool->n_full_batches)) {
        return FALSE;
    }
    while (*n_slots < max && pool->n_full_slots) {
        slots[(*n_slots)++] = pool->full_slots[pool->full_head];
        pool->full_head = (pool->full_head + 1) % pool->n_slots;
        pool->n_full_slots--;
    }
    if (pool->n_full_batches) {
        *batch = pool->full_batches[pool->full_batch_head];
        pool->full_batch_head = (pool->full_batch_head + 1) % pool->n_batches;
        pool->n_full_batches--;
    }
    return TRUE;
}

Extent buffer_pool_slot_extent(BufferPool *pool, gint slot)
{
    /* Written before the slot was queued under the lock, and not again before it is returned. */
    return (Extent){ .block = pool->info[slot].block,
                     .offset = pool->info[slot].offset,
                     .length = POOL_SLOT_SIZE,
                     .data = buffer_pool_slot_data(pool, slot) };
}

void buffer_pool_return(BufferPool *pool, const gint *slots, guint n_slots, Batch *batch)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&pool->lock);

    for (guint i = 0; i < n_slots; i++) {
        pool->free_slots[pool->n_free_slots++] = slots[i];
    }
    if (n_slots) {
        pool->used -= (guint64)n_slots * POOL_SLOT_SIZE;
        g_cond_broadcast(&pool->slot_free);
    }
    if (batch) {
        pool->free_batches[pool->n_free_batches++] = batch;
        pool->used -= BATCH_DATA_SIZE;
        g_cond_signal(&pool->batch_free);
    }
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
