/*
 * What a page server must leave behind for the next one: which QEMU, which image, which memory, and
 * the state of each page. A file in memory, mapped: it survives the server, not the host, and so
 * does QEMU. Private to migration/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <sys/types.h>

#include "util/error.h"

/*
 * TODO -> DONE when the page is in the guest's memory. GIVEN_BACK: QEMU gave it back afterwards or
 * before, so that it is zero from now on, whatever the image has.
 */
typedef enum { LAZY_TODO, LAZY_DONE, LAZY_GIVEN_BACK } LazyPageState;

#define LAZY_NAME_BYTES 256
#define LAZY_PATH_BYTES 4096

/* The file: this, then a LazyRecordBlock each, then the bytes of state. Of this program alone. */
typedef struct LazyRecordHead {
    guint64 magic;
    guint64 start_time; /* of the process, as /proc/PID/stat has it: its number may come again */
    gint32 pid;
    gint32 uffd; /* its number in QEMU */
    guint64 image_offset;
    gint32 stopped; /* the guest was stopped because a page could not be had */
    guint32 n_blocks;
    char image[LAZY_PATH_BYTES];
} LazyRecordHead;

typedef struct LazyRecordBlock {
    guint64 host;      /* address in QEMU */
    guint64 page_size; /* of the memory there */
    guint64 pages;
    guint64 state_at; /* where the states of its pages are in the file, one byte each */
    char name[LAZY_NAME_BYTES];
} LazyRecordBlock;

typedef struct LazyRecord {
    char *path;
    int fd;
    gsize size;
    LazyRecordHead *head; /* the mapped file */
    LazyRecordBlock *blocks;
} LazyRecord;

/*
 * A record of process @pid, locked, for @n_blocks blocks of which host, page_size, pages and name
 * are set. SF_ERROR_FAILED, _BUSY.
 */
LazyRecord *lazy_record_create(pid_t pid, int uffd, const char *image, guint64 offset,
                               const LazyRecordBlock *blocks, guint n_blocks, GError **errp);
/*
 * The record of a restore that lost its server. SF_ERROR_NO_PROCESS where there is none (or the
 * process has ended), SF_ERROR_BUSY where its server lives.
 */
LazyRecord *lazy_record_open(pid_t pid, GError **errp);
/* Whether there is one of @pid, as it runs now. */
gboolean lazy_record_exists(pid_t pid);
/* Leaves the file to the next server. NULL is allowed. */
void lazy_record_free(LazyRecord *record);
/* Nobody needs it any more. */
void lazy_record_remove(LazyRecord *record);
/* The same without having it: what a killed server has left for a QEMU that has ended. */
void lazy_record_forget(pid_t pid);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(LazyRecord, lazy_record_free)

static inline guint8 *lazy_record_states(LazyRecord *record, guint block)
{
    return (guint8 *)record->head + record->blocks[block].state_at;
}
