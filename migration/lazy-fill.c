/*
 * The thread that brings what nobody has asked for yet: first what the snapshot found hot, then in
 * order.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>

#include "lazy-impl.h"

/* Where the image does not tell what was hot. */
#define REGION (16ULL << 20)
#define AGAIN_US 200
#define LIMIT_STEP_US 2000

typedef struct FillRegion {
    LazyBlock *block;
    guint64 first; /* page */
    guint64 count;
    guint32 heat;
    guint order;
} FillRegion;

static gint hottest_first(gconstpointer a, gconstpointer b)
{
    const FillRegion *left = a, *right = b;

    if (left->heat != right->heat) {
        return left->heat > right->heat ? -1 : 1;
    }
    return left->order < right->order ? -1 : 1;
}

static void add_regions(GArray *regions, LazyBlock *block)
{
    const IndexBlock *index = block->places->index;
    guint64 unit = index && index->heat_unit >= block->page_size ? index->heat_unit : REGION;
    guint64 step = MAX(unit / block->page_size, 1ULL);

    for (guint64 first = 0; first < block->pages; first += step) {
        guint64 at = first / step;
        FillRegion region = { .block = block,
                              .first = first,
                              .count = MIN(step, block->pages - first),
                              .heat = index && at < index->n_heat ? index->heat[at] : 0,
                              .order = regions->len };
        g_array_append_val(regions, region);
    }
}

/* What is there already counts as done: a server before this one may have brought it. */
static void count_bytes(LazyService *service)
{
    guint64 total = 0, there = 0;

    for (guint i = 0; i < service->n_blocks; i++) {
        LazyBlock *block = &service->blocks[i];
        for (guint64 page = 0; page < block->pages; page++) {
            if (!lazy_page_is_zero(service, block, page)) {
                total += block->page_size;
                there += block->state[page] == LAZY_TODO ? 0 : block->page_size;
            }
        }
    }
    /* Not what was counted one by one since: this is the whole. */
    atomic_store(&service->done, there);
    atomic_store(&service->total, total);
}

static void hold_back(LazyService *service, gint64 began, guint64 bytes)
{
    while (service->max_bandwidth && !atomic_load(&service->stopping)) {
        double allowed = (double)service->max_bandwidth * (double)(g_get_monotonic_time() - began) /
                         G_USEC_PER_SEC;
        if ((double)bytes <= allowed) {
            return;
        }
        g_usleep(LIMIT_STEP_US);
    }
}

/* A run that was loaded; FALSE when there is no sense in going on. */
static gboolean put_run(LazyService *service, LazyBlock *block, guint64 first, guint64 loaded,
                        const LazyBuffer *buffer)
{
    while (loaded && !atomic_load(&service->stopping)) {
        g_mutex_lock(&service->lock);
        /* Faults may have been here meanwhile; what they brought is passed over. */
        guint64 count = lazy_missing_run(service, block, first, loaded);
        int err = count ? lazy_put(service, block, first, count, buffer->data) : 0;
        g_mutex_unlock(&service->lock);
        if (err == 0) {
            return TRUE;
        }
        if (lazy_put_failed(service, block, err)) {
            return FALSE;
        }
        g_usleep(AGAIN_US); /* the fault thread reads the event */
    }
    return TRUE;
}

static gboolean fill_region(LazyService *service, const FillRegion *region, LazyBuffer *buffer,
                            gint64 began, guint64 *bytes)
{
    LazyBlock *block = region->block;
    guint64 most = MAX(FILL_RUN / block->page_size, 1ULL);
    guint64 end = region->first + region->count;

    for (guint64 page = region->first; page < end && !atomic_load(&service->stopping);) {
        GError *error = NULL;
        guint64 count = lazy_missing_run(service, block, page, MIN(most, end - page));
        if (!count) {
            page++;
            continue;
        }
        if (!lazy_load(service, block, page, count, buffer, &error)) {
            lazy_service_fail(service, error);
            return FALSE;
        }
        if (!put_run(service, block, page, count, buffer)) {
            return FALSE;
        }
        *bytes += count * block->page_size;
        hold_back(service, began, *bytes);
        /* Again from here: what comes first decides whether any page of it is still missing. */
    }
    return !atomic_load(&service->stopping);
}

static gboolean fill_all(LazyService *service, GArray *regions, LazyBuffer *buffer)
{
    gint64 began = g_get_monotonic_time();
    guint64 bytes = 0;

    for (guint i = 0; i < regions->len; i++) {
        if (!fill_region(service, &g_array_index(regions, FillRegion, i), buffer, began, &bytes)) {
            return FALSE;
        }
    }
    return TRUE;
}

gpointer lazy_fill_thread(gpointer data)
{
    LazyService *service = data;
    g_autoptr(GArray) regions = g_array_new(FALSE, FALSE, sizeof(FillRegion));
    LazyBuffer buffer;
    GError *error = NULL;

    if (!lazy_buffer_init(&buffer, service, FILL_RUN, &error)) {
        lazy_service_fail(service, error);
        return NULL;
    }
    g_mutex_lock(&service->lock);
    count_bytes(service);
    g_mutex_unlock(&service->lock);
    for (guint i = 0; i < service->n_blocks; i++) {
        add_regions(regions, &service->blocks[i]);
    }
    g_array_sort(regions, hottest_first);
    if (fill_all(service, regions, &buffer)) {
        lazy_service_set_status(service, LAZY_COMPLETE);
    }
    lazy_buffer_clear(&buffer);
    return NULL;
}
