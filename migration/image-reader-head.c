/*
 * The head of an image: magic, configuration, and the list of RAM blocks, with whatever QEMU may
 * have put before it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "image-reader-impl.h"
#include "migration/device-state.h"
#include "stream-format.h"

#define MACHINE_TYPE_MAX 1024
#define CAPABILITIES_MAX 64
/* How far a section's end is looked for, and in what steps. */
#define SECTION_MAX ((gsize)64 * 1024 * 1024)
/* Device state alone is small. */
#define DEVICES_MAX ((gsize)1024 * 1024 * 1024)
#define SECTION_FIRST ((gsize)64 * 1024)

/* Capabilities change what follows, so each that is named must be known. */
static gboolean read_capabilities(ImageReader *reader, GError **errp)
{
    guint32 count = cursor_u32(&reader->cursor);

    for (guint32 i = 0; i < count; i++) {
        char *name = cursor_name(&reader->cursor);
        if (!name || count > CAPABILITIES_MAX) {
            g_free(name);
            return image_reader_broken(reader, errp, "a list of capabilities that is none");
        }
        g_ptr_array_add(reader->capabilities, name);
        if (!strcmp(name, STREAM_CAPABILITY_MAPPED_RAM)) {
            reader->kind = IMAGE_KIND_MAPPED_RAM;
        } else if (!strcmp(name, STREAM_CAPABILITY_IGNORE_SHARED)) {
            reader->ignore_shared = TRUE;
        } else {
            return image_reader_unsupported(reader, errp, "the migration capability", name);
        }
    }
    return TRUE;
}

static gboolean read_subsection(ImageReader *reader, GError **errp)
{
    Cursor *cursor = &reader->cursor;
    ImageHead *head = reader->head;
    cursor_u8(cursor);
    g_autofree char *name = cursor_name(cursor);
    guint32 version = cursor_u32(cursor);

    if (!name || version != STREAM_CONFIG_SUBSECTION_VERSION) {
        return image_reader_broken(reader, errp, "a subsection that is none");
    }
    if (!strcmp(name, STREAM_CONFIG_CAPABILITIES)) {
        return read_capabilities(reader, errp);
    }
    if (!strcmp(name, STREAM_CONFIG_PAGE_BITS)) {
        head->target_page_bits = cursor_u32(cursor);
        head->send_page_bits = TRUE;
    } else if (!strcmp(name, STREAM_CONFIG_UUID)) {
        const guint8 *uuid = cursor_bytes(cursor, STREAM_UUID_BYTES);
        reader->has_uuid = uuid != NULL;
        memcpy(reader->uuid, uuid ? uuid : reader->uuid, STREAM_UUID_BYTES);
    } else {
        return image_reader_unsupported(reader, errp, "the subsection", name);
    }
    /* The flags of the RAM section need bits to stand in; no target has pages over 1 MiB. */
    if (head->target_page_bits < 10 || head->target_page_bits > 20) {
        return image_reader_broken(reader, errp, "impossible size of target pages");
    }
    return TRUE;
}

static gboolean read_configuration(ImageReader *reader, GError **errp)
{
    Cursor *cursor = &reader->cursor;
    cursor_u8(cursor);
    guint32 length = cursor_u32(cursor);
    const guint8 *type = length <= MACHINE_TYPE_MAX ? cursor_bytes(cursor, length) : NULL;

    if (!type || memchr(type, 0, length)) {
        return image_reader_broken(reader, errp, "no name of a machine type");
    }
    reader->head->machine_type = g_strndup((const char *)type, length);
    while (cursor_peek(cursor) == STREAM_SUBSECTION) {
        if (!read_subsection(reader, errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

gboolean image_reader_map(ImageReader *reader, GError **errp)
{
    Cursor *cursor = &reader->cursor;
    guint64 position = cursor_tell(cursor);

    if (!cursor->source) {
        return TRUE;
    }
    if (cursor->base) {
        return image_reader_unsupported(reader, errp, "going back in", reader->path);
    }
    if (!image_source_spool(reader->source, cursor->window, cursor->size, errp)) {
        return FALSE;
    }
    cursor_clear(cursor);
    cursor_init(cursor, reader->source);
    return cursor_seek(cursor, position) || image_reader_broken(reader, errp, "the head");
}

/* @length bytes of pages with one bit each, both inside of the file. */
static gboolean read_mapped_block(ImageReader *reader, guint64 length, GError **errp)
{
    Cursor *cursor = &reader->cursor;
    guint64 page = 1ULL << reader->head->target_page_bits;
    guint32 version = cursor_u32(cursor);
    guint64 page_size = cursor_u64(cursor);
    ImageMappedBlock mapped = { .bitmap = cursor_u64(cursor), .pages = cursor_u64(cursor) };
    guint64 bitmap = (length / page + 63) / 64 * 8;

    if (cursor->bad || version != STREAM_MAPPED_VERSION || page_size != page) {
        return image_reader_broken(reader, errp, "a RAM block without its mapped-ram header");
    }
    g_array_append_val(reader->mapped, mapped);
    if (!mapped.pages) {
        return reader->ignore_shared ||
               image_reader_broken(reader, errp, "a RAM block without pages");
    }
    if (mapped.bitmap > cursor->size || bitmap > cursor->size - mapped.bitmap ||
        mapped.pages > cursor->size || length > cursor->size - mapped.pages ||
        mapped.pages % page || mapped.pages < mapped.bitmap + bitmap ||
        mapped.bitmap < cursor_tell(cursor)) {
        return image_reader_broken(reader, errp, "the pages of a RAM block are not in the file");
    }
    cursor_seek(cursor, mapped.pages + length);
    return TRUE;
}

/* QEMU appends these to a block's length by what is switched on. */
static gboolean read_block_extras(ImageReader *reader, guint64 length, GError **errp)
{
    if (reader->ignore_shared) {
        cursor_u64(&reader->cursor); /* guest-physical address */
    }
    return reader->kind != IMAGE_KIND_MAPPED_RAM || read_mapped_block(reader, length, errp);
}

static gboolean add_block(ImageReader *reader, GHashTable *names, char *name, guint64 length,
                          GError **errp)
{
    if (!g_hash_table_add(names, name)) {
        return image_reader_broken(reader, errp, "the RAM block \"%s\" twice", name);
    }
    image_head_add_block(reader->head, name, length);
    return TRUE;
}

static gboolean read_blocks(ImageReader *reader, GError **errp)
{
    Cursor *cursor = &reader->cursor;
    guint64 word = cursor_u64(cursor);
    guint64 page_mask = (1ULL << reader->head->target_page_bits) - 1;
    guint64 left = word & ~page_mask;
    g_autoptr(GHashTable) names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

    if (cursor->bad || !(word & RAM_FLAG_MEM_SIZE) || left > IMAGE_RAM_MAX) {
        return image_reader_broken(reader, errp, "the RAM section has no list of blocks");
    }
    while (left) {
        char *name = cursor_name(cursor);
        guint64 length = cursor_u64(cursor);
        if (!name || cursor->bad || length > left || length & page_mask) {
            g_free(name);
            return image_reader_broken(reader, errp, "a RAM block that cannot be");
        }
        if (!add_block(reader, names, name, length, errp) ||
            !read_block_extras(reader, length, errp)) {
            return FALSE;
        }
        left -= length;
    }
    if (cursor_u64(cursor) != RAM_FLAG_EOS) {
        return image_reader_broken(reader, errp, "the list of RAM blocks does not end");
    }
    return image_reader_footer(reader, errp);
}

gboolean image_reader_skip_command(ImageReader *reader, GError **errp)
{
    Cursor *cursor = &reader->cursor;

    cursor_u8(cursor);
    cursor_u16(cursor);
    if (!cursor_bytes(cursor, cursor_u16(cursor))) {
        return image_reader_broken(reader, errp, "a command");
    }
    return TRUE;
}

/* Whether a section, a command or the end can begin with these bytes. */
static gboolean plausible(const guint8 *data, gsize length)
{
    if (data[0] != STREAM_SECTION_START && data[0] != STREAM_SECTION_FULL) {
        return data[0] < STREAM_SECTION_FULL || data[0] == STREAM_COMMAND;
    }
    return length < 7 || (data[5] && g_ascii_isprint((gchar)data[6]));
}

/* The footer of @id in the next bytes, followed by what may follow; 0 for none. */
static gsize find_footer(const guint8 *data, gsize length, guint32 id)
{
    guint8 footer[STREAM_FOOTER_BYTES] = { STREAM_SECTION_FOOTER };
    guint32 big_endian = GUINT32_TO_BE(id);
    gsize at = 0;

    memcpy(footer + 1, &big_endian, sizeof(big_endian));
    for (;;) {
        const guint8 *found = memmem(data + at, length - at, footer, sizeof(footer));
        gsize end = found ? (gsize)(found - data) + sizeof(footer) : length;
        if (end >= length) {
            return 0;
        }
        if (plausible(data + end, length - end)) {
            return end;
        }
        at = end - sizeof(footer) + 1;
    }
}

/* Its body is known to QEMU alone and has no length: its end is the footer with its id. */
gboolean image_reader_skip_section(ImageReader *reader, GError **errp)
{
    Cursor *cursor = &reader->cursor;

    cursor_u8(cursor);
    guint32 id = cursor_u32(cursor);
    for (gsize step = SECTION_FIRST; !cursor->bad && step <= SECTION_MAX; step *= 2) {
        gboolean more = cursor_has(cursor, step);
        gsize there = MIN(cursor->size - cursor->at, step);
        gsize end = find_footer(cursor->data + cursor->at, there, id);
        if (end) {
            cursor->at += end;
            return TRUE;
        }
        if (!more) {
            break;
        }
    }
    return image_reader_broken(reader, errp, "a section that is not known here has no end");
}

/* "ram" begins: TRUE. Anything else is left where it is. */
static gboolean at_ram_start(ImageReader *reader)
{
    Cursor *cursor = &reader->cursor;
    gsize length = strlen(STREAM_RAM_NAME);

    if (cursor_peek(cursor) != STREAM_SECTION_START || !cursor_has(cursor, 6 + length)) {
        return FALSE;
    }
    const guint8 *header = cursor->data + cursor->at;
    return header[5] == length && !memcmp(header + 6, STREAM_RAM_NAME, length);
}

static gboolean read_ram_start(ImageReader *reader, GError **errp)
{
    Cursor *cursor = &reader->cursor;

    cursor_u8(cursor);
    reader->ram_id = cursor_u32(cursor);
    cursor_bytes(cursor, cursor_u8(cursor)); /* its name was looked at before */
    cursor_u32(cursor);                      /* instance */
    guint32 version = cursor_u32(cursor);
    if (cursor->bad || version != STREAM_RAM_VERSION) {
        return image_reader_broken(reader, errp, "no RAM section of version %u begins here",
                                   STREAM_RAM_VERSION);
    }
    if (!read_blocks(reader, errp)) {
        return FALSE;
    }
    reader->walk = reader->kind == IMAGE_KIND_MAPPED_RAM ? mapped_pages_walk : stream_pages_walk;
    return TRUE;
}

static gboolean no_pages_walk(ImageReader *reader, ImagePageFunc func, gpointer user, GError **errp)
{
    return TRUE;
}

/* What xen-save-devices-state writes: sections of devices up to EOF. */
static gboolean devices_only(ImageReader *reader)
{
    Cursor *cursor = &reader->cursor;
    gsize length = cursor->size - cursor->at;
    gsize end;

    if (cursor->source || cursor_peek(cursor) == STREAM_SECTION_START || length > DEVICES_MAX) {
        return FALSE;
    }
    g_autoptr(GPtrArray) sections =
        device_state_list_in_stream(cursor->data + cursor->at, length, &end, NULL);
    if (sections) {
        reader->kind = IMAGE_KIND_DEVICES;
        reader->walk = no_pages_walk;
    }
    return sections != NULL;
}

/* Devices may come before RAM: virtio-mem and IOMMUs, since QEMU 8.1. */
static gboolean find_ram(ImageReader *reader, GError **errp)
{
    Cursor *cursor = &reader->cursor;

    while (!at_ram_start(reader)) {
        int type = cursor_peek(cursor);
        if (type != STREAM_COMMAND && type != STREAM_SECTION_FULL && type != STREAM_SECTION_START) {
            cursor->bad = type < 0;
            return image_reader_broken(reader, errp, "no section begins here");
        }
        if (!(type == STREAM_COMMAND ? image_reader_skip_command(reader, errp)
                                     : image_reader_skip_section(reader, errp))) {
            return FALSE;
        }
    }
    return read_ram_start(reader, errp);
}

gboolean image_reader_read_head(ImageReader *reader, GError **errp)
{
    Cursor *cursor = &reader->cursor;
    guint32 magic = cursor_u32(cursor);
    guint32 version = cursor_u32(cursor);

    if (cursor->error) {
        return image_reader_broken(reader, errp, "the head");
    }
    if (magic == INCREMENTAL_MAGIC && version == INCREMENTAL_VERSION) {
        reader->kind = IMAGE_KIND_INCREMENTAL;
    } else if (magic != STREAM_MAGIC || version != STREAM_VERSION) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                    "%s: no migration stream of version 3 begins at byte %" G_GUINT64_FORMAT
                    "; does it begin at another offset?",
                    reader->path, reader->layout.start);
        return FALSE;
    }
    if (cursor_peek(cursor) == STREAM_CONFIGURATION && !read_configuration(reader, errp)) {
        return FALSE;
    }
    if ((reader->kind == IMAGE_KIND_MAPPED_RAM && !image_reader_map(reader, errp)) ||
        (!devices_only(reader) && !find_ram(reader, errp))) {
        return FALSE;
    }
    reader->layout.pages = cursor_tell(cursor);
    return reader->kind != IMAGE_KIND_INCREMENTAL || incremental_open(reader, errp);
}
