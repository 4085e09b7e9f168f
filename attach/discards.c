/*
 * Threads that wait in madvise(), from /proc.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "attach/discards.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "util/autofd.h"

#define PAGE 4096ULL
/* Of the ranges that one process_madvise() names. */
#define VECTORS_MAX 16

static guint add_range(guint64 start, guint64 length, int advice, Discard *found, guint max)
{
    guint64 end;

    /* The kernel rounds the length up; what it refuses is no discard. */
    if (max == 0 || length == 0 || start % PAGE || length > G_MAXUINT64 - PAGE ||
        __builtin_add_overflow(start, (length + PAGE - 1) / PAGE * PAGE, &end)) {
        return 0;
    }
    *found = (Discard){ .start = start, .end = end, .advice = advice };
    return 1;
}

/* Which of its vectors it is at is not known: all of them. */
static guint add_vectors(int pid, guint64 address, guint64 count, int advice, Discard *found,
                         guint max)
{
    struct iovec vector[VECTORS_MAX];
    struct iovec local = { .iov_base = vector }, remote = { .iov_base = (void *)(guintptr)address };
    guint n = 0;

    local.iov_len = remote.iov_len = MIN(count, (guint64)VECTORS_MAX) * sizeof(vector[0]);
    ssize_t got = process_vm_readv(pid, &local, 1, &remote, 1, 0);
    for (gsize i = 0; got > 0 && i < (gsize)got / sizeof(vector[0]); i++) {
        n += add_range((guint64)(guintptr)vector[i].iov_base, vector[i].iov_len, advice, found + n,
                       max - n);
    }
    return n;
}

/* "NUMBER 0xARG 0xARG ..."; "running", or -1 where it sleeps outside of a system call. */
guint discards_parse(const char *line, int pid, Discard *found, guint max)
{
    guint64 arg[4];
    char *at;
    long number = strtol(line, &at, 10);

    if (at == line || (number != SYS_madvise && number != SYS_process_madvise)) {
        return 0;
    }
    for (guint i = 0; i < G_N_ELEMENTS(arg); i++) {
        const char *before = at;
        arg[i] = strtoull(before, &at, 16);
        if (at == before) {
            return 0;
        }
    }
    return number == SYS_madvise ? add_range(arg[0], arg[1], (int)arg[2], found, max)
                                 : add_vectors(pid, arg[1], arg[2], (int)arg[3], found, max);
}

static guint look_at_thread(int task_dir, const char *tid, int pid, Discard *found, guint max)
{
    char path[64], line[256];

    g_snprintf(path, sizeof(path), "%s/syscall", tid);
    sf_autofd fd = openat(task_dir, path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);
    if (got <= 0) {
        return 0; /* it has ended */
    }
    line[got] = '\0';
    return discards_parse(line, pid, found, max);
}

guint discards_find(int task_dir, int pid, Discard *found, guint max)
{
    /* The kernel's own entries: opendir() would allocate. */
    _Alignas(struct dirent64) char buffer[4096];
    guint n = 0;
    long got;

    if (lseek(task_dir, 0, SEEK_SET) < 0) {
        return 0;
    }
    while ((got = syscall(SYS_getdents64, task_dir, buffer, sizeof(buffer))) > 0) {
        for (long at = 0; at < got;) {
            const struct dirent64 *entry = (const struct dirent64 *)(void *)(buffer + at);
            at += entry->d_reclen;
            if (g_ascii_isdigit(entry->d_name[0])) {
                n += look_at_thread(task_dir, entry->d_name, pid, found + n, max - n);
            }
        }
    }
    return n;
}
