/*
 * Finds where the RAM blocks of a QEMU before 8 lie. QEMU keeps one record a block on its heap, and
 * of each we know enough to recognise it: offset, used_length and max_length in a row (struct
 * RAMBlock of every version from 2.4 to 11), the name behind them and the host pointer before them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "attach/ram-host.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>

#define PAGE 4096
#define CHUNK (1024 * 1024)
/* A record's part behind the triple: a few members, then the name with its 0. */
#define NAME_DISTANCE_MAX 64
#define RECORD_MAX (3 * sizeof(guint64) + NAME_DISTANCE_MAX + 256)
/* Members between the host pointer and the triple, with room for what a version may add. */
#define HOST_DISTANCE_MAX 8
/* A mapping of this size is no place where malloc() keeps small things. */
#define ARENA_MAX (256 * 1024 * 1024)

typedef struct Finding {
    guint64 address; /* 0 = none yet */
    gboolean ambiguous;
} Finding;

typedef struct Search {
    pid_t pid;
    GPtrArray *blocks;
    GPtrArray *maps;
    Finding *findings; /* one a block */
    guint64 *buffer;   /* CHUNK + RECORD_MAX bytes */
} Search;

static gboolean mapping_is_ram_like(const ProcMapping *mapping)
{
    return mapping->readable && !mapping->executable && mapping->path[0] != '[';
}

/* Whether @length bytes at @address are mapped; QEMU's madvise() calls can split a block's mapping.
 */
static gboolean maps_can_hold(GPtrArray *maps, guint64 address, guint64 length)
{
    if (length > G_MAXUINT64 - address) {
        return FALSE;
    }
    guint64 end = address + length;
    while (address < end) {
        const ProcMapping *mapping = proc_maps_find(maps, address);
        if (!mapping || !mapping_is_ram_like(mapping)) {
            return FALSE;
        }
        address = mapping->end;
    }
    return TRUE;
}

/* The one pointer among the @count words before the triple that can be the block's memory. */
static guint64 find_host(Search *search, const guint64 *triple, guint count, guint64 max_length)
{
    guint64 found = 0;
    for (guint k = 1; k <= MIN(count, HOST_DISTANCE_MAX); k++) {
        guint64 address = *(triple - k);
        if (address == 0 || address % PAGE != 0 ||
            !maps_can_hold(search->maps, address, max_length)) {
            continue;
        }
        if (found && found != address) {
            return 0;
        }
        found = address;
    }
    return found;
}

static gboolean name_follows(const guint64 *triple, gsize bytes, const char *name)
{
    const char *behind = (const char *)(triple + 3);
    gsize length = strlen(name) + 1;
    for (gsize distance = 0; distance <= NAME_DISTANCE_MAX; distance += 4) {
        if (3 * sizeof(guint64) + distance + length > bytes) {
            return FALSE;
        }
        if (!memcmp(behind + distance, name, length)) {
            return TRUE;
        }
    }
    return FALSE;
}

/* Looks whether a record's triple begins at @words[at]. */
static void look_at(Search *search, const guint64 *words, guint at, guint count)
{
    const guint64 *triple = words + at;
    /* Most words fail here: lengths are pages, at least one. */
    if (triple[2] == 0 || triple[1] == 0 || (triple[1] | triple[2]) % PAGE != 0) {
        return;
    }
    for (guint i = 0; i < search->blocks->len; i++) {
        const RamBlock *block = search->blocks->pdata[i];
        Finding *finding = &search->findings[i];
        if (block->host_address || triple[0] != block->offset || triple[1] != block->used_length ||
            triple[2] != block->max_length ||
            !name_follows(triple, (count - at) * sizeof(guint64), block->name)) {
            continue;
        }
        guint64 address = find_host(search, triple, at, block->max_length);
        if (address && finding->address && finding->address != address) {
            finding->ambiguous = TRUE;
        } else if (address) {
            finding->address = address;
        }
    }
}

/* Reads one chunk; the number of bytes that could be read, -1 with *errp on a refusal. */
static gssize read_chunk(Search *search, guint64 start, gsize length, GError **errp)
{
    struct iovec local = { .iov_base = search->buffer, .iov_len = length };
    struct iovec remote = { .iov_base = (void *)(guintptr)start, .iov_len = length };
    ssize_t got = process_vm_readv(search->pid, &local, 1, &remote, 1, 0);
    if (got >= 0) {
        return got;
    }
    int err = errno;
    if (err == EFAULT) {
        /* The mapping has gone or shrunk since the maps were read. */
        return 0;
    }
    SfError code = err == ESRCH ? SF_ERROR_VM_GONE : SF_ERROR_FAILED;
    sf_error_set_errno(
        errp, err == EPERM ? SF_ERROR_PERMISSION : code, err,
        "cannot read the memory of process %d, where QEMU before 8 must be asked for "
        "its RAM blocks%s",
        (int)search->pid, err == EPERM ? " (run as root or as the user who runs QEMU)" : "");
    return -1;
}

static gboolean scan(Search *search, guint64 start, guint64 end, GError **errp)
{
    const guint before = HOST_DISTANCE_MAX * sizeof(guint64);
    for (guint64 at = start; at < end;) {
        gsize length = MIN(end - at, CHUNK + RECORD_MAX);
        gssize got = read_chunk(search, at, length, errp);
        if (got < 0) {
            return FALSE;
        }
        guint count = (guint)((gsize)got / sizeof(guint64));
        for (guint i = 0; i + 3 <= count; i++) {
            look_at(search, search->buffer, i, count);
        }
        if ((gsize)got < length || at + length >= end) {
            return TRUE;
        }
        /* Whole records again: those that the end of this chunk cut, with the words before them. */
        at += CHUNK - before;
    }
    return TRUE;
}

static gboolean is_complete(Search *search)
{
    for (guint i = 0; i < search->blocks->len; i++) {
        const RamBlock *block = search->blocks->pdata[i];
        if (!block->host_address && !search->findings[i].address) {
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean scan_heap(Search *search, GError **errp)
{
    for (guint i = 0; i < search->maps->len; i++) {
        const ProcMapping *mapping = search->maps->pdata[i];
        if (!strcmp(mapping->path, "[heap]") && !scan(search, mapping->start, mapping->end, errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

/*
 * The start addresses of the mappings that are not inherited by fork(): QEMU asks for that
 * (MADV_DONTFORK) for all guest memory and for nothing else. A guest could write anything into
 * its memory, also what looks like a record.
 */
static GHashTable *list_guest_mappings(pid_t pid)
{
    GHashTable *guest = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
    g_autofree char *path = g_strdup_printf("/proc/%d/smaps", (int)pid);
    g_autofree char *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return guest;
    }
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    guint64 start = 0;
    for (char **line = lines; *line; line++) {
        guint64 first, end;
        if (sscanf(*line, "%" SCNx64 "-%" SCNx64 " ", &first, &end) == 2) {
            start = first;
        } else if (g_str_has_prefix(*line, "VmFlags:") && strstr(*line, " dc")) {
            g_hash_table_add(guest, g_memdup2(&start, sizeof(start)));
        }
    }
    return guest;
}

/* malloc() arenas of other threads, and the heaps of other allocators. */
static gboolean scan_arenas(Search *search, GError **errp)
{
    g_autoptr(GHashTable) guest = list_guest_mappings(search->pid);
    for (guint i = 0; i < search->maps->len; i++) {
        const ProcMapping *mapping = search->maps->pdata[i];
        if (!mapping->readable || !mapping->writable || mapping->shared || mapping->inode ||
            *mapping->path || mapping->end - mapping->start > ARENA_MAX ||
            g_hash_table_contains(guest, &mapping->start)) {
            continue;
        }
        if (!scan(search, mapping->start, mapping->end, errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

/*
 * Asks gpa2hva for guest physical address 0: TRUE with the block's name and its host address where
 * RAM lies there. It does on the machines whose main block begins at 0 (PCs and most others).
 */
static gboolean ask_main_block(QmpClient *qmp, char **name, guint64 *address)
{
    g_autofree char *text = qmp_client_hmp(qmp, "gpa2hva 0", NULL);
    if (!text || !g_str_has_prefix(text, "Host virtual address for 0x0 (")) {
        return FALSE;
    }
    const char *from = strchr(text, '(') + 1;
    const char *to = g_strrstr(from, ") is 0x");
    if (!to || sscanf(to, ") is 0x%" SCNx64, address) != 1) {
        return FALSE;
    }
    *name = g_strndup(from, (gsize)(to - from));
    return TRUE;
}

/* A memory region's name against a block's: "ram0" is also "/objects/ram0" or "dev-path/ram0". */
static gboolean block_is_of_region(const RamBlock *block, const char *region)
{
    g_autofree char *tail = g_strconcat("/", region, NULL);
    return !strcmp(block->name, region) || g_str_has_suffix(block->name, tail);
}

static gboolean check_main_block(QmpClient *qmp, GPtrArray *blocks, GPtrArray *maps, GError **errp)
{
    g_autofree char *region = NULL;
    guint64 address;
    if (!ask_main_block(qmp, &region, &address)) {
        return TRUE;
    }
    for (guint i = 0; i < blocks->len; i++) {
        RamBlock *block = blocks->pdata[i];
        if (!block_is_of_region(block, region)) {
            continue;
        }
        if (!block->host_address && maps_can_hold(maps, address, block->max_length)) {
            block->host_address = address;
        } else if (block->host_address != address) {
            g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                        "RAM block \"%s\" was found at 0x%" PRIx64 " but QEMU's gpa2hva says "
                        "0x%" PRIx64 ": this build of QEMU cannot be read, please report it",
                        block->name, block->host_address, address);
            return FALSE;
        }
        return TRUE;
    }
    return TRUE;
}

static gboolean run_search(Search *search, GError **errp)
{
    if (is_complete(search)) {
        return TRUE;
    }
    return scan_heap(search, errp) && (is_complete(search) || scan_arenas(search, errp));
}

gboolean ram_host_locate(pid_t pid, QmpClient *qmp, GPtrArray *blocks, GPtrArray *maps,
                         GError **errp)
{
    g_autofree Finding *findings = g_new0(Finding, blocks->len);
    g_autofree guint64 *buffer = g_malloc(CHUNK + RECORD_MAX);
    Search search = {
        .pid = pid, .blocks = blocks, .maps = maps, .findings = findings, .buffer = buffer
    };
    if (!run_search(&search, errp)) {
        return FALSE;
    }
    for (guint i = 0; i < blocks->len; i++) {
        RamBlock *block = blocks->pdata[i];
        if (!block->host_address && !findings[i].ambiguous) {
            block->host_address = findings[i].address;
        }
    }
    return check_main_block(qmp, blocks, maps, errp);
}
