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
} IndexWriter;

static gboolean index_begin(ImageWriter *writer, const ImageHead *head, GError **errp)
{
    IndexWriter *w = (IndexWriter *)writer;

    if (!w->inner->begin(w->inner, head, errp)) {
        return FALSE;
    }
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

static gboolean index_page(ImageWriter *writer, guint block, guint64 offset, const void *data,
                           gsize length, GError **errp)
{
    IndexWriter *w = (IndexWriter *)writer;
    Hash128 hashes[PAGES_AT_ONCE];
    gsize page = (gsize)1 << w->page_bits;

    for (gsize done = 0; done < length;) {
        gsize part = MIN(length - done, (gsize)PAGES_AT_ONCE << w->page_bits);
        const guint8 *from = (const guint8 *)data + done;
        for (gsize at = 0; at < part; at += page) {
            hash128(from + at, page, &hashes[at >> w->page_bits]);
        }
        if (!w->inner->page(w->inner, block, offset + done, from, part, errp)) {
            return FALSE;
        }
        add_run(w, block, offset + done, part, INDEX_HERE, w->inner->place, hashes);
        done += part;
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
    image_writer_free(((IndexWriter *)writer)->inner);
    g_free(writer);
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
