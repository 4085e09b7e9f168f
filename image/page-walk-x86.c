/*
 * Walking the page tables of an x86-64 guest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "image/page-walk-x86.h"

#define CR0_PG (1ULL << 31)
#define CR4_LA57 (1ULL << 12)
#define EFER_LMA (1ULL << 10)
/* Linux with page table isolation has the kernel's own table one page below the user's. */
#define CR3_PTI_USER (1ULL << 12)
#define ENTRY_PRESENT 1ULL
#define ENTRY_LARGE (1ULL << 7)
#define ENTRY_ADDRESS 0x000ffffffffff000ULL
#define ENTRIES 512
/*
 * Tables that are looked at: enough for 4 TiB in pages of 4 KiB. Tables that point to themselves
 * (Windows has one such entry) would go on for ever.
 */
#define TABLES_MAX (2U * 1024 * 1024)

typedef struct PageWalk {
    const GuestPages *pages;
    const GArray *ranges;
    GArray *found;
    guint most;
    guint tables; /* left to look at */
    guint64 mapped;
} PageWalk;

static guint64 canonical(guint64 address, guint bits)
{
    return address >> (bits - 1) & 1 ? address | ~((1ULL << bits) - 1) : address;
}

/* Adds RAM of one entry, joined to the range before where it goes on. */
static void add_mapping(PageWalk *walk, guint64 address, guint64 physical, guint64 length)
{
    while (length) {
        const GuestRange *ram = guest_layout_find(walk->ranges, physical);
        /* Around devices and the PCI hole a large page may be RAM in part. */
        guint64 step = ram ? MIN(length, ram->length - (physical - ram->address)) : 4096;
        VirtualRange *last = walk->found->len
                                 ? &g_array_index(walk->found, VirtualRange, walk->found->len - 1)
                                 : NULL;
        step = MIN(step, length);
        if (ram && last && last->address + last->length == address &&
            last->physical + last->length == physical) {
            last->length += step;
            walk->mapped += step;
        } else if (ram && walk->found->len < walk->most) {
            VirtualRange range = { address, physical, step };
            g_array_append_val(walk->found, range);
            walk->mapped += step;
        }
        if (!ram && length > (1U << 21)) {
            return; /* a large page of a device */
        }
        address += step;
        physical += step;
        length -= step;
    }
}

/* The entries @first to @last of the table of level @level (1: entries are pages) at @table. */
static void walk_table(PageWalk *walk, guint64 table, guint level, guint64 address, guint first,
                       guint last, guint bits)
{
    guint64 entries[ENTRIES];
    guint shift = 12 + 9 * (level - 1);

    if (!walk->tables ||
        !guest_pages_read(walk->pages, walk->ranges, table, entries, sizeof(entries))) {
        return;
    }
    walk->tables--;
    for (guint i = first; i <= last && walk->found->len < walk->most; i++) {
        guint64 entry = GUINT64_FROM_LE(entries[i]);
        guint64 target = entry & ENTRY_ADDRESS;
        guint64 here = canonical(address | (guint64)i << shift, bits);
        if (!(entry & ENTRY_PRESENT)) {
            continue;
        }
        if (level == 1 || (entry & ENTRY_LARGE && level <= 3)) {
            add_mapping(walk, here, target & ~((1ULL << shift) - 1), 1ULL << shift);
        } else {
            walk_table(walk, target, level - 1, here, 0, ENTRIES - 1, bits);
        }
    }
}

static void walk_half(PageWalk *walk, const X86Cpu *cpu, guint64 cr3, gboolean upper)
{
    guint levels = cpu->cr[4] & CR4_LA57 ? 5 : 4;
    guint first = upper ? ENTRIES / 2 : 0;

    walk->found = g_array_new(FALSE, FALSE, sizeof(VirtualRange));
    walk->tables = TABLES_MAX;
    walk->mapped = 0;
    if (cpu->cr[0] & CR0_PG && cpu->efer & EFER_LMA) {
        walk_table(walk, cr3 & ENTRY_ADDRESS, levels, 0, first, first + ENTRIES / 2 - 1,
                   12 + 9 * levels);
    }
}

/* Takes what @walk found if it is more than what there is. */
static void keep_best(PageWalk *walk, GArray **best, guint64 *best_mapped)
{
    if (walk->mapped > *best_mapped) {
        g_array_unref(*best);
        *best = walk->found;
        *best_mapped = walk->mapped;
    } else {
        g_array_unref(walk->found);
    }
    walk->found = NULL;
}

GArray *x86_walk_pages(const GuestPages *pages, const GArray *ranges, const GArray *cpus,
                       guint most)
{
    PageWalk walk = { .pages = pages, .ranges = ranges, .most = most };
    GArray *best = g_array_new(FALSE, FALSE, sizeof(VirtualRange));
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
    guint64 best_mapped = 0;

    for (int upper = 1; upper >= 0 && !best_mapped; upper--) {
        g_hash_table_remove_all(seen);
        for (guint i = 0; i < 2 * cpus->len; i++) {
            const X86Cpu *cpu = &g_array_index(cpus, X86Cpu, i / 2);
            guint64 cr3 = i % 2 ? cpu->cr[3] & ~CR3_PTI_USER : cpu->cr[3];
            guint64 key = cr3 & ENTRY_ADDRESS;
            if (g_hash_table_add(seen, g_memdup2(&key, sizeof(key)))) {
                walk_half(&walk, cpu, cr3, upper);
                keep_best(&walk, &best, &best_mapped);
            }
        }
    }
    return best;
}
