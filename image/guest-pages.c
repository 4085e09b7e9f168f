/*
 * A table of an image's pages.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "image/guest-pages.h"
#include "util/big-array.h"

struct GuestPages {
    ImageReader *reader;
    const ImageProgress *progress; /* while loading */
    guint bits;
    guint blocks;
    const guint8 ***tables; /* of each block: its pages, NULL: missing */
    guint64 *counts;
};

/* Stands for a page of zeros. */
static const guint8 zero_mark;

static gboolean take_run(guint block, guint64 offset, const void *data, guint64 length,
                         gpointer user, GError **errp)
{
    GuestPages *pages = user;
    guint64 first = offset >> pages->bits;
    guint64 count = length >> pages->bits;

    for (guint64 i = 0; i < count; i++) {
        pages->tables[block][first + i] =
            data ? (const guint8 *)data + (i << pages->bits) : &zero_mark;
    }
    return image_progress_walk(pages->progress, pages->reader, errp);
}

static gboolean make_tables(GuestPages *pages, const ImageHead *head, GError **errp)
{
    pages->blocks = head->blocks->len;
    pages->tables = g_new0(const guint8 **, pages->blocks);
    pages->counts = g_new0(guint64, pages->blocks);
    for (guint i = 0; i < pages->blocks; i++) {
        const ImageBlock *block = g_ptr_array_index(head->blocks, i);
        guint64 count = block->used_length >> pages->bits;
        pages->tables[i] = big_array_new(count, sizeof(**pages->tables), errp);
        if (!pages->tables[i]) {
            return FALSE;
        }
        pages->counts[i] = count;
    }
    return TRUE;
}

GuestPages *guest_pages_load(ImageReader *reader, const ImageProgress *progress, GError **errp)
{
    g_autoptr(GuestPages) pages = g_new0(GuestPages, 1);
    const ImageHead *head = image_reader_get_head(reader);

    /* Without a function it finds out the size of pages first, where the stream does not tell. */
    if (!image_reader_foreach_page(reader, NULL, NULL, errp)) {
        return NULL;
    }
    pages->reader = reader;
    pages->progress = progress;
    pages->bits = head->target_page_bits;
    if (!make_tables(pages, head, errp) ||
        !image_reader_foreach_page(reader, take_run, pages, errp)) {
        return NULL;
    }
    return g_steal_pointer(&pages);
}

void guest_pages_free(GuestPages *pages)
{
    if (!pages) {
        return;
    }
    for (guint i = 0; i < pages->blocks; i++) {
        big_array_free(pages->tables[i], pages->counts[i], sizeof(**pages->tables));
    }
    g_free(pages->tables);
    g_free(pages->counts);
    g_free(pages);
}

const guint8 *guest_pages_get(const GuestPages *pages, guint block, guint64 page, gboolean *missing)
{
    const guint8 *data = pages->tables[block][page];

    if (missing) {
        *missing = !data;
    }
    return data == &zero_mark ? NULL : data;
}

gboolean guest_pages_take(GuestPages *pages, guint block, guint64 page, const guint8 *data)
{
    const guint8 **entry = &pages->tables[block][page];
    gboolean counts = *entry == (data ? data : &zero_mark);

    if (counts) {
        *entry = NULL;
    }
    return counts;
}

gsize guest_pages_get_size(const GuestPages *pages)
{
    return (gsize)1 << pages->bits;
}

gboolean guest_pages_read(const GuestPages *pages, const GArray *ranges, guint64 address,
                          void *buffer, gsize length)
{
    gsize size = guest_pages_get_size(pages);

    for (gsize done = 0; done < length;) {
        const GuestRange *range = guest_layout_find(ranges, address + done);
        if (!range) {
            return FALSE;
        }
        guint64 offset = range->offset + (address + done - range->address);
        gsize inside = offset & (size - 1);
        gsize count = MIN(length - done, size - inside);
        const guint8 *data = guest_pages_get(pages, range->block, offset >> pages->bits, NULL);
        if (data) {
            memcpy((guint8 *)buffer + done, data + inside, count);
        } else {
            memset((guint8 *)buffer + done, 0, count);
        }
        done += count;
    }
    return TRUE;
}
