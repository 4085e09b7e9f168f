/*
 * Images, as far as all formats agree: opening, walking, the device sections and what stands
 * behind.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "image-reader-impl.h"
#include "migration/image-chain.h"
#include "migration/device-state.h"
#include "stream-format.h"

/* Of a source that is not mapped: device state is read in steps until its end shows. */
#define DEVICES_FIRST ((gsize)256 * 1024)
#define DEVICES_MAX ((gsize)1024 * 1024 * 1024)
#define DESCRIPTION_MAX (64U * 1024 * 1024)

const char *image_kind_name(ImageKind kind)
{
    static const char *const names[] = { "stream", "mapped-ram", "devices", "incremental" };

    return names[kind];
}

gboolean image_reader_broken(ImageReader *reader, GError **errp, const char *format, ...)
{
    Cursor *cursor = &reader->cursor;

    if (cursor->error) {
        g_propagate_error(errp, g_steal_pointer(&cursor->error));
        return FALSE;
    }
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT, "%s: at byte %" G_GUINT64_FORMAT ": %s%s",
                reader->path, cursor_tell(cursor), cursor->bad ? "the image is cut off: " : "",
                text);
    return FALSE;
}

gboolean image_reader_unsupported(ImageReader *reader, GError **errp, const char *what,
                                  const char *name)
{
    g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED, "%s: %s \"%s\" is not supported",
                reader->path, what, name);
    return FALSE;
}

gboolean image_reader_footer(ImageReader *reader, GError **errp)
{
    guint8 type = cursor_u8(&reader->cursor);
    guint32 id = cursor_u32(&reader->cursor);

    if (reader->cursor.bad || type != STREAM_SECTION_FOOTER || id != reader->ram_id) {
        return image_reader_broken(reader, errp, "no footer behind the RAM section");
    }
    return TRUE;
}

ImageReader *image_reader_open(const char *path, guint64 offset, GError **errp)
{
    g_autoptr(ImageReader) reader = g_new0(ImageReader, 1);

    reader->path = g_strdup(!strcmp(path, "-") ? "standard input" : path);
    reader->head = image_head_new();
    reader->capabilities = g_ptr_array_new_with_free_func(g_free);
    reader->mapped = g_array_new(FALSE, TRUE, sizeof(ImageMappedBlock));
    reader->source = image_source_open(path, offset, errp);
    if (!reader->source) {
        return NULL;
    }
    cursor_init(&reader->cursor, reader->source);
    reader->layout.start = cursor_tell(&reader->cursor);
    if (!image_reader_read_head(reader, errp)) {
        return NULL;
    }
    return g_steal_pointer(&reader);
}

void image_reader_free(ImageReader *reader)
{
    if (!reader) {
        return;
    }
    image_index_free(reader->index);
    image_chain_free(reader->chain);
    cursor_clear(&reader->cursor);
    image_source_free(reader->source);
    g_array_unref(reader->mapped);
    g_ptr_array_unref(reader->capabilities);
    image_head_free(reader->head);
    g_free(reader->devices);
    g_free(reader->path);
    g_free(reader);
}

/* ---- What is told ---- */

int image_reader_get_fd(ImageReader *reader)
{
    return image_source_get_compression(reader->source) == IMAGE_COMPRESSION_NONE
               ? image_source_get_fd(reader->source)
               : -1;
}

ImageSource *image_reader_get_source(ImageReader *reader)
{
    return reader->source;
}

ImageKind image_reader_get_kind(ImageReader *reader)
{
    return reader->kind;
}

const ImageHead *image_reader_get_head(ImageReader *reader)
{
    return reader->head;
}

const GPtrArray *image_reader_get_capabilities(ImageReader *reader)
{
    return reader->capabilities;
}

const guint8 *image_reader_get_uuid(ImageReader *reader)
{
    return reader->has_uuid ? reader->uuid : NULL;
}

gboolean image_reader_is_mapped(ImageReader *reader)
{
    return !reader->cursor.source;
}

const ImageLayout *image_reader_get_layout(ImageReader *reader)
{
    return &reader->layout;
}

const ImageMappedBlock *image_reader_get_mapped_block(ImageReader *reader, guint index)
{
    return index < reader->mapped->len ? &g_array_index(reader->mapped, ImageMappedBlock, index)
                                       : NULL;
}

guint64 image_reader_get_place(ImageReader *reader, const void *data)
{
    return reader->cursor.base + (guint64)((const guint8 *)data - reader->cursor.data);
}

void image_reader_get_progress(ImageReader *reader, guint64 *done, guint64 *total)
{
    *total = image_source_get_file_size(reader->source);
    *done = image_reader_is_mapped(reader) ? cursor_tell(&reader->cursor)
                                           : image_source_get_file_done(reader->source);
}

/* ---- Walking ---- */

/* To the first byte behind the list of RAM blocks. */
static gboolean go_to_pages(ImageReader *reader, GError **errp)
{
    Cursor *cursor = &reader->cursor;

    if (cursor_tell(cursor) != reader->layout.pages && cursor->source) {
        if (!image_source_rewind(reader->source, errp)) {
            return FALSE;
        }
        cursor->base = 0;
        cursor->size = cursor->at = 0;
    }
    cursor->bad = FALSE;
    g_clear_error(&cursor->error);
    return cursor_seek(cursor, reader->layout.pages) ||
           image_reader_broken(reader, errp, "the image has become shorter");
}

/* EOF, and the description where there is one. */
static void find_end(ImageReader *reader)
{
    Cursor *cursor = &reader->cursor;

    cursor_u8(cursor);
    reader->layout.end = cursor_tell(cursor);
    if (cursor_peek(cursor) != STREAM_VMDESCRIPTION) {
        return;
    }
    cursor_u8(cursor);
    guint32 length = cursor_u32(cursor);
    const guint8 *text = length <= DESCRIPTION_MAX ? cursor_bytes(cursor, length) : NULL;
    if (text) {
        reader->layout.end = cursor_tell(cursor);
        g_free(reader->head->description);
        reader->head->description = g_strndup((const char *)text, length);
        reader->description_length = length;
    }
}

/* The sections from the cursor on; *length gets their length. */
static gboolean find_sections(ImageReader *reader, gsize *length, GError **errp)
{
    Cursor *cursor = &reader->cursor;
    gsize step = cursor->source ? DEVICES_FIRST : cursor->size - cursor->at;
    GError *error = NULL;

    for (;;) {
        gboolean more = cursor_has(cursor, step) && cursor->source;
        gsize there = cursor->size - cursor->at;
        g_autoptr(GPtrArray) sections =
            device_state_list_in_stream(cursor->data + cursor->at, there, length, &error);
        /* An EOF in the last byte may be anything as long as more can follow. */
        if (sections && (!more || *length + 1 < there)) {
            return TRUE;
        }
        if (!more || step >= DEVICES_MAX) {
            break;
        }
        g_clear_error(&error);
        step *= 2;
    }
    if (cursor->error) {
        g_clear_error(&error);
        return image_reader_broken(reader, errp, "the device sections");
    }
    g_propagate_prefixed_error(errp, error, "%s: ", reader->path);
    return FALSE;
}

static gboolean take_sections(ImageReader *reader, GError **errp)
{
    Cursor *cursor = &reader->cursor;
    gsize length = 0;

    reader->layout.devices = cursor_tell(cursor);
    if (!find_sections(reader, &length, errp)) {
        return FALSE;
    }
    reader->layout.eof = reader->layout.devices + length;
    if (cursor->source) {
        g_free(reader->devices);
        reader->devices = g_memdup2(cursor->data + cursor->at, length);
    }
    cursor->at += length;
    find_end(reader);
    return TRUE;
}

static gboolean walk_all(ImageReader *reader, ImagePageFunc func, gpointer user, GError **errp)
{
    return go_to_pages(reader, errp) && reader->walk(reader, func, user, errp) &&
           take_sections(reader, errp);
}

gboolean image_reader_foreach_page(ImageReader *reader, ImagePageFunc func, gpointer user,
                                   GError **errp)
{
    ImageHead *head = reader->head;

    if (func || head->send_page_bits || head->target_page_bits != 12 ||
        reader->kind != IMAGE_KIND_STREAM) {
        return walk_all(reader, func, user, errp);
    }
    if (walk_all(reader, NULL, NULL, errp)) {
        return TRUE;
    }
    /* A stream that says nothing may be of an ARM machine with its legacy page of 1 KiB. */
    head->target_page_bits = 10;
    if (walk_all(reader, NULL, NULL, NULL)) {
        g_clear_error(errp);
        return TRUE;
    }
    head->target_page_bits = 12;
    return FALSE;
}

gboolean image_reader_get_device_state(ImageReader *reader, const guint8 **data, gsize *length,
                                       GError **errp)
{
    const ImageLayout *layout = &reader->layout;

    if (!layout->eof && !image_reader_foreach_page(reader, NULL, NULL, errp)) {
        return FALSE;
    }
    *data = reader->devices ? reader->devices : reader->cursor.data + layout->devices;
    *length = layout->eof - layout->devices;
    return TRUE;
}

const char *image_reader_get_description(ImageReader *reader, gsize *length)
{
    *length = reader->description_length;
    return reader->head->description;
}
