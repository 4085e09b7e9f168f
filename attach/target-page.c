/*
 * Looking for QEMU's record of the target page size.
 *
 * A target with a variable page size keeps a boolean "decided", an int "bits" and a mask with that
 * many low bits clear, in this order, in its writable data. The mask is as wide as the target's
 * addresses in older versions and 64 bits in newer ones.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "attach/target-page.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#define PAGE_BITS_MIN 10
#define PAGE_BITS_MAX 16
/* A program's own data is some MiB; a mapping larger than this is something else. */
#define DATA_MAX (64ULL << 20)

typedef struct Record {
    guint32 decided;
    guint32 bits;
    union {
        guint32 narrow;
        guint64 wide;
    } mask;
} Record;

static gboolean is_record(const guint8 *at, gboolean wide, guint *bits)
{
    Record record;

    memcpy(&record, at, sizeof(record));
    if (record.decided != 1 || record.bits < PAGE_BITS_MIN || record.bits > PAGE_BITS_MAX) {
        return FALSE;
    }
    *bits = record.bits;
    return wide ? record.mask.wide == ~0ULL << record.bits
                : record.mask.narrow == (guint32)(~0ULL << record.bits);
}

/* Notes each record in @data; *found gets 0 for none, the bits, or G_MAXUINT for two that differ.
 */
static void scan(const guint8 *data, gsize size, gboolean wide, guint *found)
{
    guint bits;

    for (gsize at = 0; at + sizeof(Record) <= size; at += sizeof(guint32)) {
        if (is_record(data + at, wide, &bits)) {
            *found = *found == 0 || *found == bits ? bits : G_MAXUINT;
        }
    }
}

/* The program's writable data, and the anonymous mapping behind it that holds what begins as zero.
 */
static GPtrArray *data_mappings(pid_t pid, GPtrArray *maps)
{
    g_autofree char *link = g_strdup_printf("/proc/%d/exe", (int)pid);
    g_autofree char *program = g_file_read_link(link, NULL);
    GPtrArray *data = g_ptr_array_new();
    guint64 behind = 0;

    for (guint i = 0; program && i < maps->len; i++) {
        ProcMapping *mapping = g_ptr_array_index(maps, i);
        gboolean own =
            g_str_equal(mapping->path, program) || (mapping->start == behind && !mapping->path[0]);
        if (own && mapping->writable && mapping->end - mapping->start <= DATA_MAX) {
            g_ptr_array_add(data, mapping);
            behind = mapping->end;
        }
    }
    return data;
}

static gboolean scan_mapping(pid_t pid, const ProcMapping *mapping, guint found[2], GError **errp)
{
    gsize size = mapping->end - mapping->start;
    g_autofree guint8 *data = g_malloc(size);
    struct iovec local = { .iov_base = data, .iov_len = size };
    struct iovec remote = { .iov_base = (void *)(guintptr)mapping->start, .iov_len = size };
    ssize_t got = process_vm_readv(pid, &local, 1, &remote, 1, 0);

    if (got < 0) {
        return sf_error_set_errno(errp, SF_ERROR_PERMISSION, errno,
                                  "cannot read the memory of process %d", (int)pid);
    }
    scan(data, (gsize)got, TRUE, &found[0]);
    scan(data, (gsize)got, FALSE, &found[1]);
    return TRUE;
}

gboolean target_page_find_bits(pid_t pid, GPtrArray *maps, guint *bits, GError **errp)
{
    g_autoptr(GPtrArray) data = data_mappings(pid, maps);
    guint found[2] = { 0, 0 }; /* with a wide mask, which is harder to meet by chance; narrow */

    for (guint i = 0; i < data->len; i++) {
        if (!scan_mapping(pid, g_ptr_array_index(data, i), found, errp)) {
            return FALSE;
        }
    }
    *bits = found[0] ? found[0] : found[1];
    if (*bits == 0 || *bits == G_MAXUINT) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "the target page size of this QEMU could not be found: please report the QEMU "
                    "version and its machine type");
        return FALSE;
    }
    return TRUE;
}
