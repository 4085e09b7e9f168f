/*
 * QEMU's mapped-ram file (since 9.0): a stream in which each page has its own place, and a bitmap
 * for each block that tells which pages are there. Page contents are never copied here.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <limits.h>
#include <string.h>

#include "stream-format.h"
#include "stream-parts.h"

/* What QEMU's own writer does; its loader asks for the target page size only. */
#define PAGES_ALIGN (1ULL << 20)
/* Pieces of memory that one write takes. */
#define MAPPED_IOVECS 128

typedef struct MappedBlock {
    guint64 bitmap_at; /* from the image's beginning */
    guint64 pages_at;
    gsize words;
    guint64 *bitmap;  /* a bit of 1: the page is in the file */
    guint64 *written; /* in a clone: it was written over; else NULL */
} MappedBlock;

typedef struct MappedWriter {
    ImageWriter writer;
    Channel *channel;
    const ImageHead *head;
    GArray *blocks; /* MappedBlock */
    guint64 tail;   /* behind the last block's pages; then as far as was written */
    gboolean ram_ended;
    gboolean clone; /* the file began as its parent's */
    /* Pieces that belong one behind the other in the file, not written yet. */
    guint64 pending_at;
    guint64 pending_bytes;
    int iovecs;
    struct iovec iov[MAPPED_IOVECS];
} MappedWriter;

static void mapped_block_clear(gpointer data)
{
    g_free(((MappedBlock *)data)->bitmap);
    g_free(((MappedBlock *)data)->written);
}

static MappedBlock *get_block(MappedWriter *w, guint block)
{
    return &g_array_index(w->blocks, MappedBlock, block);
}

static gboolean write_pending(MappedWriter *w, GError **errp)
{
    int count = w->iovecs;

    w->iovecs = 0;
    return !count || channel_pwritev(w->channel, w->iov, count, w->pending_at, errp);
}

static gboolean write_at(MappedWriter *w, const void *data, gsize length, guint64 position,
                         GError **errp)
{
    struct iovec iov = { (void *)data, length };
    return channel_pwritev(w->channel, &iov, 1, position, errp);
}

/* At the tail, which moves on. */
static gboolean write_tail(MappedWriter *w, const void *data, gsize length, GError **errp)
{
    guint64 at = w->tail;

    w->tail += length;
    return write_at(w, data, length, at, errp);
}

/* An entry of the list of blocks: name, length, header. Places in it are those of the file. */
static void put_block(MappedWriter *w, GByteArray *out, const ImageBlock *block)
{
    guint64 offset = channel_get_offset(w->channel);
    guint64 page_size = 1ULL << w->head->target_page_bits;
    MappedBlock mapped = { .words = (block->used_length / page_size + 63) / 64 };

    mapped.bitmap = g_new0(guint64, mapped.words);
    mapped.written = w->clone ? g_new0(guint64, mapped.words) : NULL;
    mapped.bitmap_at = w->tail + out->len + 1 + strlen(block->name) + 8 + STREAM_MAPPED_BYTES;
    guint64 behind = offset + mapped.bitmap_at + mapped.words * sizeof(guint64);
    mapped.pages_at = (behind + PAGES_ALIGN - 1) / PAGES_ALIGN * PAGES_ALIGN - offset;
    stream_put_name(out, block->name);
    stream_put_u64(out, block->used_length);
    stream_put_u32(out, STREAM_MAPPED_VERSION);
    stream_put_u64(out, page_size);
    stream_put_u64(out, offset + mapped.bitmap_at);
    stream_put_u64(out, offset + mapped.pages_at);
    g_array_append_val(w->blocks, mapped);
}

static gboolean mapped_begin(ImageWriter *writer, const ImageHead *head, GError **errp)
{
    MappedWriter *w = (MappedWriter *)writer;
    g_autoptr(GByteArray) out = g_byte_array_new();

    if (!stream_check_head(head, errp)) {
        return FALSE;
    }
    w->head = head;
    writer->stride = 1ULL << head->target_page_bits;
    stream_put_u32(out, STREAM_MAGIC);
    stream_put_u32(out, STREAM_VERSION);
    stream_put_head(out, head, STREAM_CAPABILITY_MAPPED_RAM);
    for (guint i = 0; i < head->blocks->len; i++) {
        const ImageBlock *block = g_ptr_array_index(head->blocks, i);
        put_block(w, out, block);
        if (!write_at(w, out->data, out->len, w->tail, errp)) {
            return FALSE;
        }
        w->tail = get_block(w, i)->pages_at + block->used_length;
        g_byte_array_set_size(out, 0);
    }
    stream_put_ram_footer(out);
    /* What the parent had behind its pages: device sections, its index. */
    return (!w->clone || channel_truncate(w->channel, w->tail, errp)) &&
           write_tail(w, out->data, out->len, errp);
}

static gboolean check_range(MappedWriter *w, guint block, guint64 offset, guint64 length,
                            GError **errp)
{
    if (w->ram_ended) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FAILED, "a page behind the end of the RAM section");
        return FALSE;
    }
    return stream_check_range(w->head, block, offset, length, errp);
}

static void set_bits(MappedWriter *w, guint block, guint64 offset, guint64 length, gboolean there)
{
    guint64 *bitmap = get_block(w, block)->bitmap;
    guint bits = w->head->target_page_bits;

    for (guint64 page = offset >> bits; page < (offset + length) >> bits; page++) {
        guint64 bit = 1ULL << page % 64;
        bitmap[page / 64] = there ? bitmap[page / 64] | bit : bitmap[page / 64] & ~bit;
    }
}

static void note_written(MappedWriter *w, guint block, guint64 offset, guint64 length)
{
    guint64 *written = get_block(w, block)->written;
    guint bits = w->head->target_page_bits;

    for (guint64 page = offset >> bits; written && page < (offset + length) >> bits; page++) {
        written[page / 64] |= 1ULL << page % 64;
    }
}

static gboolean mapped_page(ImageWriter *writer, guint block, guint64 offset, const void *data,
                            gsize length, GError **errp)
{
    MappedWriter *w = (MappedWriter *)writer;

    if (!check_range(w, block, offset, length, errp)) {
        return FALSE;
    }
    writer->place = get_block(w, block)->pages_at + offset;
    set_bits(w, block, offset, length, TRUE);
    note_written(w, block, offset, length);
    if (w->iovecs == MAPPED_IOVECS || w->pending_at + w->pending_bytes != writer->place) {
        if (!write_pending(w, errp)) {
            return FALSE;
        }
    }
    if (!w->iovecs) {
        w->pending_at = writer->place;
        w->pending_bytes = 0;
    }
    w->iov[w->iovecs++] = (struct iovec){ (void *)data, length };
    w->pending_bytes += length;
    return TRUE;
}

static gboolean was_written(MappedWriter *w, guint block, guint64 offset, guint64 length)
{
    const guint64 *written = get_block(w, block)->written;
    guint bits = w->head->target_page_bits;

    for (guint64 page = offset >> bits; page < (offset + length) >> bits; page++) {
        if (written[page / 64] >> page % 64 & 1) {
            return TRUE;
        }
    }
    return FALSE;
}

/* The parent's bytes are there, unless an earlier copy of the page was written over them. */
static gboolean clone_keep(ImageWriter *writer, guint block, guint64 offset, const void *data,
                           gsize length, GError **errp)
{
    MappedWriter *w = (MappedWriter *)writer;

    if (!check_range(w, block, offset, length, errp)) {
        return FALSE;
    }
    if (was_written(w, block, offset, length)) {
        return mapped_page(writer, block, offset, data, length, errp);
    }
    writer->place = get_block(w, block)->pages_at + offset;
    set_bits(w, block, offset, length, TRUE);
    return TRUE;
}

/* The file is new: what is not written is a hole. Of what was, nobody reads the old bytes. */
static gboolean mapped_zero(ImageWriter *writer, guint block, guint64 offset, guint64 length,
                            GError **errp)
{
    MappedWriter *w = (MappedWriter *)writer;

    if (!check_range(w, block, offset, length, errp)) {
        return FALSE;
    }
    set_bits(w, block, offset, length, FALSE);
    return TRUE;
}

static guint64 mapped_base(ImageWriter *writer, guint block)
{
    return get_block((MappedWriter *)writer, block)->pages_at;
}

static gboolean mapped_flush(ImageWriter *writer, GError **errp)
{
    return write_pending((MappedWriter *)writer, errp);
}

/* QEMU writes its bitmap as it is in memory: words of 64 bits, little-endian on all its hosts. */
static gboolean write_bitmaps(MappedWriter *w, GError **errp)
{
    for (guint i = 0; i < w->blocks->len; i++) {
        MappedBlock *block = get_block(w, i);
        g_autofree guint64 *words = g_new(guint64, block->words);
        for (gsize n = 0; n < block->words; n++) {
            words[n] = GUINT64_TO_LE(block->bitmap[n]);
        }
        if (!write_at(w, words, block->words * sizeof(guint64), block->bitmap_at, errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean mapped_device_state(ImageWriter *writer, const void *data, gsize length,
                                    GError **errp)
{
    MappedWriter *w = (MappedWriter *)writer;
    g_autoptr(GByteArray) end = g_byte_array_new();

    stream_put_ram_end(end);
    w->ram_ended = TRUE;
    if (!write_pending(w, errp) || !write_bitmaps(w, errp) ||
        !write_tail(w, end->data, end->len, errp)) {
        return FALSE;
    }
    writer->devices_at = w->tail;
    return write_tail(w, data, length, errp);
}

static gboolean mapped_finish(ImageWriter *writer, GError **errp)
{
    MappedWriter *w = (MappedWriter *)writer;
    g_autoptr(GByteArray) end = g_byte_array_new();

    if (!w->ram_ended) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FAILED, "an image cannot end without device state");
        return FALSE;
    }
    stream_put_end(end, w->head);
    if (!write_tail(w, end->data, end->len, errp)) {
        return FALSE;
    }
    writer->length = w->tail;
    return TRUE;
}

static gboolean mapped_append(ImageWriter *writer, const void *data, gsize length, GError **errp)
{
    return write_tail((MappedWriter *)writer, data, length, errp);
}

static void mapped_free(ImageWriter *writer)
{
    MappedWriter *w = (MappedWriter *)writer;

    g_array_unref(w->blocks);
    g_free(w);
}

ImageWriter *mapped_writer_new(Channel *channel, GError **errp)
{
    if (!channel_has_places(channel)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "a mapped-ram image needs a regular file, where each page has its place; give "
                    "file:PATH, or choose --format stream");
        return NULL;
    }
    MappedWriter *w = g_new0(MappedWriter, 1);
    w->writer = (ImageWriter){
        .format = IMAGE_FORMAT_MAPPED_RAM,
        .begin = mapped_begin,
        .page = mapped_page,
        .zero = mapped_zero,
        .base = mapped_base,
        .flush = mapped_flush,
        .device_state = mapped_device_state,
        .finish = mapped_finish,
        .append = mapped_append,
        .free = mapped_free,
    };
    w->channel = channel;
    w->blocks = g_array_new(FALSE, FALSE, sizeof(MappedBlock));
    g_array_set_clear_func(w->blocks, mapped_block_clear);
    return &w->writer;
}

ImageWriter *mapped_writer_new_clone(Channel *channel, int parent, GError **errp)
{
    gboolean cloned = FALSE;

    if (!channel_clone(channel, parent, &cloned, errp) || !cloned) {
        return NULL;
    }
    ImageWriter *writer = mapped_writer_new(channel, errp);
    if (writer) {
        ((MappedWriter *)writer)->clone = TRUE;
        writer->keep = clone_keep;
        writer->kept = INDEX_HERE;
    }
    return writer;
}
