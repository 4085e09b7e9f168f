/*
 * A small piece of each kind of memory that guests have.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "util/error.h"

typedef enum {
    CHECK_MEMORY_ANONYMOUS,
    CHECK_MEMORY_THP,
    CHECK_MEMORY_MEMFD_SHARED,
    CHECK_MEMORY_MEMFD_PRIVATE,
    CHECK_MEMORY_HUGETLB,
} CheckMemoryKind;

typedef struct CheckMemory {
    CheckMemoryKind kind;
    guint8 *data;    /* aligned to 2 MiB; NULL = not mapped */
    gsize length;    /* bytes */
    gsize page_size; /* what is protected and released at a time */
    gsize stride;    /* from one page that is written to the next */
} CheckMemory;

/*
 * Maps memory of @kind, all of it a hole; free it with check_memory_clear(). SF_ERROR_UNSUPPORTED
 * where this host has none of it just now, with the reason.
 */
gboolean check_memory_map(CheckMemory *memory, CheckMemoryKind kind, GError **errp);
/* Gives every page content. For transparent huge pages SF_ERROR_UNSUPPORTED if none came of it. */
gboolean check_memory_populate(CheckMemory *memory, GError **errp);
/* Makes all of it a hole again. */
gboolean check_memory_punch(CheckMemory *memory, GError **errp);
/* How many pages are written: one each @stride. */
guint check_memory_count(const CheckMemory *memory);
/* The first word of the @index-th of these. */
volatile guint32 *check_memory_word(const CheckMemory *memory, guint index);
/* Whether tracking writes to it takes UFFD_FEATURE_WP_HUGETLBFS_SHMEM. */
gboolean check_memory_is_file(const CheckMemory *memory);
void check_memory_clear(CheckMemory *memory);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(CheckMemory, check_memory_clear)
