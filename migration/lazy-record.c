/*
 * The record of a lazy restore.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "lazy-record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/autofd.h"

#define RECORD_MAGIC 0x31797a616c6673ULL /* changes with the layout */

/* $XDG_RUNTIME_DIR where that is set, /run for root: both are in memory. */
static char *record_folder(void)
{
    const char *given = g_getenv("XDG_RUNTIME_DIR");
    const char *base = given && *given ? given : geteuid() == 0 ? "/run" : g_get_user_runtime_dir();

    return g_build_filename(base, "stillframe", NULL);
}

static char *record_path(pid_t pid)
{
    g_autofree char *folder = record_folder();
    g_autofree char *name = g_strdup_printf("restore-%d", (int)pid);

    return g_build_filename(folder, name, NULL);
}

/* Field 22 of /proc/PID/stat, counted behind the name, which may hold anything; 0: no process. */
static guint64 process_start_time(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", (int)pid);
    g_autofree char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL) || !strrchr(text, ')')) {
        return 0;
    }
    g_auto(GStrv) fields = g_strsplit(strrchr(text, ')') + 2, " ", -1);
    return g_strv_length(fields) > 19 ? g_ascii_strtoull(fields[19], NULL, 10) : 0;
}

static gboolean lock_record(LazyRecord *record, pid_t pid, GError **errp)
{
    if (flock(record->fd, LOCK_EX | LOCK_NB) == 0) {
        return TRUE;
    }
    if (errno == EWOULDBLOCK) {
        g_set_error(errp, SF_ERROR, SF_ERROR_BUSY,
                    "the memory of process %d is being restored, and its page server lives",
                    (int)pid);
        return FALSE;
    }
    return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot lock %s", record->path);
}

static gboolean map_record(LazyRecord *record, gsize size, GError **errp)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, record->fd, 0);

    if (at == MAP_FAILED) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot map %s", record->path);
    }
    /* A child with this mapping would keep the file's lock when we are killed. */
    madvise(at, size, MADV_DONTFORK);
    record->size = size;
    record->head = at;
    record->blocks = (LazyRecordBlock *)(record->head + 1);
    return TRUE;
}

static LazyRecord *record_new(pid_t pid, int flags, GError **errp)
{
    g_autoptr(LazyRecord) record = g_new0(LazyRecord, 1);

    record->path = record_path(pid);
    record->fd = open(record->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
    if (record->fd < 0) {
        int err = errno;
        sf_error_set_errno(errp, err == ENOENT ? SF_ERROR_NO_PROCESS : SF_ERROR_FAILED, err,
                           err == ENOENT ? "no restore of process %d is under way (no record %s)"
                                         : "process %d: cannot open %s",
                           (int)pid, record->path);
        return NULL;
    }
    return lock_record(record, pid, errp) ? g_steal_pointer(&record) : NULL;
}

LazyRecord *lazy_record_create(pid_t pid, int uffd, const char *image, guint64 offset,
                               const LazyRecordBlock *blocks, guint n_blocks, GError **errp)
{
    g_autofree char *folder = record_folder();
    gsize states = sizeof(LazyRecordHead) + n_blocks * sizeof(*blocks);
    gsize size = states;

    for (guint i = 0; i < n_blocks; i++) {
        size += blocks[i].pages;
    }
    g_mkdir_with_parents(folder, 0700);
    g_autoptr(LazyRecord) record = record_new(pid, O_CREAT, errp);
    if (!record) {
        return NULL;
    }
    /* A page of the file that cannot be had would be a signal later. */
    int err = ftruncate(record->fd, 0) < 0 ? errno : posix_fallocate(record->fd, 0, (off_t)size);
    if (err) {
        unlink(record->path);
        sf_error_set_errno(errp, SF_ERROR_FAILED, err, "cannot write %s", record->path);
        return NULL;
    }
    if (!map_record(record, size, errp)) {
        return NULL;
    }
    LazyRecordHead *head = record->head;
    *head = (LazyRecordHead){ .magic = RECORD_MAGIC,
                              .start_time = process_start_time(pid),
                              .pid = pid,
                              .uffd = uffd,
                              .image_offset = offset,
                              .n_blocks = n_blocks };
    g_strlcpy(head->image, image, sizeof(head->image));
    for (guint i = 0; i < n_blocks; i++) {
        record->blocks[i] = blocks[i];
        record->blocks[i].state_at = states;
        states += blocks[i].pages;
    }
    return g_steal_pointer(&record);
}

static gboolean check_record(LazyRecord *record)
{
    const LazyRecordHead *head = record->head;
    gsize room = (record->size - sizeof(*head)) / sizeof(LazyRecordBlock);

    if (head->magic != RECORD_MAGIC || head->n_blocks > room ||
        !memchr(head->image, 0, sizeof(head->image))) {
        return FALSE;
    }
    for (guint i = 0; i < head->n_blocks; i++) {
        const LazyRecordBlock *block = &record->blocks[i];
        if (block->state_at > record->size || block->pages > record->size - block->state_at ||
            !block->page_size || block->page_size & (block->page_size - 1) ||
            !memchr(block->name, 0, sizeof(block->name))) {
            return FALSE;
        }
    }
    return TRUE;
}

LazyRecord *lazy_record_open(pid_t pid, GError **errp)
{
    g_autoptr(LazyRecord) record = record_new(pid, 0, errp);
    struct stat st;

    if (!record) {
        return NULL;
    }
    if (fstat(record->fd, &st) < 0 || (gsize)st.st_size < sizeof(LazyRecordHead)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT, "%s is no record of a restore", record->path);
        return NULL;
    }
    if (!map_record(record, (gsize)st.st_size, errp)) {
        return NULL;
    }
    if (!check_record(record)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                    "%s is no record of this version's: the restore must be resumed by the version "
                    "that began it",
                    record->path);
        return NULL;
    }
    if (record->head->start_time != process_start_time(pid)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_NO_PROCESS,
                    "the QEMU that %s was about has ended; no restore of process %d is under way",
                    record->path, (int)pid);
        unlink(record->path);
        return NULL;
    }
    return g_steal_pointer(&record);
}

gboolean lazy_record_exists(pid_t pid)
{
    g_autofree char *path = record_path(pid);
    LazyRecordHead head;
    sf_autofd fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    return fd >= 0 && pread(fd, &head, sizeof(head), 0) == sizeof(head) &&
           head.magic == RECORD_MAGIC && head.start_time == process_start_time(pid);
}

void lazy_record_free(LazyRecord *record)
{
    if (!record) {
        return;
    }
    if (record->head) {
        munmap(record->head, record->size);
    }
    sf_clear_fd(&record->fd);
    g_free(record->path);
    g_free(record);
}

void lazy_record_remove(LazyRecord *record)
{
    if (record) {
        unlink(record->path);
        lazy_record_free(record);
    }
}

void lazy_record_forget(pid_t pid)
{
    g_autofree char *path = record_path(pid);

    unlink(path);
}
