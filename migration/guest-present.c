/*
 * Which pages had content at T0, and whether they still have it when they are copied. QEMU gives
 * memory on files back by punching a hole, and no event comes before the content has gone.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest-read.h"
#include "util/zero.h"

/* While the kernel moves a huge page elsewhere, its entry is away for a moment. */
#define MOVED_TRIES 20
#define MOVED_WAIT_US 1000

/*
 * Our own mapping of the file.
 *
 * Huge pages: hugetlbfs does not tell its holes, and in QEMU's page table a mere read fills the
 * hole again. So each page that QEMU has is mapped into our table as well, for reading. A punched
 * hole takes the page out of every table, and nobody puts it back into ours.
 *
 * Other pages: never touched, only for mincore(), which looks into the file's page cache for many
 * pages at once.
 */
static gboolean map_witness(GuestBlock *block, GError **errp)
{
    void *at = mmap(NULL, block->pages * block->page_size, PROT_READ, MAP_SHARED | MAP_NORESERVE,
                    block->file, (off_t)block->file_offset);

    if (at == MAP_FAILED) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno,
                                  "cannot map the memory file of RAM block %s", block->name);
    }
    block->witness = at;
    return TRUE;
}

/* To others than these mincore() says of every page that it is there (can_do_mincore()). */
static gboolean mincore_tells(GuestBlock *block)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", block->file);
    struct stat st;

    return (fstat(block->file, &st) == 0 && st.st_uid == geteuid()) ||
           faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0;
}

gboolean guest_block_prepare_present(GuestBlock *block, GError **errp)
{
    if (block->file < 0 && !block->hugetlb) {
        return TRUE;
    }
    block->present = g_malloc0_n((block->pages + 63) / 64, sizeof(guint64));
    gboolean wanted = block->hugetlb ? block->shared : mincore_tells(block);
    return !wanted || map_witness(block, errp);
}

static void assign(GuestBlock *block, guint64 page, gboolean present)
{
    guint64 bit = 1ULL << (page % 64);

    block->present[page / 64] =
        present ? block->present[page / 64] | bit : block->present[page / 64] & ~bit;
}

static gboolean is_mapped(GuestRam *ram, GuestBlock *block, gboolean own, guint64 page,
                          gboolean *mapped, GError **errp)
{
    guint64 base = own ? (guint64)(guintptr)block->witness : block->host;

    return guest_read_is_mapped(ram, own, base + page * block->page_size, mapped, errp);
}

static gboolean note_huge_page(GuestRam *ram, GuestBlock *block, guint64 page, GError **errp)
{
    gboolean mapped;

    if (!is_mapped(ram, block, FALSE, page, &mapped, errp)) {
        return FALSE;
    }
    assign(block, page, mapped);
    /* Not by touching it: where no page can be had, this is an error and no signal. */
    if (mapped && block->witness &&
        madvise(block->witness + page * block->page_size, block->page_size, MADV_POPULATE_READ) <
            0) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno,
                                  "cannot map the memory file of RAM block %s", block->name);
    }
    return TRUE;
}

/* The first page at or behind @page that begins data (SEEK_DATA) or a hole; else block->pages. */
static gboolean next_data(GuestBlock *block, guint64 page, int whence, guint64 *found,
                          GError **errp)
{
    off_t at = lseek(block->file, (off_t)(block->file_offset + page * block->page_size), whence);

    *found = block->pages;
    if (at < 0 && errno != ENXIO) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "looking for holes in RAM block %s",
                                  block->name);
    }
    if (at >= 0) {
        *found = MIN(((guint64)at - block->file_offset + block->page_size - 1) / block->page_size,
                     block->pages);
    }
    return TRUE;
}

/*
 * tmpfs knows its holes; swapped-out pages count as data. The kernel walks page by page to the end
 * of an extent to find it, so that is asked for only when all of the block is looked at.
 */
static gboolean note_file(GuestBlock *block, guint64 first, guint64 count, gboolean anew,
                          GError **errp)
{
    guint64 end = first + count, data = 0, hole = 0;

    for (guint64 page = first; page < end; page = hole) {
        hole = page + 1;
        if (!anew && page_was_present(block, page)) {
            continue;
        }
        if (!next_data(block, page, SEEK_DATA, &data, errp)) {
            return FALSE;
        }
        for (; page < MIN(data, end); page++) {
            /* What was there a moment ago, and is not looked at, stays noted. */
            if (anew) {
                assign(block, page, FALSE);
            }
        }
        hole = data + 1;
        if (data < end && count == block->pages &&
            !next_data(block, data, SEEK_HOLE, &hole, errp)) {
            return FALSE;
        }
        for (; page < MIN(hole, end); page++) {
            assign(block, page, TRUE);
        }
    }
    return TRUE;
}

gboolean guest_block_note_present(GuestRam *ram, GuestBlock *block, guint64 first, guint64 count,
                                  gboolean anew, GError **errp)
{
    if (!block->present) {
        return TRUE;
    }
    if (!block->hugetlb) {
        return note_file(block, first, count, anew, errp);
    }
    for (guint64 page = first; page < first + count; page++) {
        if (!note_huge_page(ram, block, page, errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

gboolean guest_block_given_back(GuestBlock *block, GError **errp)
{
    g_set_error(errp, SF_ERROR, SF_ERROR_FAILED,
                "the guest gave memory of RAM block %s back (balloon or free page reporting) while "
                "its snapshot was taken; deflate or switch off the balloon and try again",
                block->name);
    return FALSE;
}

static gboolean check_huge_page(GuestRam *ram, GuestBlock *block, guint64 page, GError **errp)
{
    for (guint tries = 0; tries < MOVED_TRIES; tries++) {
        gboolean mapped;
        if (!is_mapped(ram, block, block->witness != NULL, page, &mapped, errp)) {
            return FALSE;
        }
        if (mapped) {
            return TRUE;
        }
        g_usleep(MOVED_WAIT_US);
    }
    return guest_block_given_back(block, errp);
}

/* in_core[i]: the page is in its file for certain. Else it may be a hole, or swapped out. */
static void look_in_core(GuestBlock *block, guint64 first, guint64 count, guint8 *in_core)
{
    if (!block->witness || count == 1 ||
        mincore(block->witness + first * block->page_size, count * block->page_size, in_core) < 0) {
        memset(in_core, 0, count);
    }
}

/*
 * A page that was read from a hole is zero: only from the first such page on the file is asked, to
 * keep the sweep fast. A zero page that is still there was zero at T0.
 */
static gboolean check_file(GuestBlock *block, guint64 first, guint64 count, const guint8 *data,
                           GError **errp)
{
    guint8 in_core[SCAN_PAGES_MAX];
    gboolean looked = FALSE;

    g_assert(count <= SCAN_PAGES_MAX);
    for (guint64 i = 0; i < count; i++) {
        guint64 found = 0;
        if (!page_was_present(block, first + i) || (looked && (in_core[i] & 1)) ||
            !buffer_is_zero(data + i * block->page_size, block->page_size)) {
            continue;
        }
        if (!looked) {
            look_in_core(block, first + i, count - i, in_core + i);
            looked = TRUE;
            if (in_core[i] & 1) {
                continue;
            }
        }
        if (!next_data(block, first + i, SEEK_DATA, &found, errp)) {
            return FALSE;
        }
        if (found != first + i) {
            return guest_block_given_back(block, errp);
        }
    }
    return TRUE;
}

gboolean guest_block_check_kept(GuestRam *ram, GuestBlock *block, PageKind kind, guint64 offset,
                                const void *data, gsize length, GError **errp)
{
    guint64 page = offset / block->page_size;

    if (block->hugetlb) {
        return !page_was_present(block, page) || check_huge_page(ram, block, page, errp);
    }
    return kind != PAGE_KIND_FILE || check_file(block, page, length / block->page_size, data, errp);
}
