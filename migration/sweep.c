/*
 * The walk over all regions, and its thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <sys/mman.h>

#include "clock.h"
#include "sweep-impl.h"

/* vm.max_map_count is 65530 where nobody changed it. */
#define SPLIT_REGIONS_MAX 4096
#define THROTTLE_STEP_US 2000

static gboolean should_go_on(Sweep *sweep)
{
    return !sweep->detached && !outcome_has_failed(sweep->outcome);
}

/* Faulted pages are written meanwhile. */
static gboolean wait_for_throttle(Sweep *sweep, GError **errp)
{
    while (should_go_on(sweep) && throttle_holds(&sweep->throttle)) {
        if (!output_slots(sweep->output, errp)) {
            return FALSE;
        }
        g_usleep(THROTTLE_STEP_US);
    }
    return TRUE;
}

static gboolean sweep_region(Sweep *sweep, GuestBlock *block, guint64 region, GError **errp)
{
    guint64 first;
    guint64 count = region_get_pages(block, region, &first);
    guint64 end = first + count;

    guest_window_open(sweep->window, block, first, count);
    while (first < end && should_go_on(sweep)) {
        /* Chunks end at multiples of their size in QEMU's address space (huge pages). */
        guint64 misplaced = (block->host / block->page_size + first) % block->chunk_pages;
        guint64 chunk = MIN(block->chunk_pages - misplaced, end - first);
        if (!wait_for_throttle(sweep, errp) ||
            !(block->hugetlb ? sweep_huge_page(sweep, block, first, errp)
                             : sweep_pages(sweep, block, first, chunk, errp))) {
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
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&sweep->tracking_lock);

    if (sweep->detached || !region_is_saved(block, region)) {
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
static gboolean walk(Sweep *sweep, GError **errp)
{
    g_autoptr(GArray) places = all_places(sweep->ram);

    while (places->len && should_go_on(sweep)) {
        Place place = take_hottest(places);
        if (!sweep_region(sweep, place.block, place.region, errp)) {
            return FALSE;
        }
        finish_region(sweep, place.block, place.region);
    }
    return TRUE;
}

static void tell_walked(Sweep *sweep)
{
    g_mutex_lock(&sweep->lock);
    sweep->walked = TRUE;
    g_cond_signal(&sweep->walked_cond);
    g_mutex_unlock(&sweep->lock);
}

static gpointer sweep_thread(gpointer data)
{
    Sweep *sweep = data;
    GError *error = NULL;

    gboolean good = walk(sweep, &error);
    if (!good) {
        outcome_fail(sweep->outcome, error);
    }
    tell_walked(sweep);
    if (good && !output_slots_to_the_end(sweep->output, &error)) {
        outcome_fail(sweep->outcome, error);
    }
    atomic_store_explicit(&sweep->done, TRUE, memory_order_release);
    return NULL;
}

static void sweep_free(Sweep *sweep)
{
    guest_window_free(sweep->window);
    if (sweep->buffer) {
        munmap(sweep->buffer, SWEEP_BUFFER_SIZE);
    }
    g_mutex_clear(&sweep->tracking_lock);
    g_mutex_clear(&sweep->lock);
    g_cond_clear(&sweep->walked_cond);
    g_free(sweep);
}

Sweep *sweep_start(GuestRam *ram, WriteTracking *tracking, Output *output, Throttle throttle,
                   Outcome *outcome, GError **errp)
{
    Sweep *sweep = g_new0(Sweep, 1);

    sweep->ram = ram;
    sweep->tracking = tracking;
    sweep->output = output;
    sweep->throttle = throttle;
    sweep->outcome = outcome;
    g_mutex_init(&sweep->tracking_lock);
    g_mutex_init(&sweep->lock);
    g_cond_init(&sweep->walked_cond);
    sweep->buffer =
        mmap(NULL, SWEEP_BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (sweep->buffer == MAP_FAILED) {
        sweep->buffer = NULL;
        sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "no memory for the sweep's buffer");
        sweep_free(sweep);
        return NULL;
    }
    sweep->window = guest_window_new();
    sweep->thread = g_thread_try_new("sf-sweep", sweep_thread, sweep, errp);
    if (!sweep->thread) {
        sweep_free(sweep);
        return NULL;
    }
    return sweep;
}

gboolean sweep_wait(Sweep *sweep, guint timeout_ms)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&sweep->lock);
    gint64 deadline = g_get_monotonic_time() + (gint64)timeout_ms * 1000;

    while (!sweep->walked) {
        if (!g_cond_wait_until(&sweep->walked_cond, &sweep->lock, deadline)) {
            return sweep->walked;
        }
    }
    return TRUE;
}

guint64 sweep_get_pages(Sweep *sweep)
{
    return atomic_load_explicit(&sweep->pages_saved, memory_order_acquire);
}

gboolean sweep_is_done(Sweep *sweep)
{
    return atomic_load_explicit(&sweep->done, memory_order_acquire);
}

void sweep_detach(Sweep *sweep)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&sweep->tracking_lock);
    sweep->detached = TRUE;
}

void sweep_stop(Sweep *sweep)
{
    g_thread_join(sweep->thread);
    sweep_free(sweep);
}
