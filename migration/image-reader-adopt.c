/*
 * Knowing an image from its index alone: a restore that reads pages when they are asked for must
 * not walk through all of them first.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "image-reader-impl.h"

static gboolean kind_agrees(const ImageReader *reader, const ImageIndex *index)
{
    return (reader->kind == IMAGE_KIND_STREAM && index->format == IMAGE_FORMAT_STREAM) ||
           (reader->kind == IMAGE_KIND_MAPPED_RAM && index->format == IMAGE_FORMAT_MAPPED_RAM);
}

/* A stream that says nothing of its pages may be of an ARM machine with 1 KiB: the index knows. */
static gboolean page_size_agrees(const ImageReader *reader, const ImageIndex *index)
{
    return index->page_size == 1ULL << reader->head->target_page_bits ||
           (index->page_size == 1024 && !reader->head->send_page_bits);
}

static gboolean blocks_agree(const ImageReader *reader, const ImageIndex *index)
{
    const GPtrArray *blocks = reader->head->blocks;

    if (blocks->len != index->blocks->len) {
        return FALSE;
    }
    for (guint i = 0; i < blocks->len; i++) {
        const ImageBlock *there = g_ptr_array_index(blocks, i);
        const IndexBlock *here = g_ptr_array_index(index->blocks, i);
        if (strcmp(there->name, here->name) != 0 || there->used_length != here->used_length) {
            return FALSE;
        }
    }
    return TRUE;
}

/* Another image may stand in the same file, before or behind this one. */
static gboolean places_agree(const ImageReader *reader, const ImageIndex *index)
{
    guint64 start = reader->layout.start;
    guint64 size = reader->cursor.size;
    guint64 trailer = size - index->trailer_length;

    return index->trailer_length <= size && index->image_length <= trailer &&
           trailer - index->image_length == start && index->devices_at <= index->image_length &&
           index->devices_length <= index->image_length - index->devices_at &&
           start + index->devices_at >= reader->layout.pages;
}

static gboolean check_devices(const ImageReader *reader, const ImageIndex *index, GError **errp)
{
    Hash128 hash;

    hash128(reader->cursor.data + reader->layout.start + index->devices_at, index->devices_length,
            &hash);
    if (!hash128_equal(&hash, &index->devices_hash)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                    "%s is damaged: the device sections are not what its index says; \"stillframe "
                    "verify\" tells what else is",
                    reader->path);
        return FALSE;
    }
    return TRUE;
}

static void adopt(ImageReader *reader, ImageIndex *index)
{
    ImageLayout *layout = &reader->layout;

    layout->devices = layout->start + index->devices_at;
    layout->eof = layout->devices + index->devices_length;
    layout->end = layout->start + index->image_length;
    while (1ULL << reader->head->target_page_bits > index->page_size) {
        reader->head->target_page_bits--;
    }
    reader->index = index;
}

const ImageIndex *image_reader_adopt_index(ImageReader *reader, GError **errp)
{
    gboolean found = FALSE;
    GError *error = NULL;

    if (reader->index || reader->cursor.source) {
        return reader->index;
    }
    g_autoptr(ImageIndex) index =
        image_index_find(reader->cursor.data, reader->cursor.size, &found, &error);
    if (!index && found) {
        g_propagate_prefixed_error(errp, error, "%s: ", reader->path);
        return NULL;
    }
    g_clear_error(&error);
    if (!index || !kind_agrees(reader, index) || !page_size_agrees(reader, index) ||
        !blocks_agree(reader, index) || !places_agree(reader, index) ||
        !check_devices(reader, index, errp)) {
        return NULL;
    }
    adopt(reader, g_steal_pointer(&index));
    return reader->index;
}
