/*
 * What the parts of the image reader share: a mapped file and a cursor that never leaves it. A
 * format adds one function that walks its pages. Only image-reader*.c may include this.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "migration/image-reader.h"

/*
 * Reading past the end yields zeros and sets @bad, so that a caller may read several fields and
 * look once.
 */
typedef struct Cursor {
    const guint8 *data;
    gsize size;
    gsize at;
    gboolean bad;
} Cursor;

/* @length bytes, or NULL. */
const guint8 *cursor_bytes(Cursor *cursor, gsize length);
guint8 cursor_u8(Cursor *cursor);
guint16 cursor_u16(Cursor *cursor);
guint32 cursor_u32(Cursor *cursor);
guint64 cursor_u64(Cursor *cursor);
/* The next byte without taking it; -1 at the end. */
int cursor_peek(const Cursor *cursor);
/* A name with one byte for its length; NULL where it is cut off or empty. The caller frees. */
char *cursor_name(Cursor *cursor);

struct ImageReader {
    char *path;
    int fd;
    guint8 *map;
    gsize size;
    ImageHead *head;
    guint32 ram_id;
    ImageLayout layout;
    /* The format's: walks the pages and returns the cursor at the first device section. */
    gboolean (*walk)(ImageReader *reader, Cursor *cursor, ImagePageFunc func, gpointer user,
                     GError **errp);
};

/* SF_ERROR_FORMAT with path and position before the text. Returns FALSE. */
gboolean image_reader_broken(ImageReader *reader, const Cursor *cursor, GError **errp,
                             const char *format, ...) G_GNUC_PRINTF(4, 5);
/* The footer of the ram section. */
gboolean image_reader_footer(ImageReader *reader, Cursor *cursor, GError **errp);

/* image-reader-stream.c: pages as records, in any order. */
gboolean stream_pages_walk(ImageReader *reader, Cursor *cursor, ImagePageFunc func, gpointer user,
                           GError **errp);
