/*
 * The records of the index that are many: runs of pages, and heat. image-index-order.c puts the
 * runs in order.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "image-index-impl.h"

/* The runs of one block while they come, in the order of the file. */
typedef struct Decoder {
    IndexCursor *cursor;
    const ImageIndex *index;
    const IndexBlock *block;
    guint64 base;
    guint64 next_page;
    guint64 next_place;
    guint64 when_ms;
} Decoder;

static gboolean take_hashes(Decoder *decoder, IndexRun *run)
{
    if (run->count > index_cursor_left(decoder->cursor) / HASH128_BYTES) {
        return FALSE;
    }
    run->hashes = index_cursor_bytes(decoder->cursor, run->count * HASH128_BYTES);
    return run->hashes != NULL;
}

/* Whether all of its pages lie in the image. */
static gboolean check_place(const Decoder *decoder, const IndexRun *run)
{
    guint64 length = decoder->index->image_length;
    guint64 page = decoder->index->page_size;
    guint64 stride = decoder->block->stride;

    return length >= page && run->place <= length - page &&
           run->count - 1 <= (length - page - run->place) / stride;
}

static gboolean take_here(Decoder *decoder, IndexRun *run, gboolean has_place)
{
    guint64 stride = decoder->block->stride;

    run->place = decoder->next_place;
    if (decoder->base != INDEX_NO_BASE) {
        if (run->first > (G_MAXINT64 - decoder->base) / stride) {
            return FALSE;
        }
        run->place = decoder->base + run->first * stride;
    }
    if (has_place) {
        run->place += index_cursor_signed(decoder->cursor);
    }
    if (!check_place(decoder, run) || !take_hashes(decoder, run)) {
        return FALSE;
    }
    decoder->next_place = run->place + run->count * stride;
    return TRUE;
}

static gboolean take_elsewhere(Decoder *decoder, IndexRun *run)
{
    guint64 block = index_cursor_number(decoder->cursor);

    run->parent_first = index_cursor_number(decoder->cursor);
    run->parent_block = (guint16)block;
    return block <= G_MAXUINT16 && run->parent_first <= G_MAXUINT64 - run->count;
}

static gboolean take_run(Decoder *decoder, IndexRun *run)
{
    IndexCursor *cursor = decoder->cursor;
    guint8 token = index_cursor_u8(cursor);

    *run = (IndexRun){ .kind = token & RUN_KIND_MASK,
                       .source = token & RUN_BY_FAULT ? INDEX_BY_FAULT : INDEX_BY_SWEEP,
                       .count = 1,
                       .first = decoder->next_page };
    if (token & RUN_UNKNOWN || (token & RUN_HAS_PLACE && run->kind != INDEX_HERE)) {
        return FALSE;
    }
    decoder->when_ms += token & RUN_HAS_TIME ? index_cursor_signed(cursor) : 0;
    run->when_ms = (guint32)decoder->when_ms;
    run->count += token & RUN_HAS_COUNT ? index_cursor_number(cursor) : 0;
    run->first += token & RUN_HAS_FIRST ? index_cursor_signed(cursor) : 0;
    if (cursor->bad || decoder->when_ms > G_MAXUINT32 || !run->count ||
        run->first >= decoder->block->pages || run->count > decoder->block->pages - run->first) {
        return FALSE;
    }
    decoder->next_page = run->first + run->count;
    switch (run->kind) {
    case INDEX_HERE:
        return take_here(decoder, run, token & RUN_HAS_PLACE);
    case INDEX_ELSEWHERE:
        return take_elsewhere(decoder, run) && !cursor->bad;
    case INDEX_PARENT:
        run->parent_first = run->first;
        return TRUE;
    default:
        return TRUE;
    }
}

gboolean index_take_pages(ImageIndex *index, GPtrArray *runs, IndexCursor *cursor)
{
    guint32 number = index_cursor_u32(cursor);

    index_cursor_u32(cursor);
    guint64 stride = index_cursor_u64(cursor);
    guint64 base = index_cursor_u64(cursor);
    if (cursor->bad || number >= index->blocks->len || stride < index->page_size ||
        stride > G_MAXINT64 || (base != INDEX_NO_BASE && base > G_MAXINT64)) {
        return FALSE;
    }
    IndexBlock *block = g_ptr_array_index(index->blocks, number);
    if (block->stride && block->stride != stride) {
        return FALSE;
    }
    block->stride = stride;
    Decoder decoder = { .cursor = cursor, .index = index, .block = block, .base = base };
    while (index_cursor_left(cursor)) {
        IndexRun run;
        if (!take_run(&decoder, &run)) {
            return FALSE;
        }
        g_array_append_val((GArray *)g_ptr_array_index(runs, number), run);
    }
    return TRUE;
}

gboolean index_take_heat(ImageIndex *index, IndexCursor *cursor)
{
    guint32 number = index_cursor_u32(cursor);

    index_cursor_u32(cursor);
    guint64 unit = index_cursor_u64(cursor);
    IndexBlock *block =
        number < index->blocks->len ? g_ptr_array_index(index->blocks, number) : NULL;
    if (cursor->bad || !block || block->heat || !unit) {
        return FALSE;
    }
    guint64 count = block->used_length / unit + (block->used_length % unit != 0);
    if (count != index_cursor_left(cursor) / 4 || index_cursor_left(cursor) % 4) {
        return FALSE;
    }
    block->heat_unit = unit;
    block->n_heat = count;
    block->heat = g_new(guint32, count);
    for (guint64 i = 0; i < count; i++) {
        block->heat[i] = index_cursor_u32(cursor);
    }
    return TRUE;
}

const IndexRun *index_block_find(const IndexBlock *block, guint64 page)
{
    guint64 low = 0;
    guint64 high = block->n_runs;

    while (low < high) {
        guint64 middle = low + (high - low) / 2;
        const IndexRun *run = &block->runs[middle];
        if (page < run->first) {
            high = middle;
        } else if (page - run->first < run->count) {
            return run;
        } else {
            low = middle + 1;
        }
    }
    return NULL;
}
