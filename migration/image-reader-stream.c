/*
 * The pages of a plain migration stream: sections of records, each with an address and its page.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "image-reader-impl.h"
#include "stream-format.h"

#define NO_BLOCK G_MAXUINT

typedef struct Walk {
    ImageReader *reader;
    Cursor *cursor;
    ImagePageFunc func;
    gpointer user;
    GHashTable *index; /* block name -> index + 1 */
    guint block;       /* what CONTINUE means */
    /* Zero pages not yet told, in one run. */
    guint zero_block;
    guint64 zero_offset;
    guint64 zero_length;
} Walk;

static gboolean tell(Walk *walk, guint block, guint64 offset, const void *data, guint64 length,
                     GError **errp)
{
    return !walk->func || walk->func(block, offset, data, length, walk->user, errp);
}

static gboolean tell_zeros(Walk *walk, GError **errp)
{
    guint64 length = walk->zero_length;

    walk->zero_length = 0;
    return !length || tell(walk, walk->zero_block, walk->zero_offset, NULL, length, errp);
}

static gboolean take_zero(Walk *walk, guint64 offset, guint64 page, GError **errp)
{
    if (cursor_u8(walk->cursor) != 0 || walk->cursor->bad) {
        return image_reader_broken(walk->reader, errp, "a page of one byte that is not zero");
    }
    if (walk->zero_length && walk->zero_block == walk->block &&
        walk->zero_offset + walk->zero_length == offset) {
        walk->zero_length += page;
        return TRUE;
    }
    if (!tell_zeros(walk, errp)) {
        return FALSE;
    }
    walk->zero_block = walk->block;
    walk->zero_offset = offset;
    walk->zero_length = page;
    return TRUE;
}

static gboolean take_page(Walk *walk, guint64 offset, guint64 page, GError **errp)
{
    const guint8 *data = cursor_bytes(walk->cursor, page);

    if (!data) {
        return image_reader_broken(walk->reader, errp, "a page");
    }
    return tell_zeros(walk, errp) && tell(walk, walk->block, offset, data, page, errp);
}

/* Which block a word is about. */
static gboolean take_block(Walk *walk, guint64 flags, GError **errp)
{
    if (!(flags & RAM_FLAG_CONTINUE)) {
        g_autofree char *name = cursor_name(walk->cursor);
        guint index = name ? GPOINTER_TO_UINT(g_hash_table_lookup(walk->index, name)) : 0;
        if (!index) {
            return image_reader_broken(walk->reader, errp,
                                       "a page of a RAM block that is not in the list");
        }
        walk->block = index - 1;
    }
    if (walk->block == NO_BLOCK) {
        return image_reader_broken(walk->reader, errp, "a page without a RAM block");
    }
    return TRUE;
}

static gboolean take_record(Walk *walk, guint64 offset, guint64 flags, GError **errp)
{
    guint64 page = 1ULL << walk->reader->head->target_page_bits;
    guint64 kind = flags & ~(guint64)RAM_FLAG_CONTINUE;

    if (kind != RAM_FLAG_ZERO && kind != RAM_FLAG_PAGE) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "%s: at byte %" G_GUINT64_FORMAT
                    ": a page written in a way that is not supported (flags 0x%x)%s",
                    walk->reader->path, cursor_tell(walk->cursor), (guint)flags,
                    kind == RAM_FLAG_XBZRLE || kind == RAM_FLAG_COMPRESS_PAGE
                        ? "; save it without the capabilities xbzrle and compress"
                        : "");
        return FALSE;
    }
    if (!take_block(walk, flags, errp)) {
        return FALSE;
    }
    const ImageBlock *block = g_ptr_array_index(walk->reader->head->blocks, walk->block);
    if (offset >= block->used_length) {
        return image_reader_broken(walk->reader, errp, "a page behind the end of its RAM block");
    }
    return kind == RAM_FLAG_ZERO ? take_zero(walk, offset, page, errp)
                                 : take_page(walk, offset, page, errp);
}

/* The records of one section, and its footer. */
static gboolean take_body(Walk *walk, GError **errp)
{
    guint64 mask = (1ULL << walk->reader->head->target_page_bits) - 1;

    for (;;) {
        guint64 word = cursor_u64(walk->cursor);
        guint64 flags = word & mask;
        if (walk->cursor->bad) {
            return image_reader_broken(walk->reader, errp, "the RAM section");
        }
        if (flags == RAM_FLAG_EOS) {
            return image_reader_footer(walk->reader, errp);
        }
        if (flags != RAM_FLAG_MULTIFD_FLUSH && !take_record(walk, word & ~mask, flags, errp)) {
            return FALSE;
        }
    }
}

static guint32 peek_id(Cursor *cursor)
{
    guint32 id = 0;

    if (cursor_has(cursor, 1 + sizeof(id))) {
        memcpy(&id, cursor->data + cursor->at + 1, sizeof(id));
    }
    return GUINT32_FROM_BE(id);
}

/* A part of "ram", or of another section that is written in parts (dirty-bitmap, for one). */
static gboolean take_part(Walk *walk, GError **errp)
{
    if (peek_id(walk->cursor) != walk->reader->ram_id) {
        return image_reader_skip_section(walk->reader, errp);
    }
    cursor_u8(walk->cursor);
    cursor_u32(walk->cursor);
    return take_body(walk, errp);
}

static gboolean walk_sections(Walk *walk, GError **errp)
{
    for (;;) {
        switch (cursor_peek(walk->cursor)) {
        case STREAM_SECTION_PART:
        case STREAM_SECTION_END:
            if (!take_part(walk, errp)) {
                return FALSE;
            }
            break;
        case STREAM_COMMAND:
            if (!image_reader_skip_command(walk->reader, errp)) {
                return FALSE;
            }
            break;
        case STREAM_SECTION_START:
            if (!image_reader_skip_section(walk->reader, errp)) {
                return FALSE;
            }
            break;
        case STREAM_SECTION_FULL:
        case STREAM_EOF:
            return tell_zeros(walk, errp);
        default:
            walk->cursor->bad = cursor_peek(walk->cursor) < 0;
            return image_reader_broken(walk->reader, errp, "no section of a kind that is known");
        }
    }
}

gboolean stream_pages_walk(ImageReader *reader, ImagePageFunc func, gpointer user, GError **errp)
{
    g_autoptr(GHashTable) index = g_hash_table_new(g_str_hash, g_str_equal);
    Walk walk = {
        .reader = reader,
        .cursor = &reader->cursor,
        .func = func,
        .user = user,
        .index = index,
        .block = NO_BLOCK,
    };

    for (guint i = 0; i < reader->head->blocks->len; i++) {
        const ImageBlock *block = g_ptr_array_index(reader->head->blocks, i);
        g_hash_table_insert(index, block->name, GUINT_TO_POINTER(i + 1));
    }
    return walk_sections(&walk, errp);
}
