/*
 * The guest's memory as the engine sees it from outside: the RAM blocks, the state of each of
 * their pages, and how their bytes are read without changing anything in QEMU. Private to
 * migration/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <stdatomic.h>

#include "attach/proc.h"
#include "migration/image-writer.h"
#include "monitor/machine.h"

/*
 * A page goes PENDING -> CLAIMED -> SAVED. A fault thread that moves it to CLAIMED copies it,
 * alone. The sweep writes pages that are pending and then moves those that still are to SAVED at
 * once. Its write protection is removed only after that.
 */
typedef enum { PAGE_PENDING, PAGE_CLAIMED, PAGE_SAVED } PageState;

/* What stands behind a page, and so how it is read. */
typedef enum {
    PAGE_KIND_ZERO,   /* a hole, or the shared zero page: known to be zero without reading */
    PAGE_KIND_MEMORY, /* read through QEMU's mapping */
    PAGE_KIND_FILE,   /* read from the file behind the mapping */
} PageKind;

/* Normal pages are released in groups while pre-arming: one fault then stands for its neighbours.
 */
#define TOUCH_GROUP_PAGES 16

/* The sweep goes by regions of this size, the one with the most faults first. */
#define REGION_SIZE (16ULL << 20)

typedef struct GuestBlock {
    char *name;
    guint index;       /* in GuestRam.blocks and in the image's head */
    guint64 host;      /* address in QEMU */
    guint64 length;    /* bytes captured: used_length */
    guint64 page_size; /* protected and released only as a whole */
    guint64 pages;
    guint64 chunk_pages;   /* how many the sweep releases at once */
    _Atomic guint8 *state; /* PageState of each page */
    guint64 group_pages;   /* pages that one bit of "touched" stands for */
    guint64 groups;
    _Atomic guint64 *touched; /* bitmap of groups released since they were armed */
    /*
     * Groups that QEMU gave back before T0. We hear of it before it happens, so that a pass can arm
     * a page whose entry, protection and all, is dropped right after: they wait for the freeze.
     */
    _Atomic guint64 *given_back;
    guint64 region_pages;
    guint64 regions;
    _Atomic guint32 *heat; /* write faults of each region, before T0 and after */
    /* When all pages of a region were saved, CLOCK_MONOTONIC; 0 = not yet, or not known. */
    _Atomic guint64 *region_saved_ns;
    gboolean *region_tracked; /* registered with our userfaultfd; of the snapshot thread */
    gboolean shared;          /* MAP_SHARED: the file is the memory */
    gboolean nameless;        /* shared anonymous memory: QEMU has no descriptor to punch */
    gboolean hugetlb;
    int file;            /* of the mapping, -1 for anonymous memory */
    guint64 file_offset; /* of the block's first byte */
    /*
     * Bitmap of the pages that had content in their file when they were last armed, and so have at
     * T0; for huge pages, in QEMU's mapping. Of the snapshot thread, read by all after T0. NULL
     * where there is no file.
     */
    guint64 *present;
    guint8 *witness; /* our own mapping of the file, see guest-present.c; may be NULL */
} GuestBlock;

typedef struct GuestRam {
    pid_t pid;
    int pagemap;       /* /proc/PID/pagemap */
    int own_pagemap;   /* /proc/self/pagemap */
    GPtrArray *blocks; /* GuestBlock, by ascending host address */
    guint64 bytes;
    guint64 pages; /* sum over the blocks, each in its own page size */
} GuestRam;

/*
 * Takes the blocks that have an address. @maps is QEMU's memory map. SF_ERROR_UNSUPPORTED where a
 * block that a VM writes to has no known address.
 */
GuestRam *guest_ram_new(pid_t pid, GPtrArray *ram_blocks, GPtrArray *maps, guint *skipped,
                        GError **errp);
void guest_ram_free(GuestRam *ram);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(GuestRam, guest_ram_free)

/* Before anything is armed: what guest_block_note_present() will need. */
gboolean guest_block_prepare_present(GuestBlock *block, GError **errp);
/*
 * Notes which of the pages have content; they have just been armed. Those of 4 KiB that are known
 * to have it are looked at again only with @anew. Snapshot thread, until T0.
 */
gboolean guest_block_note_present(GuestRam *ram, GuestBlock *block, guint64 first, guint64 count,
                                  gboolean anew, GError **errp);
/*
 * After T0, when @length bytes at @offset were read in the way @kind and while they are still
 * protected: FALSE when a page of them has been given back since it was armed, so that what was
 * read are not the bytes of T0. Allocates nothing. Any thread.
 */
gboolean guest_block_check_kept(GuestRam *ram, GuestBlock *block, PageKind kind, guint64 offset,
                                const void *data, gsize length, GError **errp);
/* The error for that; always FALSE. */
gboolean guest_block_given_back(GuestBlock *block, GError **errp);

static inline gboolean page_was_present(GuestBlock *block, guint64 page)
{
    return block->present && ((block->present[page / 64] >> (page % 64)) & 1);
}

/* The block that holds a host address, or NULL. */
GuestBlock *guest_ram_find(GuestRam *ram, guint64 address);

/* The most pages that one guest_block_scan() takes. */
#define SCAN_PAGES_MAX 512

/*
 * Fills kind[0..count) for the pages from @first on; count <= SCAN_PAGES_MAX. Call it only while
 * the pages are protected or saved: then a hole stays a hole until somebody claims it. One thread.
 */
gboolean guest_block_scan(GuestRam *ram, GuestBlock *block, guint64 first, guint64 count,
                          guint8 *kind, GError **errp);

/*
 * Copies @length bytes at @offset of the block to @to. Takes no lock, allocates nothing.
 * SF_ERROR_VM_GONE when QEMU or this part of its memory has gone.
 */
gboolean guest_block_read(GuestRam *ram, GuestBlock *block, PageKind kind, guint64 offset, void *to,
                          gsize length, GError **errp);

/*
 * Reads one byte of each page of the range that has no page-table entry, so that there is one to
 * protect (kernels before 6.4, anonymous memory).
 */
gboolean guest_block_populate(GuestRam *ram, GuestBlock *block, guint64 first, guint64 count,
                              GError **errp);

static inline gboolean page_claim(GuestBlock *block, guint64 page)
{
    guint8 expected = PAGE_PENDING;
    return atomic_compare_exchange_strong_explicit(&block->state[page], &expected, PAGE_CLAIMED,
                                                   memory_order_acq_rel, memory_order_acquire);
}

/* PENDING -> SAVED; FALSE where a fault thread has claimed it. */
static inline gboolean page_take(GuestBlock *block, guint64 page)
{
    guint8 expected = PAGE_PENDING;
    return atomic_compare_exchange_strong_explicit(&block->state[page], &expected, PAGE_SAVED,
                                                   memory_order_acq_rel, memory_order_acquire);
}

static inline PageState page_state(GuestBlock *block, guint64 page)
{
    return (PageState)atomic_load_explicit(&block->state[page], memory_order_acquire);
}

static inline void page_add_heat(GuestBlock *block, guint64 page)
{
    atomic_fetch_add_explicit(&block->heat[page / block->region_pages], 1, memory_order_relaxed);
}

/* Sets the bit of the page's group in @bitmap (touched, given_back). */
static inline void page_note_group(GuestBlock *block, _Atomic guint64 *bitmap, guint64 page)
{
    guint64 group = page / block->group_pages;

    atomic_fetch_or_explicit(&bitmap[group / 64], 1ULL << (group % 64), memory_order_release);
}

/* The pages of a region: *first, and their number as the result. */
static inline guint64 region_get_pages(GuestBlock *block, guint64 region, guint64 *first)
{
    *first = region * block->region_pages;
    return MIN(block->region_pages, block->pages - *first);
}

static inline void page_set_saved(GuestBlock *block, guint64 page)
{
    atomic_store_explicit(&block->state[page], PAGE_SAVED, memory_order_release);
}
