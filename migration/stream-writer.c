/*
 * QEMU's migration stream, version 3. Page contents are never copied here: headers collect in an
 * arena, and an I/O vector alternates between them and the caller's memory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "migration/image-writer.h"
#include "stream-format.h"

/* What one writev() takes: IOV_MAX entries, that is 512 pages with their headers. */
#define STREAM_IOVECS 1024
/* Headers between two writes; zero pages, 9 bytes each, fill it long before the vector is full. */
#define STREAM_ARENA (128 * 1024)
/* The most that one record puts into the arena: word, name with its length, fill byte. */
#define STREAM_RECORD_MAX (8 + 1 + STREAM_NAME_MAX + 1)
/* Only needs to differ from the devices' ids, which QEMU counts up from 0. */
#define STREAM_RAM_ID 0x53460000U
#define NO_BLOCK G_MAXUINT

typedef struct StreamWriter {
    ImageWriter writer;
    Channel *channel;
    const ImageHead *head;
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
    w->iov[w->iovecs++] = (struct iovec){ (void *)data, length };
}

static gboolean check_head(const ImageHead *head, GError **errp)
{
    guint64 total = 0;

    /* Nine bits of the word are flags: a smaller page would have offsets in them. */
    if (!head->machine_type || head->target_page_bits < 10 || head->target_page_bits > 30) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "a migration stream needs a machine type and target pages of 1 KiB or more");
        return FALSE;
    }
    for (guint i = 0; i < head->blocks->len; i++) {
        const ImageBlock *block = g_ptr_array_index(head->blocks, i);
        gsize name = strlen(block->name);
        guint64 page_mask = (1ULL << head->target_page_bits) - 1;

        if (!name || name > STREAM_NAME_MAX || block->used_length & page_mask ||
            block->used_length > G_MAXINT64 - total) {
            g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                        "RAM block \"%s\" of %" G_GUINT64_FORMAT
                        " bytes cannot stand in a migration stream",
                        block->name, block->used_length);
            return FALSE;
        }
        total += block->used_length;
    }
    return TRUE;
}

static void put_configuration(StreamWriter *w, const ImageHead *head)
{
    gsize length = strlen(head->machine_type);

    put_u8(w, STREAM_CONFIGURATION);
    put_u32(w, (guint32)length);
    put_pointer(w, head->machine_type, length);
    if (head->send_page_bits) {
        put_u8(w, STREAM_SUBSECTION);
        put_name(w, STREAM_CONFIG_PAGE_BITS);
        put_u32(w, STREAM_CONFIG_SUBSECTION_VERSION);
        put_u32(w, head->target_page_bits);
    }
}

static void put_footer(StreamWriter *w)
{
    put_u64(w, RAM_FLAG_EOS);
    put_u8(w, STREAM_SECTION_FOOTER);
    put_u32(w, STREAM_RAM_ID);
}

static gboolean put_ram_start(StreamWriter *w, const ImageHead *head, GError **errp)
{
    guint64 total = 0;

    for (guint i = 0; i < head->blocks->len; i++) {
        total += ((const ImageBlock *)g_ptr_array_index(head->blocks, i))->used_length;
    }
    put_u8(w, STREAM_SECTION_START);
    put_u32(w, STREAM_RAM_ID);
    put_name(w, STREAM_RAM_NAME);
    put_u32(w, 0); /* instance */
    put_u32(w, STREAM_RAM_VERSION);
    put_u64(w, total | RAM_FLAG_MEM_SIZE);
    for (guint i = 0; i < head->blocks->len; i++) {
        const ImageBlock *block = g_ptr_array_index(head->blocks, i);
        if (!make_room(w, errp)) {
            return FALSE;
        }
        put_name(w, block->name);
        put_u64(w, block->used_length);
    }
    if (!make_room(w, errp)) {
        return FALSE;
    }
    put_footer(w);
    return TRUE;
}

static gboolean stream_begin(ImageWriter *writer, const ImageHead *head, GError **errp)
{
    StreamWriter *w = (StreamWriter *)writer;

    if (!check_head(head, errp)) {
        return FALSE;
    }
    w->head = head;
    put_u32(w, STREAM_MAGIC);
    put_u32(w, STREAM_VERSION);
    put_configuration(w, head);
    return put_ram_start(w, head, errp) && write_out(w, errp);
}

static gboolean check_range(StreamWriter *w, guint block, guint64 offset, guint64 length,
                            GError **errp)
{
    const ImageBlock *b =
        block < w->head->blocks->len ? g_ptr_array_index(w->head->blocks, block) : NULL;
    guint64 page_mask = (1ULL << w->head->target_page_bits) - 1;

    if (w->ram_ended || !b || (offset | length) & page_mask || offset > b->used_length ||
        length > b->used_length - offset) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FAILED,
                    "pages outside of the image's RAM: block %u, offset 0x%" G_GINT64_MODIFIER
                    "x, length 0x%" G_GINT64_MODIFIER "x",
                    block, offset, length);
        return FALSE;
    }
    return TRUE;
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

    if (!close_part(w, errp) || !make_room(w, errp)) {
        return FALSE;
    }
    put_u8(w, STREAM_SECTION_END);
    put_u32(w, STREAM_RAM_ID);
    put_footer(w);
    w->ram_ended = TRUE;
    if (!make_room(w, errp)) {
        return FALSE;
    }
    put_pointer(w, data, length);
    return TRUE;
}

/*
 * The description of the device sections is for tools, but its absence makes the loader print a
 * warning. Ours names none: only QEMU knows their fields.
 */
static gboolean stream_finish(ImageWriter *writer, GError **errp)
{
    StreamWriter *w = (StreamWriter *)writer;
    g_autofree char *description =
        g_strdup_printf("{\"page_size\": %u, \"devices\": []}", 1U << w->head->target_page_bits);

    if (!w->ram_ended) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FAILED, "an image cannot end without device state");
        return FALSE;
    }
    if (!make_room(w, errp)) {
        return FALSE;
    }
    put_u8(w, STREAM_EOF);
    put_u8(w, STREAM_VMDESCRIPTION);
    put_u32(w, (guint32)strlen(description));
    put(w, description, strlen(description));
    return write_out(w, errp);
}

static void stream_free(ImageWriter *writer)
{
    g_free(writer);
}

ImageWriter *stream_writer_new(Channel *channel)
{
    StreamWriter *w = g_new0(StreamWriter, 1);

    w->writer = (ImageWriter){
        .begin = stream_begin,
        .page = stream_page,
        .zero = stream_zero,
        .flush = stream_flush,
        .device_state = stream_device_state,
        .finish = stream_finish,
        .free = stream_free,
    };
    w->channel = channel;
    w->last_block = NO_BLOCK;
    return &w->writer;
}
