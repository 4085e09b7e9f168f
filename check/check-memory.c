/*
 * Maps a small piece of each kind of memory that guests have, as QEMU's memory backends do.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "check-memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "util/autofd.h"

#define SMALL_PAGE 4096
#define HUGE_PAGE (2 << 20)
/* 64 pages of 4 KiB, or 2 huge ones. */
#define SMALL_LENGTH (64 * SMALL_PAGE)

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26)
#endif

static int open_file(CheckMemoryKind kind)
{
    guint flags = MFD_CLOEXEC;

    if (kind == CHECK_MEMORY_HUGETLB) {
        flags |= MFD_HUGETLB | MFD_HUGE_2MB;
    }
    return memfd_create("stillframe-check", flags);
}

/* Reserves address space with an alignment that suits every kind, then maps over it. */
static gboolean map(CheckMemory *memory, int file, int flags, GError **errp)
{
    gsize whole = memory->length + HUGE_PAGE;
    guint8 *space = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (space == MAP_FAILED) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "no address space");
    }
    guint8 *aligned = (guint8 *)(((guintptr)space + HUGE_PAGE - 1) & ~(guintptr)(HUGE_PAGE - 1));
    guint8 *data =
        mmap(aligned, memory->length, PROT_READ | PROT_WRITE, flags | MAP_FIXED, file, 0);
    if (data == MAP_FAILED) {
        int err = errno;
        munmap(space, whole);
        return sf_error_set_errno(errp, SF_ERROR_UNSUPPORTED, err, "mmap");
    }
    /* What is around it stays reserved: it costs nothing, and the process is a short one. */
    memory->data = data;
    return TRUE;
}

gboolean check_memory_map(CheckMemory *memory, CheckMemoryKind kind, GError **errp)
{
    gboolean huge = kind == CHECK_MEMORY_HUGETLB;
    sf_autofd file = -1;

    *memory = (CheckMemory){
        .kind = kind,
        .length = huge || kind == CHECK_MEMORY_THP ? 2 * HUGE_PAGE : SMALL_LENGTH,
        .page_size = huge ? HUGE_PAGE : SMALL_PAGE,
        .stride = huge                       ? HUGE_PAGE
                  : kind == CHECK_MEMORY_THP ? 16 * SMALL_PAGE
                                             : SMALL_PAGE,
    };
    if (check_memory_is_file(memory)) {
        file = open_file(kind);
        if (file < 0 || ftruncate(file, (off_t)memory->length) < 0) {
            return sf_error_set_errno(errp, SF_ERROR_UNSUPPORTED, errno, "no memfd");
        }
    }
    int flags = file < 0                             ? MAP_PRIVATE | MAP_ANONYMOUS
                : kind == CHECK_MEMORY_MEMFD_PRIVATE ? MAP_PRIVATE
                                                     : MAP_SHARED;
    if (!map(memory, file, flags, errp)) {
        if (huge) {
            g_prefix_error(errp, "no huge page is free: ");
        }
        return FALSE;
    }
    madvise(memory->data, memory->length,
            kind == CHECK_MEMORY_THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    return TRUE;
}

/* How much of the mapping is in transparent huge pages, as /proc/self/smaps tells. */
static gsize count_thp(const CheckMemory *memory)
{
    g_autofree char *text = NULL;
    g_autofree char *start = g_strdup_printf("%" G_GSIZE_MODIFIER "x-", (gsize)memory->data);
    guint kib = 0;

    if (!g_file_get_contents("/proc/self/smaps", &text, NULL, NULL)) {
        return 0;
    }
    const char *mapping = strstr(text, start);
    const char *field = mapping ? strstr(mapping, "AnonHugePages:") : NULL;
    return field && sscanf(field, "AnonHugePages: %u kB", &kib) == 1 ? (gsize)kib << 10 : 0;
}

gboolean check_memory_populate(CheckMemory *memory, GError **errp)
{
    for (gsize offset = 0; offset < memory->length; offset += SMALL_PAGE) {
        *(volatile guint32 *)(memory->data + offset) = 1;
    }
    if (memory->kind == CHECK_MEMORY_THP && count_thp(memory) == 0) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "the kernel gives none (/sys/kernel/mm/transparent_hugepage/enabled)");
        return FALSE;
    }
    return TRUE;
}

gboolean check_memory_punch(CheckMemory *memory, GError **errp)
{
    gboolean shared = check_memory_is_file(memory) && memory->kind != CHECK_MEMORY_MEMFD_PRIVATE;

    if (madvise(memory->data, memory->length, shared ? MADV_REMOVE : MADV_DONTNEED) < 0) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "no hole can be made");
    }
    return TRUE;
}

guint check_memory_count(const CheckMemory *memory)
{
    return (guint)(memory->length / memory->stride);
}

volatile guint32 *check_memory_word(const CheckMemory *memory, guint index)
{
    return (volatile guint32 *)(memory->data + index * memory->stride);
}

gboolean check_memory_is_file(const CheckMemory *memory)
{
    return memory->kind >= CHECK_MEMORY_MEMFD_SHARED;
}

void check_memory_clear(CheckMemory *memory)
{
    if (memory->data) {
        munmap(memory->data, memory->length);
        memory->data = NULL;
    }
}
