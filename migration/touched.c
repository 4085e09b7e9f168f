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
/* A pass that arms no more than this leaves about 0.1 ms of arming to the freeze. */
#define FEW_RANGES 32
#define PASSES_MAX 8

/* Without the feature, anonymous memory can be protected only where there is an entry. */
static gboolean needs_entries(const WriteTracking *tracking, const GuestBlock *block)
{
    return !tracking->unpopulated && block->file < 0;
}

static gboolean arm_block(GuestRam *ram, WriteTracking *tracking, GuestBlock *block,
                          KeepGoing keep_going, gpointer user, GError **errp)
{
    guint64 step = MAX(ARM_PIECE / block->page_size, 1ULL);

    for (guint64 first = 0; first < block->pages; first += step) {
        guint64 count = MIN(step, block->pages - first);
        if (!keep_going(user, errp)) {
            return FALSE;
        }
        if (needs_entries(tracking, block) &&
            !guest_block_populate(ram, block, first, count, errp)) {
            return FALSE;
        }
        if (!write_tracking_arm(tracking, block, first, count, errp)) {
            return FALSE;
        }
    }
    /* Once over the whole: the kernel walks to the end of an extent to say where that is. */
    return guest_block_note_present(ram, block, 0, block->pages, TRUE, errp);
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

static guint64 mask_in_word(guint64 word, guint64 first, guint64 end)
{
    guint64 low = MAX(first, word * 64) - word * 64;
    guint64 high = MIN(end, word * 64 + 64) - word * 64;
    return (high - low == 64 ? ~0ULL : (1ULL << (high - low)) - 1) << low;
}

static void clear_groups(GuestBlock *block, guint64 first, guint64 end)
{
    for (guint64 word = first / 64; word * 64 < end; word++) {
        atomic_fetch_and_explicit(&block->touched[word], ~mask_in_word(word, first, end),
                                  memory_order_acq_rel);
    }
}

static void set_groups(GuestBlock *block, guint64 first, guint64 end)
{
    for (guint64 word = first / 64; word * 64 < end; word++) {
        atomic_fetch_or_explicit(&block->touched[word], mask_in_word(word, first, end),
                                 memory_order_acq_rel);
    }
}

/* A run of touched groups, as pages. */
typedef struct Run {
    GuestBlock *block;
    guint64 group, end_group;
    guint64 first, count;
} Run;

static gboolean next_run(GuestBlock *block, guint64 from_group, Run *run)
{
    guint64 group = next_touched(block, from_group);

    if (group >= block->groups) {
        return FALSE;
    }
    run->block = block;
    run->group = group;
    run->end_group = run_end(block, group);
    run->first = group * block->group_pages;
    run->count = MIN(run->end_group * block->group_pages, block->pages) - run->first;
    return TRUE;
}

/*
 * The bits go first: a fault thread sets its bit after its release, so whatever is released behind
 * our back has its bit set behind our back as well, and a later pass finds it.
 */
static gboolean arm_pass_block(GuestRam *ram, WriteTracking *tracking, GuestBlock *block,
                               KeepGoing keep_going, gpointer user, guint64 *ranges, GError **errp)
{
    Run run = { .end_group = 0 };

    while (next_run(block, run.end_group, &run)) {
        if (!keep_going(user, errp)) {
            return FALSE;
        }
        clear_groups(block, run.group, run.end_group);
        if (!write_tracking_arm(tracking, block, run.first, run.count, errp) ||
            !guest_block_note_present(ram, block, run.first, run.count, FALSE, errp)) {
            return FALSE;
        }
        *ranges += 1;
    }
    return TRUE;
}

gboolean arm_touched_until_few(GuestRam *ram, WriteTracking *tracking, KeepGoing keep_going,
                               gpointer user, guint *passes, GError **errp)
{
    guint64 before = G_MAXUINT64;

    for (*passes = 0; *passes < PASSES_MAX;) {
        guint64 ranges = 0;
        for (guint i = 0; i < ram->blocks->len; i++) {
            if (!arm_pass_block(ram, tracking, g_ptr_array_index(ram->blocks, i), keep_going, user,
                                &ranges, errp)) {
                return FALSE;
            }
        }
        *passes += 1;
        if (ranges <= FEW_RANGES || ranges >= before) {
            return TRUE;
        }
        before = ranges;
    }
    return TRUE;
}

/*
 * EAGAIN says that QEMU is giving memory back and waits for the event to be read: let the fault
 * threads read it. What they note meanwhile is in the map, and the run stays there.
 */
static gboolean arm_run_in_freeze(GuestRam *ram, WriteTracking *tracking, FaultService *service,
                                  const Run *run, gboolean *again, GError **errp)
{
    GuestBlock *block = run->block;

    if (needs_entries(tracking, block) && fault_service_saw_remove(service) &&
        !guest_block_populate(ram, block, run->first, run->count, errp)) {
        return FALSE;
    }
    clear_groups(block, run->group, run->end_group);
    int ret = write_tracking_try_arm(tracking, block, run->first, run->count);
    if (ret == -EAGAIN) {
        *again = TRUE;
        set_groups(block, run->group, run->end_group);
        fault_service_unlock(service);
        g_usleep(50);
        fault_service_lock(service);
        return TRUE;
    }
    if (ret != 0) {
        return write_tracking_error(ret, block, errp);
    }
    return guest_block_note_present(ram, block, run->first, run->count,
                                    fault_service_saw_remove(service), errp);
}

static void add_given_back(GuestBlock *block)
{
    for (guint64 word = 0; word * 64 < block->groups; word++) {
        atomic_fetch_or_explicit(
            &block->touched[word],
            atomic_load_explicit(&block->given_back[word], memory_order_acquire),
            memory_order_acq_rel);
    }
}

/* One round over all blocks. *again: a run had to be put off, so it takes another round. */
static gboolean freeze_round(GuestRam *ram, WriteTracking *tracking, FaultService *service,
                             guint64 *pages, guint64 *ranges, gboolean *again, GError **errp)
{
    for (guint i = 0; i < ram->blocks->len; i++) {
        Run run = { .end_group = 0 };
        while (next_run(g_ptr_array_index(ram->blocks, i), run.end_group, &run)) {
            if (!arm_run_in_freeze(ram, tracking, service, &run, again, errp)) {
                return FALSE;
            }
            *pages += run.count;
            *ranges += 1;
        }
    }
    return TRUE;
}

gboolean arm_touched_in_freeze(GuestRam *ram, WriteTracking *tracking, FaultService *service,
                               guint64 *pages, guint64 *ranges, GError **errp)
{
    gboolean again;

    do {
        again = FALSE;
        /* In each round: while one was put off, more may have been given back. */
        for (guint i = 0; i < ram->blocks->len; i++) {
            add_given_back(g_ptr_array_index(ram->blocks, i));
        }
        if (!freeze_round(ram, tracking, service, pages, ranges, &again, errp)) {
            return FALSE;
        }
    } while (again);
    return TRUE;
}
