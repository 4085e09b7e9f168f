/*
 * QEMU's migration stream, version 3. Page contents are never copied here: headers collect in an
 * arena, and an I/O vector alternates between them and the caller's memory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "migration/image-writer.h"
#include "stream-format.h"
#include "stream-parts.h"

/* What one writev() takes: IOV_MAX entries, that is 512 pages with their headers. */
#define STREAM_IOVECS 1024
/* Headers between two writes; zero pages, 9 bytes each, fill it long before the vector is full. */
#define STREAM_ARENA (128 * 1024)
/* The most that one record puts into the arena: word, name with its length, fill byte. */
#define STREAM_RECORD_MAX (8 + 1 + STREAM_NAME_MAX + 1)
#define NO_BLOCK G_MAXUINT

typedef struct StreamWriter {
    ImageWriter writer;
    Channel *channel;
    guint32 magic;
    guint32 version;
    const ImageHead *head;
    guint64 written;    /* bytes from the image's beginning, with those that wait */
    gboolean in_part;   /* a SECTION_PART is open */
    gboolean ram_ended; /* SECTION_END is written */
    guint last_block;   /* what CONTINUE would mean; NO_BLOCK at the beginning of a section */
    int iovecs;
    gsize arena_used;
    struct iovec iov[STREAM_IOVECS];
    guint8 arena[STREAM_ARENA];
} StreamWriter;

/* Writes all that was collected. */
static gboolean write_out(StreamWriter *w, GError **errp)
{
    int count = w->iovecs;

    w->iovecs = 0;
    w->arena_used = 0;
    return channel_writev(w->channel, w->iov, count, errp);
}

/* Makes sure that a record with one piece of foreign data fits. */
static gboolean make_room(StreamWriter *w, GError **errp)
{
    if (w->iovecs + 2 <= STREAM_IOVECS && w->arena_used + STREAM_RECORD_MAX <= STREAM_ARENA) {
        return TRUE;
    }
    return write_out(w, errp);
}

/* Puts @length bytes into the arena; room was made. A run of them is one entry of the vector. */
static void put(StreamWriter *w, const void *data, gsize length)
{
    guint8 *at = w->arena + w->arena_used;
    struct iovec *last = w->iovecs ? &w->iov[w->iovecs - 1] : NULL;

    memcpy(at, data, length);
    w->arena_used += length;
    w->written += length;
    if (last && (guint8 *)last->iov_base + last->iov_len == at) {
        last->iov_len += length;
    } else {
        w->iov[w->iovecs++] = (struct iovec){ at, length };
    }
}

static void put_u8(StreamWriter *w, guint8 value)
{
    put(w, &value, sizeof(value));
}

static void put_u32(StreamWriter *w, guint32 value)
{
    value = GUINT32_TO_BE(value);
    put(w, &value, sizeof(value));
}

static void put_u64(StreamWriter *w, guint64 value)
{
    value = GUINT64_TO_BE(value);
    put(w, &value, sizeof(value));
}

static void put_name(StreamWriter *w, const char *name)
{
    gsize length = strlen(name);

    put_u8(w, (guint8)length);
    put(w, name, length);
}

/* Foreign data, which stays where it is. */
static void put_pointer(StreamWriter *w, const void *data, gsize length)
{
    w->written += length;
    w->iov[w->iovecs++] = (struct iovec){ (void *)data, length };
}

static void put_footer(StreamWriter *w)
{
    put_u64(w, RAM_FLAG_EOS);
    put_u8(w, STREAM_SECTION_FOOTER);
    put_u32(w, STREAM_RAM_ID);
}

/* Bytes that are written at once; nothing else is waiting. */
static gboolean write_bytes(StreamWriter *w, const GByteArray *bytes, GError **errp)
{
    struct iovec iov = { bytes->data, bytes->len };

    w->written += bytes->len;
    return channel_writev(w->channel, &iov, 1, errp);
}

static gboolean stream_begin(ImageWriter *writer, const ImageHead *head, GError **errp)
{
    StreamWriter *w = (StreamWriter *)writer;
    g_autoptr(GByteArray) out = g_byte_array_new();

    if (!stream_check_head(head, errp)) {
        return FALSE;
    }
    w->head = head;
    writer->stride = (1ULL << head->target_page_bits) + sizeof(guint64);
    stream_put_u32(out, w->magic);
    stream_put_u32(out, w->version);
    stream_put_head(out, head, NULL);
    for (guint i = 0; i < head->blocks->len; i++) {
        const ImageBlock *block = g_ptr_array_index(head->blocks, i);
        stream_put_name(out, block->name);
        stream_put_u64(out, block->used_length);
    }
    stream_put_ram_footer(out);
    return write_bytes(w, out, errp);
}

static gboolean check_range(StreamWriter *w, guint block, guint64 offset, guint64 length,
                            GError **errp)
{
    if (w->ram_ended) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FAILED, "a page behind the end of the RAM section");
        return FALSE;
    }
    return stream_check_range(w->head, block, offset, length, errp);
}

/* A PART's header where none is open. Its first page names its block: CONTINUE reaches not over. */
static void open_part(StreamWriter *w)
{
    if (!w->in_part) {
        put_u8(w, STREAM_SECTION_PART);
        put_u32(w, STREAM_RAM_ID);
        w->in_part = TRUE;
        w->last_block = NO_BLOCK;
    }
}

static void put_word(StreamWriter *w, guint block, guint64 word)
{
    if (block == w->last_block) {
        put_u64(w, word | RAM_FLAG_CONTINUE);
        return;
    }
    put_u64(w, word);
    put_name(w, ((const ImageBlock *)g_ptr_array_index(w->head->blocks, block))->name);
    w->last_block = block;
}

static gboolean stream_page(ImageWriter *writer, guint block, guint64 offset, const void *data,
                            gsize length, GError **errp)
{
    StreamWriter *w = (StreamWriter *)writer;
    gsize page = (gsize)1 << w->head->target_page_bits;

    if (!check_range(w, block, offset, length, errp) || !make_room(w, errp)) {
        return FALSE;
    }
    open_part(w);
    for (gsize done = 0; done < length; done += page) {
        if (!make_room(w, errp)) {
            return FALSE;
        }
        put_word(w, block, (offset + done) | RAM_FLAG_PAGE);
        writer->place = done ? writer->place : w->written;
        put_pointer(w, (const guint8 *)data + done, page);
    }
    return TRUE;
}

static gboolean stream_zero(ImageWriter *writer, guint block, guint64 offset, guint64 length,
                            GError **errp)
{
    StreamWriter *w = (StreamWriter *)writer;
    guint64 page = 1ULL << w->head->target_page_bits;

    if (!check_range(w, block, offset, length, errp) || !make_room(w, errp)) {
        return FALSE;
    }
    open_part(w);
    for (guint64 done = 0; done < length; done += page) {
        if (!make_room(w, errp)) {
            return FALSE;
        }
        put_word(w, block, (offset + done) | RAM_FLAG_ZERO);
        put_u8(w, 0);
    }
    return TRUE;
}

static gboolean close_part(StreamWriter *w, GError **errp)
{
    if (!w->in_part) {
        return TRUE;
    }
    if (!make_room(w, errp)) {
        return FALSE;
    }
    put_footer(w);
    w->in_part = FALSE;
    return TRUE;
}

/*
 * Each flush ends a PART. QEMU takes a section in one go, so this also bounds what its loader does
 * between two looks at its main loop.
 */
static gboolean stream_flush(ImageWriter *writer, GError **errp)
{
    StreamWriter *w = (StreamWriter *)writer;

    return close_part(w, errp) && write_out(w, errp);
}

static gboolean stream_device_state(ImageWriter *writer, const void *data, gsize length,
                                    GError **errp)
{
    StreamWriter *w = (StreamWriter *)writer;
    g_autoptr(GByteArray) end = g_byte_array_new();

    stream_put_ram_end(end);
    if (!close_part(w, errp) || !write_out(w, errp) || !write_bytes(w, end, errp)) {
        return FALSE;
    }
    w->ram_ended = TRUE;
    writer->devices_at = w->written;
    put_pointer(w, data, length);
    return TRUE;
}

static gboolean stream_finish(ImageWriter *writer, GError **errp)
{
    StreamWriter *w = (StreamWriter *)writer;
    g_autoptr(GByteArray) end = g_byte_array_new();

    if (!w->ram_ended) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FAILED, "an image cannot end without device state");
        return FALSE;
    }
    stream_put_end(end, w->head);
    if (!write_out(w, errp) || !write_bytes(w, end, errp)) {
        return FALSE;
    }
    writer->length = w->written;
    return TRUE;
}

static gboolean stream_append(ImageWriter *writer, const void *data, gsize length, GError **errp)
{
    struct iovec iov = { (void *)data, length };
    return channel_writev(((StreamWriter *)writer)->channel, &iov, 1, errp);
}

static void stream_free(ImageWriter *writer)
{
    g_free(writer);
}

static StreamWriter *writer_new(Channel *channel, ImageFormat format, guint32 magic,
                                guint32 version)
{
    StreamWriter *w = g_new0(StreamWriter, 1);

    w->writer = (ImageWriter){
        .format = format,
        .begin = stream_begin,
        .page = stream_page,
        .zero = stream_zero,
        .flush = stream_flush,
        .device_state = stream_device_state,
        .finish = stream_finish,
        .append = stream_append,
        .free = stream_free,
    };
    w->channel = channel;
    w->magic = magic;
    w->version = version;
    w->last_block = NO_BLOCK;
    return w;
}

ImageWriter *stream_writer_new(Channel *channel)
{
    return &writer_new(channel, IMAGE_FORMAT_STREAM, STREAM_MAGIC, STREAM_VERSION)->writer;
}

/* The index tells what is left out: that is what the parent has, and all zeros. */
static gboolean incremental_keep(ImageWriter *writer, guint block, guint64 offset, const void *data,
                                 gsize length, GError **errp)
{
    return check_range((StreamWriter *)writer, block, offset, length, errp);
}

static gboolean incremental_zero(ImageWriter *writer, guint block, guint64 offset, guint64 length,
                                 GError **errp)
{
    return check_range((StreamWriter *)writer, block, offset, length, errp);
}

ImageWriter *incremental_writer_new(Channel *channel)
{
    ImageWriter *writer =
        &writer_new(channel, IMAGE_FORMAT_INCREMENTAL, INCREMENTAL_MAGIC, INCREMENTAL_VERSION)
             ->writer;

    writer->keep = incremental_keep;
    writer->kept = INDEX_PARENT;
    writer->zero = incremental_zero;
    return writer;
}
