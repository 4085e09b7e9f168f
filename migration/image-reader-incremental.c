/*
 * The pages of an incremental image: what is not in it is in one of its parents. Its own stream of
 * pages is not walked, for the index tells where each of them is.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "image-reader-impl.h"
#include "migration/image-chain.h"

static gboolean tell_pages(ImageReader *reader, guint block, guint64 first, const ChainPages *pages,
                           ImagePageFunc func, gpointer user, GError **errp)
{
    guint64 page_size = 1ULL << reader->head->target_page_bits;

    if (pages->run->kind == INDEX_ZERO) {
        return func(block, first * page_size, NULL, pages->count * page_size, user, errp);
    }
    for (guint64 n = 0; n < pages->count; n++) {
        const guint8 *data = image_chain_get_data(pages, n, errp);
        if (!data || !func(block, (first + n) * page_size, data, page_size, user, errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean walk_block(ImageReader *reader, guint block, ImagePageFunc func, gpointer user,
                           GError **errp)
{
    const ImageBlock *b = g_ptr_array_index(reader->head->blocks, block);
    guint64 pages = b->used_length >> reader->head->target_page_bits;
    ChainPages found;

    for (guint64 page = 0; page < pages; page += found.count) {
        if (!image_chain_find(reader->chain, block, page, &found)) {
            g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                        "%s: page %" G_GUINT64_FORMAT
                        " of RAM block %s is neither in it nor in its parents",
                        reader->path, page, b->name);
            return FALSE;
        }
        found.count = MIN(found.count, pages - page);
        if (func && !tell_pages(reader, block, page, &found, func, user, errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

/* The index must be of this image: the head of both is compared. */
static gboolean check_index(ImageReader *reader, const ImageIndex *index, GError **errp)
{
    const ImageHead *head = reader->head;
    gboolean good = index->format == IMAGE_FORMAT_INCREMENTAL &&
                    index->page_size == 1ULL << head->target_page_bits &&
                    index->blocks->len == head->blocks->len;

    for (guint i = 0; good && i < head->blocks->len; i++) {
        const IndexBlock *ours = g_ptr_array_index(index->blocks, i);
        const ImageBlock *block = g_ptr_array_index(head->blocks, i);
        good = g_str_equal(ours->name, block->name) && ours->used_length == block->used_length;
    }
    if (!good) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT, "%s: its index is of another image",
                    reader->path);
    }
    return good;
}

gboolean incremental_open(ImageReader *reader, GError **errp)
{
    if (!image_reader_is_mapped(reader)) {
        return image_reader_unsupported(reader, errp, "an incremental image that is not a file",
                                        reader->path);
    }
    reader->chain = image_chain_open(reader->path, errp);
    reader->walk = incremental_pages_walk;
    return reader->chain && check_index(reader, image_chain_get_index(reader->chain), errp);
}

gboolean incremental_pages_walk(ImageReader *reader, ImagePageFunc func, gpointer user,
                                GError **errp)
{
    const ImageIndex *index = image_chain_get_index(reader->chain);

    for (guint i = 0; i < reader->head->blocks->len; i++) {
        if (!walk_block(reader, i, func, user, errp)) {
            return FALSE;
        }
    }
    /* Within the file: the index was read behind image_length bytes, and this lies in them. */
    reader->cursor.at = reader->layout.start + index->devices_at;
    return TRUE;
}
