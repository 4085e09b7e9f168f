/*
 * The pages of a mapped-ram image: at fixed places of the file, with one bit each that tells
 * whether the page is there. Pages without it are zero.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "image-reader-impl.h"
#include "stream-format.h"

/* Pages of one call: enough to be quick, few enough to show progress. */
#define RUN_MAX 1024

typedef struct MappedWalk {
    ImageReader *reader;
    ImagePageFunc func;
    gpointer user;
} MappedWalk;

static gboolean is_there(const guint8 *bitmap, guint64 page)
{
    return bitmap[page / 8] >> (page % 8) & 1;
}

/* The run of equal bits from @page on; whole words of zeros go in one step. */
static guint64 run_length(const guint8 *bitmap, guint64 page, guint64 pages)
{
    gboolean there = is_there(bitmap, page);
    guint64 end = page + 1;

    while (end < pages && (!there || end - page < RUN_MAX)) {
        static const guint8 zeros[8];
        if (!there && end % 64 == 0 && pages - end >= 64 && !memcmp(bitmap + end / 8, zeros, 8)) {
            end += 64;
        } else if (is_there(bitmap, end) == there) {
            end++;
        } else {
            break;
        }
    }
    return end - page;
}

static gboolean walk_block(const MappedWalk *walk, guint index, GError **errp)
{
    ImageReader *reader = walk->reader;
    Cursor *cursor = &reader->cursor;
    const ImageBlock *block = g_ptr_array_index(reader->head->blocks, index);
    const ImageMappedBlock *mapped = image_reader_get_mapped_block(reader, index);
    guint bits = reader->head->target_page_bits;
    guint64 pages = block->used_length >> bits;

    if (!mapped->pages || !walk->func) {
        return TRUE;
    }
    const guint8 *bitmap = cursor->data + mapped->bitmap;
    for (guint64 page = 0; page < pages;) {
        guint64 count = run_length(bitmap, page, pages);
        guint64 place = mapped->pages + (page << bits);
        const guint8 *data = is_there(bitmap, page) ? cursor->data + place : NULL;
        cursor->at = place; /* how far the walk is */
        if (!walk->func(index, page << bits, data, count << bits, walk->user, errp)) {
            return FALSE;
        }
        page += count;
    }
    return TRUE;
}

/* The sections of "ram" behind the list have no pages. */
static gboolean skip_empty_section(ImageReader *reader, GError **errp)
{
    Cursor *cursor = &reader->cursor;

    cursor_u8(cursor);
    if (cursor_u32(cursor) != reader->ram_id || cursor_u64(cursor) != RAM_FLAG_EOS || cursor->bad) {
        return image_reader_broken(reader, errp, "pages in a section that must have none");
    }
    return image_reader_footer(reader, errp);
}

static gboolean walk_sections(ImageReader *reader, GError **errp)
{
    for (;;) {
        int type = cursor_peek(&reader->cursor);
        switch (type) {
        case STREAM_SECTION_PART:
        case STREAM_SECTION_END:
            if (!skip_empty_section(reader, errp)) {
                return FALSE;
            }
            break;
        case STREAM_COMMAND:
            if (!image_reader_skip_command(reader, errp)) {
                return FALSE;
            }
            break;
        case STREAM_SECTION_FULL:
        case STREAM_EOF:
            return TRUE;
        default:
            reader->cursor.bad = type < 0;
            return image_reader_broken(reader, errp, "no section of a kind that is known");
        }
    }
}

gboolean mapped_pages_walk(ImageReader *reader, ImagePageFunc func, gpointer user, GError **errp)
{
    const MappedWalk walk = { reader, func, user };
    gsize behind = reader->cursor.at;

    for (guint i = 0; i < reader->head->blocks->len; i++) {
        if (!walk_block(&walk, i, errp)) {
            return FALSE;
        }
    }
    reader->cursor.at = behind;
    return walk_sections(reader, errp);
}
