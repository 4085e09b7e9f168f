/*
 * Arming, and arming again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "touched.h"

#include <errno.h>

/* Armed at once: a piece takes about a millisecond of 4 KiB pages, so that a cancel is heard. */
#define ARM_PIECE (64ULL << 20)
/*
 * Two touched runs with fewer clean groups than this between them are armed in one call: walking
 * over armed entries is cheaper than another call with its TLB flush.
 */
#define MERGE_GROUPS 4

static gboolean arm_block(GuestRam *ram, WriteTracking *tracking, GuestBlock *block,
                          KeepGoing keep_going, gpointer user, GError **errp)
{
    guint64 step = MAX(ARM_PIECE / block->page_size, 1ULL);

    for (guint64 first = 0; first < block->pages; first += step) {
        guint64 count = MIN(step, block->pages - first);
        if (!keep_going(user, errp)) {
            return FALSE;
        }
        /* Without the feature, anonymous memory can be protected only where there is an entry. */
        if (!tracking->unpopulated && block->file < 0 &&
            !guest_block_populate(ram, block, first, count, errp)) {
            return FALSE;
        }
        if (!write_tracking_arm(tracking, block, first, count, errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

gboolean arm_all(GuestRam *ram, WriteTracking *tracking, KeepGoing keep_going, gpointer user,
                 GError **errp)
{
    for (guint i = 0; i < ram->blocks->len; i++) {
        if (!write_tracking_register(tracking, g_ptr_array_index(ram->blocks, i), errp)) {
            return FALSE;
        }
    }
    for (guint i = 0; i < ram->blocks->len; i++) {
        if (!arm_block(ram, tracking, g_ptr_array_index(ram->blocks, i), keep_going, user, errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean group_is_touched(GuestBlock *block, guint64 group)
{
    return (atomic_load_explicit(&block->touched[group / 64], memory_order_acquire) >>
            (group % 64)) &
           1;
}

/* The first touched group at or behind @group, or block->groups. Skips clean words whole. */
static guint64 next_touched(GuestBlock *block, guint64 group)
{
    while (group < block->groups) {
        guint64 word = atomic_load_explicit(&block->touched[group / 64], memory_order_acquire);
        word &= ~0ULL << (group % 64);
        if (word) {
            return group / 64 * 64 + (guint64)__builtin_ctzll(word);
        }
        group = (group / 64 + 1) * 64;
    }
    return block->groups;
}

/* The end of the run that begins at @group, small gaps included. */
static guint64 run_end(GuestBlock *block, guint64 group)
{
    for (;;) {
        while (group < block->groups && group_is_touched(block, group)) {
            group++;
        }
        guint64 next = next_touched(block, group);
        if (next >= block->groups || next - group >= MERGE_GROUPS) {
            return group;
        }
        group = next;
    }
}

/*
 * EAGAIN says that QEMU is giving memory back and waits for the event to be read: let the fault
 * threads read it. What they note meanwhile is in the map for the next round.
 */
static gboolean arm_run(GuestRam *ram, WriteTracking *tracking, FaultService *service,
                        GuestBlock *block, guint64 first, guint64 count, gboolean *again,
                        GError **errp)
{
    if (!tracking->unpopulated && block->file < 0 && fault_service_saw_remove(service) &&
        !guest_block_populate(ram, block, first, count, errp)) {
        return FALSE;
    }
    int ret = write_tracking_try_arm(tracking, block, first, count);
    if (ret == -EAGAIN) {
        *again = TRUE;
        fault_service_unlock(service);
        g_usleep(50);
        fault_service_lock(service);
        return TRUE;
    }
    return ret == 0 || write_tracking_error(ret, block, errp);
}

static gboolean arm_touched_block(GuestRam *ram, WriteTracking *tracking, FaultService *service,
                                  GuestBlock *block, guint64 *pages, guint64 *ranges, GError **errp)
{
    for (guint64 group = next_touched(block, 0); group < block->groups;) {
        guint64 end = run_end(block, group);
        guint64 first = group * block->group_pages;
        guint64 count = MIN(end * block->group_pages, block->pages) - first;
        gboolean again = FALSE;

        if (!arm_run(ram, tracking, service, block, first, count, &again, errp)) {
            return FALSE;
        }
        if (again) {
            continue;
        }
        *pages += count;
        *ranges += 1;
        group = next_touched(block, end);
    }
    return TRUE;
}

gboolean arm_touched(GuestRam *ram, WriteTracking *tracking, FaultService *service, guint64 *pages,
                     guint64 *ranges, GError **errp)
{
    for (guint i = 0; i < ram->blocks->len; i++) {
        if (!arm_touched_block(ram, tracking, service, g_ptr_array_index(ram->blocks, i), pages,
                               ranges, errp)) {
            return FALSE;
        }
    }
    return TRUE;
}
