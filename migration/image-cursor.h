/*
 * A cursor over the bytes of an image that never leaves them: over a mapped file, or over a window
 * that moves along a source that is read front to back. Only image-*.c may include this.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "migration/image-source.h"

/*
 * Reading past the end yields zeros and sets @bad, so that a caller may read several fields and
 * look once. What cursor_bytes() returned is valid until the next call that reads.
 */
typedef struct Cursor {
    const guint8 *data; /* a mapped file, or the window */
    gsize size;
    gsize at;
    gboolean bad;
    guint64 base;        /* the position of data[0] */
    ImageSource *source; /* where the window is filled from; NULL: @data is all there is */
    guint8 *window;      /* owned; @data where there is a source */
    gsize capacity;
    GError *error; /* of the source: why @bad was set */
} Cursor;

/* On a mapped source, or at the start of one that is read front to back. */
void cursor_init(Cursor *cursor, ImageSource *source);
void cursor_clear(Cursor *cursor);

/* The position in the stream's file or decompressed bytes. */
guint64 cursor_tell(const Cursor *cursor);
/* Goes to @position; back only as far as the window reaches. FALSE (and @bad) where it cannot. */
gboolean cursor_seek(Cursor *cursor, guint64 position);
/* Whether @length bytes follow; of a window source, reads them. @length is what the caller can
 * afford in memory. */
gboolean cursor_has(Cursor *cursor, gsize length);
/* @length bytes, or NULL. */
const guint8 *cursor_bytes(Cursor *cursor, gsize length);
guint8 cursor_u8(Cursor *cursor);
guint16 cursor_u16(Cursor *cursor);
guint32 cursor_u32(Cursor *cursor);
guint64 cursor_u64(Cursor *cursor);
/* The next byte without taking it; -1 at the end. */
int cursor_peek(Cursor *cursor);
/* A name with one byte for its length; NULL where it is cut off or empty. The caller frees. */
char *cursor_name(Cursor *cursor);
