/*
 * The cursor of the image reader.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "image-cursor.h"

#define WINDOW_BYTES (1024 * 1024)

void cursor_init(Cursor *cursor, ImageSource *source)
{
    gsize size;
    const guint8 *map = image_source_get_map(source, &size);

    *cursor = (Cursor){ 0 };
    if (map) {
        cursor->data = map;
        cursor->size = size;
        cursor->at = MIN(image_source_get_start(source), size);
    } else {
        cursor->source = source;
        cursor->capacity = WINDOW_BYTES;
        cursor->data = cursor->window = g_malloc(WINDOW_BYTES);
    }
}

void cursor_clear(Cursor *cursor)
{
    g_free(cursor->window);
    g_clear_error(&cursor->error);
    *cursor = (Cursor){ 0 };
}

guint64 cursor_tell(const Cursor *cursor)
{
    return cursor->base + cursor->at;
}

/* Moves what is left to the front of the window and makes room for @length bytes. */
static void make_room(Cursor *cursor, gsize length)
{
    memmove(cursor->window, cursor->window + cursor->at, cursor->size - cursor->at);
    cursor->size -= cursor->at;
    cursor->base += cursor->at;
    cursor->at = 0;
    if (cursor->capacity < length) {
        cursor->capacity = length;
        cursor->window = g_realloc(cursor->window, length);
        cursor->data = cursor->window;
    }
}

gboolean cursor_has(Cursor *cursor, gsize length)
{
    if (length <= cursor->size - cursor->at) {
        return TRUE;
    }
    if (!cursor->source || cursor->error) {
        return FALSE;
    }
    make_room(cursor, length);
    while (cursor->size < length) {
        gssize got = image_source_read(cursor->source, cursor->window + cursor->size,
                                       cursor->capacity - cursor->size, &cursor->error);
        if (got <= 0) {
            return FALSE;
        }
        cursor->size += (gsize)got;
    }
    return TRUE;
}

gboolean cursor_seek(Cursor *cursor, guint64 position)
{
    if (position < cursor->base || cursor->bad) {
        cursor->bad = TRUE;
        return FALSE;
    }
    while (position - cursor->base > cursor->size) {
        cursor->at = cursor->size;
        if (!cursor_has(cursor, 1)) {
            cursor->bad = TRUE;
            return FALSE;
        }
    }
    cursor->at = position - cursor->base;
    return TRUE;
}

const guint8 *cursor_bytes(Cursor *cursor, gsize length)
{
    if (cursor->bad || !cursor_has(cursor, length)) {
        cursor->bad = TRUE;
        return NULL;
    }
    const guint8 *bytes = cursor->data + cursor->at;
    cursor->at += length;
    return bytes;
}

/* Copies the next bytes; @to is left alone where there are not so many. */
static void cursor_copy(Cursor *cursor, void *to, gsize length)
{
    const guint8 *bytes = cursor_bytes(cursor, length);

    if (bytes) {
        memcpy(to, bytes, length);
    }
}

guint8 cursor_u8(Cursor *cursor)
{
    guint8 value = 0;

    cursor_copy(cursor, &value, sizeof(value));
    return value;
}

guint16 cursor_u16(Cursor *cursor)
{
    guint16 value = 0;

    cursor_copy(cursor, &value, sizeof(value));
    return GUINT16_FROM_BE(value);
}

guint32 cursor_u32(Cursor *cursor)
{
    guint32 value = 0;

    cursor_copy(cursor, &value, sizeof(value));
    return GUINT32_FROM_BE(value);
}

guint64 cursor_u64(Cursor *cursor)
{
    guint64 value = 0;

    cursor_copy(cursor, &value, sizeof(value));
    return GUINT64_FROM_BE(value);
}

int cursor_peek(Cursor *cursor)
{
    return cursor->bad || !cursor_has(cursor, 1) ? -1 : cursor->data[cursor->at];
}

char *cursor_name(Cursor *cursor)
{
    guint8 length = cursor_u8(cursor);
    const guint8 *bytes = cursor_bytes(cursor, length);

    /* A NUL inside would make two names look alike. */
    return bytes && length && !memchr(bytes, 0, length) ? g_strndup((const char *)bytes, length)
                                                        : NULL;
}
