/*
 * What the parts of the index's reader share. Only image-index*.c may include this.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "image-index-format.h"
#include "migration/image-index.h"

/* Reading past the end yields zeros and sets @bad, so that several fields may be read at once. */
typedef struct IndexCursor {
    const guint8 *data;
    gsize size;
    gsize at;
    gboolean bad;
} IndexCursor;

static inline gsize index_cursor_left(const IndexCursor *cursor)
{
    return cursor->size - cursor->at;
}

/* @length bytes, or NULL. */
static inline const guint8 *index_cursor_bytes(IndexCursor *cursor, guint64 length)
{
    if (cursor->bad || length > index_cursor_left(cursor)) {
        cursor->bad = TRUE;
        return NULL;
    }
    const guint8 *bytes = cursor->data + cursor->at;
    cursor->at += length;
    return bytes;
}

static inline guint8 index_cursor_u8(IndexCursor *cursor)
{
    const guint8 *bytes = index_cursor_bytes(cursor, 1);
    return bytes ? *bytes : 0;
}

static inline guint32 index_cursor_u32(IndexCursor *cursor)
{
    const guint8 *bytes = index_cursor_bytes(cursor, 4);
    guint32 value = 0;

    if (bytes) {
        memcpy(&value, bytes, sizeof(value));
    }
    return GUINT32_FROM_LE(value);
}

static inline guint64 index_cursor_u64(IndexCursor *cursor)
{
    const guint8 *bytes = index_cursor_bytes(cursor, 8);
    guint64 value = 0;

    if (bytes) {
        memcpy(&value, bytes, sizeof(value));
    }
    return GUINT64_FROM_LE(value);
}

/* Seven bits a byte, the lowest first. More than 64 bits are bad. */
static inline guint64 index_cursor_number(IndexCursor *cursor)
{
    guint64 value = 0;

    for (guint shift = 0; shift < 64; shift += 7) {
        guint8 byte = index_cursor_u8(cursor);
        if (shift == 63 && byte > 1) {
            break;
        }
        value |= (guint64)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            return value;
        }
    }
    cursor->bad = TRUE;
    return 0;
}

/* The same with the sign in the lowest bit; two's complement, to be added. */
static inline guint64 index_cursor_signed(IndexCursor *cursor)
{
    guint64 value = index_cursor_number(cursor);
    return (value >> 1) ^ (value & 1 ? G_MAXUINT64 : 0);
}

/* ---- image-index-pages.c; each returns FALSE where the record is not what it should be ---- */

/* A record of pages; @runs: for each block a GArray of IndexRun. */
gboolean index_take_pages(ImageIndex *index, GPtrArray *runs, IndexCursor *cursor);
gboolean index_take_heat(ImageIndex *index, IndexCursor *cursor);

/* ---- image-index-order.c ---- */

/* Puts the block's runs (taken out of @runs, in the order of the image) in order, each page once.
 */
void index_settle_runs(IndexBlock *block, GArray *runs);
