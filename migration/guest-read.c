/*
 * Reading guest memory from outside without changing anything in QEMU.
 *
 * Private memory is read through QEMU's mapping (process_vm_readv), shared memory through its file:
 * pread() of a hole gives zeros and allocates nothing, while reading a hole through a mapping of
 * shared memory would allocate the page for the guest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "guest-read.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>

#include "util/autofd.h"

/* An entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst). */
#define PM_PRESENT (1ULL << 63)
#define PM_SWAP (1ULL << 62)
#define PM_FILE (1ULL << 61)
#define PM_SWAP_TYPE(entry) ((entry)&0x1f)
/*
 * Arming a page that is not there leaves a marker in the page table, which the page map shows as a
 * swap entry of the highest type (the kernel's SWP_PTE_MARKER). The type is shown to CAP_SYS_ADMIN
 * only; everybody else sees 0, takes the page for swapped out, reads it and finds zeros.
 */
#define PM_SWAP_TYPE_MARKER 31

#define PAGEMAP_PAGE 4096ULL

gboolean guest_read_open(GuestRam *ram, GError **errp)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/pagemap", (int)ram->pid);
    ram->pagemap = open(path, O_RDONLY | O_CLOEXEC);
    if (ram->pagemap < 0) {
        int err = errno;
        return sf_error_set_errno(errp, err == ENOENT ? SF_ERROR_NO_PROCESS : SF_ERROR_PERMISSION,
                                  err, "cannot open %s", path);
    }
    ram->own_pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    return ram->own_pagemap >= 0 ||
           sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot open /proc/self/pagemap");
}

static gboolean vm_gone(GError **errp)
{
    g_set_error(errp, SF_ERROR, SF_ERROR_VM_GONE, "QEMU exited during the snapshot");
    return FALSE;
}

static gboolean read_pagemap(GuestRam *ram, guint64 address, guint64 count, guint64 *entries,
                             GError **errp)
{
    gsize want = count * sizeof(guint64);
    ssize_t got =
        pread(ram->pagemap, entries, want, (off_t)(address / PAGEMAP_PAGE * sizeof(guint64)));
    if (got == (ssize_t)want) {
        return TRUE;
    }
    /* The page map of a process that has exited is empty. */
    return got >= 0 ? vm_gone(errp)
                    : sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "reading QEMU's page map");
}

gboolean guest_read_is_mapped(GuestRam *ram, gboolean own, guint64 address, gboolean *mapped,
                              GError **errp)
{
    guint64 entry = 0;

    if (own) {
        if (pread(ram->own_pagemap, &entry, sizeof(entry),
                  (off_t)(address / PAGEMAP_PAGE * sizeof(entry))) != sizeof(entry)) {
            return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "reading our own page map");
        }
    } else if (!read_pagemap(ram, address, 1, &entry, errp)) {
        return FALSE;
    }
    *mapped = (entry & PM_PRESENT) != 0;
    return TRUE;
}

static gboolean entry_has_content(guint64 entry)
{
    return (entry & PM_PRESENT) ||
           ((entry & PM_SWAP) && PM_SWAP_TYPE(entry) != PM_SWAP_TYPE_MARKER);
}

gboolean guest_read_is_copy(GuestRam *ram, GuestBlock *block, guint64 page, gboolean *copy,
                            GError **errp)
{
    guint64 entry = 0;

    if (!read_pagemap(ram, block->host + page * block->page_size, 1, &entry, errp)) {
        return FALSE;
    }
    *copy = entry_has_content(entry) && !(entry & PM_FILE);
    return TRUE;
}

static gboolean scan_hugetlb(GuestRam *ram, GuestBlock *block, guint64 first, guint64 count,
                             guint8 *kind, GError **errp)
{
    /* What of the file is a hole is not known, but reading one from the file allocates nothing. */
    for (guint64 i = 0; i < count; i++) {
        guint64 entry = 0;
        if (!block->shared &&
            !read_pagemap(ram, block->host + (first + i) * block->page_size, 1, &entry, errp)) {
            return FALSE;
        }
        kind[i] = entry_has_content(entry) ? PAGE_KIND_MEMORY
                  : block->file >= 0       ? PAGE_KIND_FILE
                                           : PAGE_KIND_ZERO;
    }
    return TRUE;
}

gboolean guest_block_scan(GuestRam *ram, GuestBlock *block, guint64 first, guint64 count,
                          guint8 *kind, GError **errp)
{
    guint64 entries[SCAN_PAGES_MAX];

    g_assert(count <= SCAN_PAGES_MAX);
    if (block->hugetlb) {
        return scan_hugetlb(ram, block, first, count, kind, errp);
    }
    memset(kind, PAGE_KIND_ZERO, count);
    if (!block->shared) {
        if (!read_pagemap(ram, block->host + first * block->page_size, count, entries, errp)) {
            return FALSE;
        }
        for (guint64 i = 0; i < count; i++) {
            if (entry_has_content(entries[i])) {
                kind[i] = PAGE_KIND_MEMORY;
            }
        }
    }
    /* A hole of the file is filled only by a write, which claims the page first. */
    for (guint64 i = 0; i < count; i++) {
        if (kind[i] == PAGE_KIND_ZERO && page_was_present(block, first + i)) {
            kind[i] = PAGE_KIND_FILE;
        }
    }
    return TRUE;
}

static gboolean read_memory(GuestRam *ram, GuestBlock *block, guint64 offset, void *to,
                            gsize length, GError **errp)
{
    while (length) {
        struct iovec local = { .iov_base = to, .iov_len = length };
        struct iovec remote = { .iov_base = (void *)(guintptr)(block->host + offset),
                                .iov_len = length };
        ssize_t got = process_vm_readv(ram->pid, &local, 1, &remote, 1, 0);
        if (got > 0) {
            to = (guint8 *)to + got;
            offset += (guint64)got;
            length -= (gsize)got;
        } else if (errno == ESRCH) {
            return vm_gone(errp);
        } else if (errno == EFAULT) {
            g_set_error(errp, SF_ERROR, SF_ERROR_VM_GONE,
                        "RAM block %s went away during the snapshot: QEMU exited or unplugged it",
                        block->name);
            return FALSE;
        } else if (errno != EINTR) {
            return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "reading RAM block %s",
                                      block->name);
        }
    }
    return TRUE;
}

static gboolean read_file(GuestBlock *block, guint64 offset, void *to, gsize length, GError **errp)
{
    while (length) {
        ssize_t got = pread(block->file, to, length, (off_t)(block->file_offset + offset));
        if (got > 0) {
            to = (guint8 *)to + got;
            offset += (guint64)got;
            length -= (gsize)got;
        } else if (got == 0) {
            memset(to, 0, length); /* the mapping is longer than its file */
            return TRUE;
        } else if (errno != EINTR) {
            return sf_error_set_errno(errp, SF_ERROR_FAILED, errno,
                                      "reading the file behind RAM block %s", block->name);
        }
    }
    return TRUE;
}

gboolean guest_block_read(GuestRam *ram, GuestBlock *block, PageKind kind, guint64 offset, void *to,
                          gsize length, GError **errp)
{
    switch (kind) {
    case PAGE_KIND_ZERO:
        memset(to, 0, length);
        return TRUE;
    case PAGE_KIND_FILE:
        return read_file(block, offset, to, length, errp);
    default:
        /* Shared memory *is* its file: never through the mapping, which would fill holes. */
        return block->shared ? read_file(block, offset, to, length, errp)
                             : read_memory(ram, block, offset, to, length, errp);
    }
}

gboolean guest_block_populate(GuestRam *ram, GuestBlock *block, guint64 first, guint64 count,
                              GError **errp)
{
    guint64 entries[SCAN_PAGES_MAX];

    for (guint64 done = 0; done < count; done += SCAN_PAGES_MAX) {
        guint64 piece = MIN(count - done, (guint64)SCAN_PAGES_MAX);
        guint64 at = block->host + (first + done) * block->page_size;
        if (!read_pagemap(ram, at, piece, entries, errp)) {
            return FALSE;
        }
        for (guint64 i = 0; i < piece; i++) {
            guint8 byte;
            if (!(entries[i] & (PM_PRESENT | PM_SWAP)) &&
                !read_memory(ram, block, (first + done + i) * block->page_size, &byte, 1, errp)) {
                return FALSE;
            }
        }
    }
    return TRUE;
}
