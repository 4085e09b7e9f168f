/*
 * Fuzzes the index trailer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "fuzz.h"
#include "../../migration/image-index-format.h"
#include "migration/image-index.h"

static guint64 look_at_block(const IndexBlock *block)
{
    guint64 sum = 0;

    for (guint64 i = 0; i < block->n_runs; i++) {
        const IndexRun *run = &block->runs[i];
        guint64 last = run->first + run->count - 1;
        g_assert_cmpuint(last, <, block->pages);
        g_assert_true(index_block_find(block, last) == run);
        if (run->kind == INDEX_HERE) {
            sum += index_run_place(block, run, last) + index_run_hash(run, last)[HASH128_BYTES - 1];
        }
    }
    for (guint64 i = 0; i < block->n_heat; i++) {
        sum += block->heat[i];
    }
    return sum;
}

static void look_at(const ImageIndex *index)
{
    guint64 sum = 0;

    for (guint i = 0; i < index->blocks->len; i++) {
        const IndexBlock *block = g_ptr_array_index(index->blocks, i);
        g_assert_nonnull(image_index_find_block(index, block->name, NULL));
        sum += look_at_block(block);
    }
    for (gsize i = 0; i < index->screen_length; i++) {
        sum += index->screen[i];
    }
    /* Looked at, so that the sanitizer sees a read outside. */
    g_assert_cmpuint(sum | 1, !=, 0);
}

static guint64 get_le(const guint8 *at, guint bytes)
{
    guint64 value = 0;

    for (guint i = 0; i < bytes; i++) {
        value |= (guint64)at[i] << 8 * i;
    }
    return value;
}

static void put_le64(guint8 *at, guint64 value)
{
    value = GUINT64_TO_LE(value);
    memcpy(at, &value, sizeof(value));
}

/* Makes the end of the trailer at @at right. */
static void repair_end(guint8 *data, gsize at, guint64 records)
{
    gsize end = at + INDEX_END_BYTES;
    Hash128 identity;

    put_le64(data + at + INDEX_RECORD_HEAD_BYTES, records);
    put_le64(data + at + INDEX_RECORD_HEAD_BYTES + 8, end);
    hash128(data, end - INDEX_END_UNCOVERED, &identity);
    memcpy(data + end - INDEX_END_UNCOVERED, identity.bytes, sizeof(identity.bytes));
}

/* Makes all checksums right: otherwise no change would ever get behind them. */
static void repair(guint8 *data, gsize size)
{
    gsize at = size >= INDEX_HEADER_BYTES ? get_le(data + INDEX_MAGIC_BYTES + 4, 4) : size;

    for (guint64 records = 1; at < size && size - at >= INDEX_RECORD_HEAD_BYTES; records++) {
        guint64 length = get_le(data + at + 8, 8);
        guint64 left = size - at;
        if (get_le(data + at, 4) == INDEX_END) {
            if (left >= INDEX_END_BYTES) {
                repair_end(data, at, records);
            }
            return;
        }
        if (length > left ||
            left - length < INDEX_RECORD_HEAD_BYTES + INDEX_RECORD_ALIGN + INDEX_CHECKSUM_BYTES) {
            return;
        }
        gsize covered = INDEX_RECORD_HEAD_BYTES + length + -length % INDEX_RECORD_ALIGN;
        put_le64(data + at + covered, hash64(data + at, covered));
        at += covered + INDEX_CHECKSUM_BYTES;
    }
}

int LLVMFuzzerTestOneInput(const guint8 *data, gsize size)
{
    g_autofree guint8 *copy = g_memdup2(data, size);
    repair(copy, size);
    g_autoptr(ImageIndex) first = image_index_parse(copy, size, NULL, NULL);
    g_autoptr(ImageIndex) found = image_index_find(data, size, NULL, NULL);

    if (first) {
        look_at(first);
    }
    if (found) {
        look_at(found);
    }
    return 0;
}
