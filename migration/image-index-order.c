/*
 * Runs by ascending page. They come in the order of the image, and of a page that is in several of
 * them the last one counts, as it does for who loads the image.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>

#include "image-index-impl.h"

/* The walk along the block's pages: of the runs that hold the present one, the last in the image.
 */
typedef struct Overlay {
    const IndexRun *runs; /* in the order of the image */
    const gsize *order;   /* by ascending first page */
    gsize n;
    gsize next;    /* in @order */
    GArray *heap;  /* gsize: runs that hold the present page, or end before it; the last on top */
    GArray *found; /* IndexRun */
    gsize from;    /* the run that the last one in @found is of */
} Overlay;

static int compare_first(const void *a, const void *b, void *user)
{
    const IndexRun *runs = user;
    guint64 first = runs[*(const gsize *)a].first;
    guint64 second = runs[*(const gsize *)b].first;

    return first < second ? -1 : first > second;
}

static gsize *heap_at(Overlay *overlay, guint i)
{
    return &g_array_index(overlay->heap, gsize, i);
}

static gboolean swap_if_below(Overlay *overlay, guint above, guint below)
{
    gsize *a = heap_at(overlay, above);
    gsize *b = heap_at(overlay, below);
    gsize kept = *a;

    if (*a >= *b) {
        return FALSE;
    }
    *a = *b;
    *b = kept;
    return TRUE;
}

static void heap_push(Overlay *overlay, gsize run)
{
    g_array_append_val(overlay->heap, run);
    for (guint i = overlay->heap->len - 1; i > 0 && swap_if_below(overlay, (i - 1) / 2, i);) {
        i = (i - 1) / 2;
    }
}

static void heap_pop(Overlay *overlay)
{
    guint i = 0;

    *heap_at(overlay, 0) = *heap_at(overlay, overlay->heap->len - 1);
    g_array_set_size(overlay->heap, overlay->heap->len - 1);
    while (2 * i + 1 < overlay->heap->len) {
        guint child = 2 * i + 1;
        if (child + 1 < overlay->heap->len &&
            *heap_at(overlay, child) < *heap_at(overlay, child + 1)) {
            child++;
        }
        if (!swap_if_below(overlay, i, child)) {
            break;
        }
        i = child;
    }
}

/* The part of a run from @first on, up to @end. */
static void add_part(Overlay *overlay, gsize number, guint64 first, guint64 end, guint64 stride)
{
    IndexRun *last = overlay->found->len
                         ? &g_array_index(overlay->found, IndexRun, overlay->found->len - 1)
                         : NULL;
    if (last && overlay->from == number && last->first + last->count == first) {
        last->count += end - first;
        return;
    }
    IndexRun run = overlay->runs[number];
    guint64 cut = first - run.first;
    run.first = first;
    run.count = end - first;
    run.place += cut * (run.kind == INDEX_HERE ? stride : 1);
    run.hashes += run.hashes ? cut * HASH128_BYTES : 0;
    g_array_append_val(overlay->found, run);
    overlay->from = number;
}

static void lay_over(Overlay *overlay, guint64 stride)
{
    guint64 page = 0;

    while (overlay->heap->len || overlay->next < overlay->n) {
        if (!overlay->heap->len) {
            page = overlay->runs[overlay->order[overlay->next]].first;
        }
        while (overlay->next < overlay->n &&
               overlay->runs[overlay->order[overlay->next]].first <= page) {
            heap_push(overlay, overlay->order[overlay->next++]);
        }
        const IndexRun *top = &overlay->runs[*heap_at(overlay, 0)];
        guint64 end = top->first + top->count;
        if (end <= page) {
            heap_pop(overlay);
            continue;
        }
        if (overlay->next < overlay->n) {
            end = MIN(end, overlay->runs[overlay->order[overlay->next]].first);
        }
        add_part(overlay, *heap_at(overlay, 0), page, end, stride);
        page = end;
    }
}

static gboolean is_ordered(const GArray *runs)
{
    for (guint i = 1; i < runs->len; i++) {
        const IndexRun *before = &g_array_index(runs, IndexRun, i - 1);
        if (g_array_index(runs, IndexRun, i).first < before->first + before->count) {
            return FALSE;
        }
    }
    return TRUE;
}

void index_settle_runs(IndexBlock *block, GArray *runs)
{
    g_autoptr(GArray) found = g_array_new(FALSE, FALSE, sizeof(IndexRun));

    if (!is_ordered(runs)) {
        g_autofree gsize *order = g_new(gsize, runs->len);
        g_autoptr(GArray) heap = g_array_new(FALSE, FALSE, sizeof(gsize));
        Overlay overlay = { .runs = (const IndexRun *)(void *)runs->data,
                            .order = order,
                            .n = runs->len,
                            .heap = heap,
                            .found = found };
        for (gsize i = 0; i < overlay.n; i++) {
            order[i] = i;
        }
        qsort_r(order, overlay.n, sizeof(*order), compare_first, runs->data);
        lay_over(&overlay, block->stride);
        runs = found;
    }
    gsize n;
    block->runs = g_array_steal(runs, &n);
    block->n_runs = n;
}
