/*
 * The sweep.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "sweep.h"

#include <string.h>

#include "clock.h"
#include "util/zero.h"

#define WAIT_MS 100
/* vm.max_map_count is 65530 where nobody changed it. */
#define SPLIT_REGIONS_MAX 4096

G_STATIC_ASSERT(BATCH_DATA_SIZE *POOL_BATCHES_MIN >= SCAN_PAGES_MAX * POOL_SLOT_SIZE);

/* One chunk on its way: the memory taken for it, and what was copied into it. */
typedef struct Gather {
    Sweep *sweep;
    GuestBlock *block;
    Batch *batch[POOL_BATCHES_MIN];
    guint n_batches;
    guint current;
    gsize filled; /* bytes of the current batch */
} Gather;

/*
 * Takes the memory for @bytes before anything is claimed: whoever writes to a claimed page waits
 * for us, so we must not wait for the destination then.
 */
static gboolean gather_begin(Gather *gather, Sweep *sweep, GuestBlock *block, guint64 bytes,
                             GError **errp)
{
    guint want = MAX((guint)((bytes + BATCH_DATA_SIZE - 1) / BATCH_DATA_SIZE), 1U);

    *gather = (Gather){ .sweep = sweep, .block = block };
    while (gather->n_batches < want) {
        if (!sweep->keep_going(sweep->user, errp)) {
            return FALSE;
        }
        Batch *batch = buffer_pool_take_batch(sweep->pool, WAIT_MS);
        if (batch) {
            gather->batch[gather->n_batches++] = batch;
        }
    }
    return TRUE;
}

static void add_extent(Gather *gather, guint64 offset, guint64 length, const guint8 *data)
{
    Batch *batch = gather->batch[gather->current];
    batch->extent[batch->count++] =
        (Extent){ .block = gather->block->index, .offset = offset, .length = length, .data = data };
}

/* Copies a run of bytes, over the edges of batches. */
static gboolean gather_copy(Gather *gather, PageKind kind, guint64 offset, guint64 length,
                            GError **errp)
{
    while (length) {
        if (gather->filled == BATCH_DATA_SIZE) {
            gather->current++;
            gather->filled = 0;
        }
        gsize piece = MIN(length, BATCH_DATA_SIZE - gather->filled);
        guint8 *to = gather->batch[gather->current]->data + gather->filled;
        if (!guest_block_read(gather->sweep->ram, gather->block, kind, offset, to, piece, errp) ||
            !guest_block_check_kept(gather->sweep->ram, gather->block, kind, offset, to, piece,
                                    errp)) {
            return FALSE;
        }
        add_extent(gather, offset, piece, to);
        gather->filled += piece;
        offset += piece;
        length -= piece;
    }
    return TRUE;
}

/* Splits what was copied into zero and other pages. After the release: nobody waits for it. */
static void find_zero_pages(Batch *batch)
{
    Extent copied[BATCH_EXTENTS_MAX];
    guint n = batch->count;

    memcpy(copied, batch->extent, n * sizeof(Extent));
    batch->count = 0;
    for (guint i = 0; i < n; i++) {
        guint64 step = copied[i].data ? POOL_SLOT_SIZE : copied[i].length;
        for (guint64 at = 0; at < copied[i].length; at += step) {
            const guint8 *data = copied[i].data ? copied[i].data + at : NULL;
            data = data && buffer_is_zero(data, step) ? NULL : data;
            Extent *last = batch->count ? &batch->extent[batch->count - 1] : NULL;
            if (last && !last->data == !data &&
                last->offset + last->length == copied[i].offset + at) {
                last->length += step;
                continue;
            }
            batch->extent[batch->count++] = (Extent){ .block = copied[i].block,
                                                      .offset = copied[i].offset + at,
                                                      .length = step,
                                                      .data = data };
        }
    }
}

/* Hands everything to the output; a chunk that failed gives its memory back empty. */
static void gather_end(Gather *gather, gboolean good)
{
    for (guint i = 0; i < gather->n_batches; i++) {
        Batch *batch = gather->batch[i];
        if (good && batch->count) {
            find_zero_pages(batch);
            buffer_pool_push_batch(gather->sweep->pool, batch);
        } else {
            buffer_pool_return(gather->sweep->pool, NULL, 0, batch);
        }
    }
}

/* Copies each run of claimed pages of one kind. */
static gboolean copy_claimed(Gather *gather, guint64 first, guint64 count, const guint8 *kind,
                             const gboolean *claimed, GError **errp)
{
    GuestBlock *block = gather->block;

    for (guint64 i = 0, end; i < count; i = end) {
        for (end = i + 1; end < count && claimed[end] == claimed[i] && kind[end] == kind[i];
             end++) {
        }
        guint64 offset = (first + i) * block->page_size;
        guint64 length = (end - i) * block->page_size;
        if (!claimed[i]) {
            continue;
        }
        if (kind[i] == PAGE_KIND_ZERO) {
            add_extent(gather, offset, length, NULL);
        } else if (!gather_copy(gather, (PageKind)kind[i], offset, length, errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

/*
 * Marks the copied pages saved and releases them in runs as wide as possible: each call costs the
 * vCPUs a TLB flush. A run goes over pages that are saved already, but never over one that
 * a fault thread is still copying.
 */
static gboolean release_claimed(Gather *gather, guint64 first, guint64 count,
                                const gboolean *claimed, GError **errp)
{
    GuestBlock *block = gather->block;

    for (guint64 i = 0; i < count; i++) {
        if (claimed[i]) {
            page_set_saved(block, first + i);
            gather->sweep->pages_saved++;
        }
    }
    for (guint64 i = 0, end; i < count; i = end) {
        for (end = i; end < count && page_state(block, first + end) == PAGE_SAVED; end++) {
        }
        if (end == i) {
            end++;
        } else if (!write_tracking_release(gather->sweep->tracking, block, first + i, end - i,
                                           errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

/* A chunk of normal pages: look, take memory, claim, copy, release, hand over. */
static gboolean sweep_chunk(Sweep *sweep, GuestBlock *block, guint64 first, guint64 count,
                            GError **errp)
{
    guint8 kind[SCAN_PAGES_MAX];
    gboolean claimed[SCAN_PAGES_MAX];
    guint64 bytes = 0;
    Gather gather;

    if (!guest_block_scan(sweep->ram, block, first, count, kind, errp)) {
        return FALSE;
    }
    for (guint64 i = 0; i < count; i++) {
        bytes += kind[i] == PAGE_KIND_ZERO ? 0 : block->page_size;
    }
    gboolean good = gather_begin(&gather, sweep, block, bytes, errp);
    for (guint64 i = 0; good && i < count; i++) {
        claimed[i] = page_claim(block, first + i);
    }
    good = good && copy_claimed(&gather, first, count, kind, claimed, errp) &&
           release_claimed(&gather, first, count, claimed, errp);
    gather_end(&gather, good);
    return good;
}

/*
 * A huge page is protected and released only as a whole. It is claimed once, and copied in parts
 * that fit into the sweep's share of the pool.
 */
static gboolean sweep_huge_page(Sweep *sweep, GuestBlock *block, guint64 page, GError **errp)
{
    guint64 part = SCAN_PAGES_MAX * (guint64)POOL_SLOT_SIZE;
    guint64 begin = page * block->page_size;
    guint8 kind;

    if (!guest_block_scan(sweep->ram, block, page, 1, &kind, errp)) {
        return FALSE;
    }
    gboolean mine = FALSE;
    for (guint64 at = 0; at < block->page_size; at += part) {
        Gather gather;
        gboolean good = gather_begin(&gather, sweep, block, MIN(part, block->page_size), errp);
        if (at == 0 && good) {
            mine = page_claim(block, page);
        }
        good = good && (!mine || gather_copy(&gather, (PageKind)kind, begin + at,
                                             MIN(part, block->page_size - at), errp));
        if (good && mine && at + part >= block->page_size) {
            good = release_claimed(&gather, page, 1, &mine, errp);
        }
        gather_end(&gather, good);
        if (!good || !mine) {
            return good;
        }
    }
    return TRUE;
}

static gboolean sweep_region(Sweep *sweep, GuestBlock *block, guint64 region, GError **errp)
{
    guint64 first;
    guint64 count = region_get_pages(block, region, &first);
    guint64 end = first + count;

    while (first < end) {
        /* Chunks end at multiples of their size in QEMU's address space (huge pages). */
        guint64 misplaced = (block->host / block->page_size + first) % block->chunk_pages;
        guint64 chunk = MIN(block->chunk_pages - misplaced, end - first);
        if (!(block->hugetlb ? sweep_huge_page(sweep, block, first, errp)
                             : sweep_chunk(sweep, block, first, chunk, errp))) {
            return FALSE;
        }
        first += chunk;
    }
    return TRUE;
}

static gboolean region_is_saved(GuestBlock *block, guint64 region)
{
    guint64 first;
    guint64 count = region_get_pages(block, region, &first);
    guint64 end = first + count;

    while (first < end && page_state(block, first) == PAGE_SAVED) {
        first++;
    }
    return first == end;
}

/*
 * Notes that a region is done; a fault thread may still be copying in it, then nothing is said.
 *
 * In shared memory the kernel takes the write permission from every entry when a range is
 * unregistered (change_protection with the page protection of a tracked mapping), and each page's
 * next write is a minor fault. It does the same when it releases a page. To be paid once, a region
 * is unregistered right after its release. A mapping is split by it until the neighbours follow;
 * the number of mappings is limited, so that very large blocks are left to the end. So are huge
 * pages, whose mappings would stay split.
 */
static void finish_region(Sweep *sweep, GuestBlock *block, guint64 region)
{
    if (!region_is_saved(block, region)) {
        return;
    }
    atomic_store_explicit(&block->region_saved_ns[region], clock_now_ns(), memory_order_release);
    if (block->shared && !block->hugetlb && block->regions <= SPLIT_REGIONS_MAX) {
        write_tracking_unregister_region(sweep->tracking, block, region);
    }
}

/* A region of a block that is still to be swept. */
typedef struct Place {
    GuestBlock *block;
    guint64 region;
} Place;

static GArray *all_places(GuestRam *ram)
{
    GArray *places = g_array_new(FALSE, FALSE, sizeof(Place));

    for (guint i = 0; i < ram->blocks->len; i++) {
        GuestBlock *block = g_ptr_array_index(ram->blocks, i);
        for (guint64 region = 0; region < block->regions; region++) {
            Place place = { .block = block, .region = region };
            g_array_append_val(places, place);
        }
    }
    return places;
}

/* Takes out the place with the most faults, or where there are none at all the first. */
static Place take_hottest(GArray *places)
{
    guint best = 0;
    guint32 most = 0;

    for (guint i = 0; i < places->len; i++) {
        const Place *place = &g_array_index(places, Place, i);
        guint32 heat =
            atomic_load_explicit(&place->block->heat[place->region], memory_order_relaxed);
        if (heat > most) {
            most = heat;
            best = i;
        }
    }
    Place taken = g_array_index(places, Place, best);
    g_array_remove_index(places, best);
    return taken;
}

/*
 * The guest stands still at every first write to a page that is not saved yet. What it writes is
 * what it has written just before, so that is swept first, and it runs freely while the rest is.
 */
gboolean sweep_run(Sweep *sweep, GError **errp)
{
    g_autoptr(GArray) places = all_places(sweep->ram);

    while (places->len) {
        Place place = take_hottest(places);
        if (!sweep_region(sweep, place.block, place.region, errp)) {
            return FALSE;
        }
        finish_region(sweep, place.block, place.region);
    }
    return TRUE;
}
