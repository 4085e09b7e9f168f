/*
 * Reading the index trailer. Made for any bytes that somebody hands over.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "image-index-impl.h"

/* A block of memory has an entry of 24 bytes and a name at the least; this bounds the table. */
#define BLOCK_NAME_MAX 255
#define TEXT_MAX (16U << 20)
#define PAGE_SIZE_MAX (1ULL << 30)

typedef struct Parse {
    ImageIndex *index;
    const guint8 *data;
    gsize size;
    gsize at;
    guint64 records;
    GPtrArray *runs; /* of each block a GArray of IndexRun */
    gboolean has_image;
} Parse;

static gboolean broken(const Parse *parse, GError **errp, const char *what)
{
    g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                "the image's index is damaged: %s, at byte %zu of it", what, parse->at);
    return FALSE;
}

static void index_block_free(gpointer data)
{
    IndexBlock *block = data;

    g_free(block->name);
    g_free(block->runs);
    g_free(block->heat);
    g_free(block);
}

static void index_parent_free(IndexParent *parent)
{
    if (parent) {
        g_free(parent->path);
        g_free(parent);
    }
}

void image_index_free(ImageIndex *index)
{
    if (!index) {
        return;
    }
    g_ptr_array_unref(index->blocks);
    g_array_unref(index->memory);
    g_free(index->machine_type);
    g_free(index->target);
    g_free(index->qemu_version);
    g_free(index->host_kernel);
    g_free(index->writer);
    g_free(index->label);
    g_free(index->statistics);
    g_strfreev(index->command_line);
    index_parent_free(index->parent);
    g_free(index);
}

static gboolean take_image(Parse *parse, IndexCursor *cursor)
{
    ImageIndex *index = parse->index;

    if (parse->has_image) {
        return FALSE;
    }
    parse->has_image = TRUE;
    index->format = (ImageFormat)index_cursor_u32(cursor);
    guint32 hash = index_cursor_u32(cursor);
    index->page_size = index_cursor_u64(cursor);
    index->image_length = index_cursor_u64(cursor);
    index->created_us = (gint64)index_cursor_u64(cursor);
    index->devices_at = index_cursor_u64(cursor);
    index->devices_length = index_cursor_u64(cursor);
    const guint8 *devices_hash = index_cursor_bytes(cursor, HASH128_BYTES);
    if (!devices_hash) {
        return FALSE;
    }
    memcpy(&index->devices_hash, devices_hash, HASH128_BYTES);
    return index->format >= IMAGE_FORMAT_STREAM && index->format <= IMAGE_FORMAT_INCREMENTAL &&
           hash == INDEX_HASH_XXH3_128 && index->page_size >= 512 &&
           index->page_size <= PAGE_SIZE_MAX && !(index->page_size & (index->page_size - 1)) &&
           index->image_length <= G_MAXINT64 && index->devices_at <= index->image_length &&
           index->devices_length <= index->image_length - index->devices_at;
}

static gboolean take_block(Parse *parse, IndexCursor *cursor)
{
    guint32 length = index_cursor_u32(cursor);
    const guint8 *name = index_cursor_bytes(cursor, length);

    if (!name || !length || length > BLOCK_NAME_MAX || memchr(name, 0, length)) {
        return FALSE;
    }
    IndexBlock *block = g_new0(IndexBlock, 1);
    g_ptr_array_add(parse->index->blocks, block);
    g_ptr_array_add(parse->runs, g_array_new(FALSE, FALSE, sizeof(IndexRun)));
    block->name = g_strndup((const char *)name, length);
    block->used_length = index_cursor_u64(cursor);
    block->page_size = index_cursor_u64(cursor);
    block->flags = index_cursor_u32(cursor);
    block->pages = block->used_length / parse->index->page_size;
    return block->used_length <= G_MAXINT64 && block->used_length % parse->index->page_size == 0;
}

static gboolean take_blocks(Parse *parse, IndexCursor *cursor)
{
    guint32 count = index_cursor_u32(cursor);

    if (!parse->has_image || parse->index->blocks->len) {
        return FALSE;
    }
    for (guint32 i = 0; i < count; i++) {
        if (!take_block(parse, cursor) || cursor->bad) {
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean take_parent(Parse *parse, IndexCursor *cursor)
{
    const guint8 *uuid = index_cursor_bytes(cursor, IMAGE_UUID_BYTES);
    const guint8 *identity = index_cursor_bytes(cursor, HASH128_BYTES);
    guint32 flags = index_cursor_u32(cursor);

    index_cursor_u32(cursor);
    gsize length = index_cursor_left(cursor);
    const guint8 *path = index_cursor_bytes(cursor, length);
    if (!uuid || !identity || !path || !length || memchr(path, 0, length) || parse->index->parent) {
        return FALSE;
    }
    IndexParent *parent = g_new0(IndexParent, 1);
    memcpy(parent->uuid, uuid, IMAGE_UUID_BYTES);
    memcpy(&parent->identity, identity, HASH128_BYTES);
    parent->needed = (flags & INDEX_PARENT_NEEDED) != 0;
    parent->path = g_strndup((const char *)path, length);
    parse->index->parent = parent;
    return TRUE;
}

static gboolean take_memory(Parse *parse, IndexCursor *cursor)
{
    while (index_cursor_left(cursor)) {
        IndexRange range;
        range.address = index_cursor_u64(cursor);
        range.length = index_cursor_u64(cursor);
        range.offset = index_cursor_u64(cursor);
        range.block = index_cursor_u32(cursor);
        index_cursor_u32(cursor);
        const IndexBlock *block = range.block < parse->index->blocks->len
                                      ? g_ptr_array_index(parse->index->blocks, range.block)
                                      : NULL;
        if (cursor->bad || !block || !range.length || range.offset > block->used_length ||
            range.length > block->used_length - range.offset ||
            range.length > G_MAXUINT64 - range.address) {
            return FALSE;
        }
        g_array_append_val(parse->index->memory, range);
    }
    return TRUE;
}

/* A text without NUL; once. */
static gboolean take_text(IndexCursor *cursor, char **text)
{
    gsize length = index_cursor_left(cursor);
    const char *bytes = (const char *)index_cursor_bytes(cursor, length);

    if (*text || length > TEXT_MAX || !g_utf8_validate(bytes, (gssize)length, NULL)) {
        return FALSE;
    }
    *text = g_strndup(bytes, length);
    return TRUE;
}

static gboolean take_command_line(ImageIndex *index, IndexCursor *cursor)
{
    gsize length = index_cursor_left(cursor);
    const char *bytes = (const char *)index_cursor_bytes(cursor, length);

    if (index->command_line || !length || length > TEXT_MAX || bytes[length - 1]) {
        return FALSE;
    }
    g_autoptr(GPtrArray) arguments = g_ptr_array_new();
    for (const char *at = bytes; at < bytes + length; at += strlen(at) + 1) {
        g_ptr_array_add(arguments, g_strdup(at));
    }
    g_ptr_array_add(arguments, NULL);
    index->command_line = (char **)g_ptr_array_free(g_steal_pointer(&arguments), FALSE);
    return TRUE;
}

static gboolean take_screen(ImageIndex *index, IndexCursor *cursor)
{
    if (index->screen) {
        return FALSE;
    }
    index->screen_length = index_cursor_left(cursor);
    index->screen = index_cursor_bytes(cursor, index->screen_length);
    return TRUE;
}

/* The ones that say what the image is about; -1 for a type that is not known. */
static int take_fact(ImageIndex *index, guint32 type, IndexCursor *cursor)
{
    switch (type) {
    case INDEX_MACHINE_TYPE:
        return take_text(cursor, &index->machine_type);
    case INDEX_TARGET:
        return take_text(cursor, &index->target);
    case INDEX_QEMU_VERSION:
        return take_text(cursor, &index->qemu_version);
    case INDEX_COMMAND_LINE:
        return take_command_line(index, cursor);
    case INDEX_HOST_KERNEL:
        return take_text(cursor, &index->host_kernel);
    case INDEX_WRITER:
        return take_text(cursor, &index->writer);
    case INDEX_LABEL:
        return take_text(cursor, &index->label);
    case INDEX_STATISTICS:
        return take_text(cursor, &index->statistics);
    case INDEX_SCREEN:
        return take_screen(index, cursor);
    default:
        return -1;
    }
}

static int take_record(Parse *parse, guint32 type, IndexCursor *cursor)
{
    switch (type) {
    case INDEX_IMAGE:
        return take_image(parse, cursor);
    case INDEX_BLOCKS:
        return take_blocks(parse, cursor);
    case INDEX_PAGES:
        return index_take_pages(parse->index, parse->runs, cursor);
    case INDEX_PARENT_IMAGE:
        return take_parent(parse, cursor);
    case INDEX_HEAT:
        return index_take_heat(parse->index, cursor);
    case INDEX_MEMORY:
        return take_memory(parse, cursor);
    default:
        return take_fact(parse->index, type, cursor);
    }
}

static gboolean take_header(Parse *parse, GError **errp)
{
    IndexCursor cursor = { parse->data, parse->size, 0, FALSE };
    const guint8 *magic = index_cursor_bytes(&cursor, INDEX_MAGIC_BYTES);
    guint32 version = index_cursor_u32(&cursor);
    guint32 length = index_cursor_u32(&cursor);
    const guint8 *uuid = index_cursor_bytes(&cursor, IMAGE_UUID_BYTES);

    if (!magic || memcmp(magic, INDEX_MAGIC, INDEX_MAGIC_BYTES)) {
        return broken(parse, errp, "it does not begin as one");
    }
    if (version != INDEX_VERSION) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "the image's index has version %u, and this program knows version %u only",
                    version, INDEX_VERSION);
        return FALSE;
    }
    if (!uuid || length < INDEX_HEADER_BYTES || length > parse->size ||
        length % INDEX_RECORD_ALIGN) {
        return broken(parse, errp, "a header that cannot be");
    }
    memcpy(parse->index->uuid, uuid, IMAGE_UUID_BYTES);
    parse->at = length;
    return TRUE;
}

/* The last record: whether everything before it is as it was written. */
static gboolean take_end(Parse *parse, IndexCursor *cursor, GError **errp)
{
    guint64 records = index_cursor_u64(cursor);
    guint64 length = index_cursor_u64(cursor);
    const guint8 *identity = index_cursor_bytes(cursor, HASH128_BYTES);
    const guint8 *magic = index_cursor_bytes(cursor, INDEX_MAGIC_BYTES);
    gsize end = parse->at + INDEX_END_BYTES;

    if (!magic || index_cursor_left(cursor) || memcmp(magic, INDEX_END_MAGIC, INDEX_MAGIC_BYTES) ||
        length != end || records != parse->records + 1) {
        return broken(parse, errp, "an end that cannot be");
    }
    hash128(parse->data, end - INDEX_END_UNCOVERED, &parse->index->identity);
    if (!hash128_equal(&parse->index->identity, identity)) {
        return broken(parse, errp, "its checksum is wrong");
    }
    parse->index->trailer_length = length;
    parse->at = end;
    return TRUE;
}

/* Its body as a cursor. FALSE where it does not fit or is damaged. */
static gboolean open_record(Parse *parse, guint32 *type, guint32 *flags, IndexCursor *body,
                            guint64 *total, GError **errp)
{
    IndexCursor cursor = { parse->data, parse->size, parse->at, FALSE };
    *type = index_cursor_u32(&cursor);
    *flags = index_cursor_u32(&cursor);
    guint64 length = index_cursor_u64(&cursor);
    const guint8 *bytes = index_cursor_bytes(&cursor, length);

    if (!bytes) {
        return broken(parse, errp, "it is cut off");
    }
    *body = (IndexCursor){ bytes, length, 0, FALSE };
    if (*type == INDEX_END) {
        return TRUE;
    }
    index_cursor_bytes(&cursor, -length % INDEX_RECORD_ALIGN);
    gsize covered = cursor.at - parse->at;
    guint64 checksum = index_cursor_u64(&cursor);
    if (cursor.bad) {
        return broken(parse, errp, "it is cut off");
    }
    if (checksum != hash64(parse->data + parse->at, covered)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                    "the image's index is damaged: its record of type 0x%x at byte %zu of it has "
                    "a wrong checksum",
                    *type, parse->at);
        return FALSE;
    }
    *total = covered + INDEX_CHECKSUM_BYTES;
    return TRUE;
}

static gboolean take_records(Parse *parse, GError **errp)
{
    for (;;) {
        guint32 type, flags;
        IndexCursor body;
        guint64 total = 0;
        if (!open_record(parse, &type, &flags, &body, &total, errp)) {
            return FALSE;
        }
        if (type == INDEX_END) {
            return take_end(parse, &body, errp);
        }
        int good = take_record(parse, type, &body);
        if (!good || body.bad) {
            g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                        "the image's index is damaged: its record of type 0x%x at byte %zu of it "
                        "says what cannot be",
                        type, parse->at);
            return FALSE;
        }
        if (good < 0 && flags & INDEX_RECORD_REQUIRED) {
            g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                        "the image's index has a record of type 0x%x that must be known to use "
                        "it; a newer program wrote it",
                        type);
            return FALSE;
        }
        parse->records++;
        parse->at += total;
    }
}

static gboolean settle(Parse *parse, GError **errp)
{
    ImageIndex *index = parse->index;

    if (!parse->has_image) {
        return broken(parse, errp, "it does not say what image it is of");
    }
    for (guint i = 0; i < index->blocks->len; i++) {
        index_settle_runs(g_ptr_array_index(index->blocks, i), g_ptr_array_index(parse->runs, i));
    }
    return TRUE;
}

ImageIndex *image_index_parse(const guint8 *data, gsize size, gsize *length, GError **errp)
{
    g_autoptr(ImageIndex) index = g_new0(ImageIndex, 1);
    g_autoptr(GPtrArray) runs = g_ptr_array_new_with_free_func((GDestroyNotify)g_array_unref);
    Parse parse = { .index = index, .data = data, .size = size, .runs = runs };

    index->blocks = g_ptr_array_new_with_free_func(index_block_free);
    index->memory = g_array_new(FALSE, FALSE, sizeof(IndexRange));
    if (!take_header(&parse, errp) || !take_records(&parse, errp) || !settle(&parse, errp)) {
        return NULL;
    }
    if (length) {
        *length = parse.at;
    }
    return g_steal_pointer(&index);
}

ImageIndex *image_index_find(const guint8 *data, gsize size, gboolean *found, GError **errp)
{
    gboolean ends = size >= INDEX_HEADER_BYTES + INDEX_END_BYTES &&
                    !memcmp(data + size - INDEX_MAGIC_BYTES, INDEX_END_MAGIC, INDEX_MAGIC_BYTES);

    if (found) {
        *found = ends;
    }
    if (!ends) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                    "the image has no index behind it: it was written by another program, or its "
                    "end is missing");
        return NULL;
    }
    IndexCursor end = { data, size, size - INDEX_END_UNCOVERED - 8, FALSE };
    guint64 length = index_cursor_u64(&end);
    if (length > size || length < INDEX_HEADER_BYTES + INDEX_END_BYTES) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                    "the image's index is damaged: it says that it is longer than the file");
        return NULL;
    }
    g_autoptr(ImageIndex) index = image_index_parse(data + size - length, length, NULL, errp);
    if (index && index->image_length > size - length) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                    "the beginning of the image is missing before its index");
        return NULL;
    }
    return g_steal_pointer(&index);
}

const IndexBlock *image_index_find_block(const ImageIndex *index, const char *name, guint *number)
{
    for (guint i = 0; i < index->blocks->len; i++) {
        const IndexBlock *block = g_ptr_array_index(index->blocks, i);
        if (!strcmp(block->name, name)) {
            if (number) {
                *number = i;
            }
            return block;
        }
    }
    return NULL;
}
