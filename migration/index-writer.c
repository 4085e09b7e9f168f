/*
 * Hashes what goes by to a writer and writes the index behind its image. Each page is hashed right
 * before it is written, while it is on its way through the cache anyway.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/image-writer.h"

/* Pages hashed at once: a batch of the sweep. */
#define PAGES_AT_ONCE 256

typedef struct IndexWriter {
    ImageWriter writer;
    ImageWriter *inner;
    ImageIndexBuilder *builder;
    guint page_bits;
    const ImageHead *head;
    /* Where pages may be kept; NULL for none. */
    const ImageChain *parent;
    guint *parent_blocks;   /* of each block; G_MAXUINT: the parent has none of its name */
    guint looked_up_block;  /* what @found is about */
    guint64 looked_up_page; /* the first page of it, in our block */
    ChainPages found;
    guint64 kept_bytes;
} IndexWriter;

static gboolean index_begin(ImageWriter *writer, const ImageHead *head, GError **errp)
{
    IndexWriter *w = (IndexWriter *)writer;

    if (!w->inner->begin(w->inner, head, errp)) {
        return FALSE;
    }
    w->head = head;
    w->page_bits = head->target_page_bits;
    writer->stride = w->inner->stride;
    for (guint i = 0; i < head->blocks->len; i++) {
        const ImageBlock *block = g_ptr_array_index(head->blocks, i);
        guint64 base = w->inner->base ? w->inner->base(w->inner, i) : G_MAXUINT64;
        image_index_builder_add_block(w->builder, block->name, block->used_length, block->page_size,
                                      block->flags, writer->stride, base);
    }
    return TRUE;
}

static void add_run(IndexWriter *w, guint block, guint64 offset, guint64 length, IndexKind kind,
                    guint64 place, const Hash128 *hashes)
{
    const IndexRun run = { .first = offset >> w->page_bits,
                           .count = length >> w->page_bits,
                           .place = place,
                           .hashes = hashes ? hashes->bytes : NULL,
                           .kind = (guint8)kind,
                           .source = (guint8)w->writer.source,
                           .when_ms = w->writer.when_ms };
    image_index_builder_add_run(w->builder, block, &run);
}

/* Looks up a page in the parent; pages that follow it are mostly found with it. */
static gboolean find_in_parent(IndexWriter *w, guint block, guint64 page)
{
    if (w->found.count && block == w->looked_up_block && page >= w->looked_up_page &&
        page - w->looked_up_page < w->found.count) {
        return TRUE;
    }
    w->found.count = 0;
    if (w->parent_blocks[block] == G_MAXUINT ||
        !image_chain_find(w->parent, w->parent_blocks[block], page, &w->found)) {
        return FALSE;
    }
    w->looked_up_block = block;
    w->looked_up_page = page;
    return TRUE;
}

/* Whether the parent has this page; for a format with fixed places, at its place in the file. */
static gboolean is_kept(IndexWriter *w, guint block, guint64 page, const Hash128 *hash)
{
    if (!w->parent || !find_in_parent(w, block, page) || w->found.run->kind != INDEX_HERE) {
        return FALSE;
    }
    guint64 there = w->found.page + (page - w->looked_up_page);
    if (!hash128_equal(index_run_hash(w->found.run, there), hash)) {
        return FALSE;
    }
    return w->inner->kept != INDEX_HERE ||
           (w->found.image == w->parent &&
            index_run_place(w->found.block, w->found.run, there) ==
                w->inner->base(w->inner, block) + (page << w->page_bits));
}

/* Pages that are all kept, or all written. */
static gboolean put_run(IndexWriter *w, guint block, guint64 offset, const guint8 *data,
                        gsize length, const Hash128 *hashes, gboolean kept, GError **errp)
{
    ImageWriter *inner = w->inner;
    IndexKind kind = kept ? inner->kept : INDEX_HERE;

    if (!(kept ? inner->keep(inner, block, offset, data, length, errp)
               : inner->page(inner, block, offset, data, length, errp))) {
        return FALSE;
    }
    w->kept_bytes += kept ? length : 0;
    add_run(w, block, offset, length, kind,
            kind == INDEX_HERE ? inner->place : offset >> w->page_bits, hashes);
    return TRUE;
}

/* @length is at most PAGES_AT_ONCE pages. */
static gboolean put_pages(IndexWriter *w, guint block, guint64 offset, const guint8 *data,
                          gsize length, GError **errp)
{
    Hash128 hashes[PAGES_AT_ONCE];
    gboolean kept[PAGES_AT_ONCE];
    gsize count = length >> w->page_bits;

    for (gsize i = 0; i < count; i++) {
        hash128(data + (i << w->page_bits), (gsize)1 << w->page_bits, &hashes[i]);
        kept[i] = is_kept(w, block, (offset >> w->page_bits) + i, &hashes[i]);
    }
    for (gsize i = 0, end; i < count; i = end) {
        for (end = i + 1; end < count && kept[end] == kept[i]; end++) {
        }
        gsize from = i << w->page_bits;
        if (!put_run(w, block, offset + from, data + from, (end - i) << w->page_bits, &hashes[i],
                     kept[i], errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean index_page(ImageWriter *writer, guint block, guint64 offset, const void *data,
                           gsize length, GError **errp)
{
    IndexWriter *w = (IndexWriter *)writer;

    for (gsize done = 0, part; done < length; done += part) {
        part = MIN(length - done, (gsize)PAGES_AT_ONCE << w->page_bits);
        if (!put_pages(w, block, offset + done, (const guint8 *)data + done, part, errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean index_zero(ImageWriter *writer, guint block, guint64 offset, guint64 length,
                           GError **errp)
{
    IndexWriter *w = (IndexWriter *)writer;

    if (!w->inner->zero(w->inner, block, offset, length, errp)) {
        return FALSE;
    }
    add_run(w, block, offset, length, INDEX_ZERO, 0, NULL);
    return TRUE;
}

static gboolean index_flush(ImageWriter *writer, GError **errp)
{
    ImageWriter *inner = ((IndexWriter *)writer)->inner;
    return inner->flush(inner, errp);
}

static gboolean index_device_state(ImageWriter *writer, const void *data, gsize length,
                                   GError **errp)
{
    IndexWriter *w = (IndexWriter *)writer;

    if (!w->inner->device_state(w->inner, data, length, errp)) {
        return FALSE;
    }
    image_index_builder_set_devices(w->builder, w->inner->devices_at, data, length);
    return TRUE;
}

static gboolean append(const void *data, gsize length, gpointer user, GError **errp)
{
    IndexWriter *w = user;
    ImageWriter *inner = w->inner;

    w->writer.trailer += length;
    return inner->append(inner, data, length, errp);
}

static gboolean index_finish(ImageWriter *writer, GError **errp)
{
    IndexWriter *w = (IndexWriter *)writer;

    if (!w->inner->finish(w->inner, errp)) {
        return FALSE;
    }
    writer->length = w->inner->length;
    return image_index_builder_write(w->builder, writer->length, append, w, NULL, errp);
}

static void index_free(ImageWriter *writer)
{
    IndexWriter *w = (IndexWriter *)writer;

    image_writer_free(w->inner);
    g_free(w->parent_blocks);
    g_free(w);
}

ImageWriter *index_writer_new(ImageWriter *inner, ImageIndexBuilder *builder)
{
    IndexWriter *w = g_new0(IndexWriter, 1);

    w->writer = (ImageWriter){
        .format = inner->format,
        .begin = index_begin,
        .page = index_page,
        .zero = index_zero,
        .flush = index_flush,
        .device_state = index_device_state,
        .finish = index_finish,
        .free = index_free,
    };
    w->inner = inner;
    w->builder = builder;
    return &w->writer;
}

void index_writer_set_parent(ImageWriter *writer, const ImageChain *parent, gboolean needed)
{
    IndexWriter *w = (IndexWriter *)writer;
    const ImageIndex *index = image_chain_get_index(parent);
    g_autofree char *path = g_canonicalize_filename(image_chain_get_path(parent), NULL);
    IndexParent from = { .path = path, .identity = index->identity, .needed = needed };

    memcpy(from.uuid, index->uuid, IMAGE_UUID_BYTES);
    image_index_builder_set_parent(w->builder, &from);
    w->parent = parent;
    w->parent_blocks = g_new(guint, w->head->blocks->len);
    for (guint i = 0; i < w->head->blocks->len; i++) {
        const ImageBlock *block = g_ptr_array_index(w->head->blocks, i);
        if (!image_index_find_block(index, block->name, &w->parent_blocks[i])) {
            w->parent_blocks[i] = G_MAXUINT;
        }
    }
}

guint64 index_writer_get_kept(const ImageWriter *writer)
{
    return ((const IndexWriter *)writer)->kept_bytes;
}
