/*
 * The index behind an image, found wherever the image comes from.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "image-index-format.h"
#include "image-reader-impl.h"

/* Of a source that is not mapped: an index takes some 17 bytes for each page. */
#define TRAILER_FIRST ((gsize)1024 * 1024)
#define TRAILER_MAX ((gsize)4 * 1024 * 1024 * 1024)

/* All that is left of a source that is read front to back. */
static const guint8 *read_rest(ImageReader *reader, gsize *length)
{
    Cursor *cursor = &reader->cursor;
    gsize step = TRAILER_FIRST;

    while (cursor_has(cursor, step) && step < TRAILER_MAX) {
        step *= 2;
    }
    *length = cursor->size - cursor->at;
    return cursor->data + cursor->at;
}

/* As image_index_find(), but for one that must begin right here. */
static ImageIndex *parse_rest(ImageReader *reader, gboolean *found, GError **errp)
{
    gsize length;
    const guint8 *data = read_rest(reader, &length);

    *found = length > 0;
    return length ? image_index_parse(data, length, NULL, errp) : NULL;
}

/* An index is found by its end. One that lost it still begins behind the image. */
static gboolean begins_index(ImageReader *reader)
{
    const Cursor *cursor = &reader->cursor;
    guint64 end = reader->layout.end;

    return !cursor->source && end < cursor->size &&
           !memcmp(cursor->data + end, INDEX_MAGIC, MIN(INDEX_MAGIC_BYTES, cursor->size - end));
}

const ImageIndex *image_reader_find_index(ImageReader *reader, GError **errp)
{
    gboolean found = FALSE;
    GError *error = NULL;

    if (reader->index) {
        return reader->index;
    }
    if (!reader->layout.eof && !image_reader_foreach_page(reader, NULL, NULL, errp)) {
        return NULL;
    }
    reader->index = reader->cursor.source ? parse_rest(reader, &found, &error)
                                          : image_index_find(reader->cursor.data,
                                                             reader->cursor.size, &found, &error);
    if (!reader->index && !found && begins_index(reader)) {
        g_clear_error(&error);
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT, "%s: its index is cut off", reader->path);
        return NULL;
    }
    if (!reader->index && found) {
        g_propagate_prefixed_error(errp, error, "%s: ", reader->path);
        return NULL;
    }
    g_clear_error(&error);
    return reader->index;
}
