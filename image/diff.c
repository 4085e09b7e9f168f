/*
 * Comparing two images by the hashes of their pages' content.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "image/diff.h"
#include "util/big-array.h"
#include "util/hash.h"
#include "util/zero.h"

typedef struct Diff {
    DiffReport *report;
    const ImageProgress *progress;
    ImageReader *reader; /* the one that is walked */
    guint bits;
    guint *numbers;  /* of its blocks: index in the report */
    Hash128 **pages; /* of each block of the first image */
    guint first_blocks;
} Diff;

static void diff_block_free(gpointer data)
{
    DiffBlock *block = data;

    big_array_free(block->states, block->pages, 1);
    g_free(block->name);
    g_free(block);
}

void diff_report_clear(DiffReport *report)
{
    g_clear_pointer(&report->blocks, g_ptr_array_unref);
}

static DiffBlock *find_block(const DiffReport *report, const char *name, guint *number)
{
    for (guint i = 0; i < report->blocks->len; i++) {
        DiffBlock *block = g_ptr_array_index(report->blocks, i);
        if (!strcmp(block->name, name)) {
            *number = i;
            return block;
        }
    }
    return NULL;
}

static guint64 pages_of(ImageReader *reader, const char *name)
{
    const ImageHead *head = image_reader_get_head(reader);

    for (guint i = 0; i < head->blocks->len; i++) {
        const ImageBlock *block = g_ptr_array_index(head->blocks, i);
        if (!strcmp(block->name, name)) {
            return block->used_length >> head->target_page_bits;
        }
    }
    return 0;
}

/* Adds the blocks of @reader that are not there yet, and notes where its blocks are. */
static gboolean add_blocks(Diff *diff, ImageReader *reader, ImageReader *other, guint **numbers,
                           GError **errp)
{
    const ImageHead *head = image_reader_get_head(reader);

    *numbers = g_new0(guint, head->blocks->len + 1);
    for (guint i = 0; i < head->blocks->len; i++) {
        const ImageBlock *from = g_ptr_array_index(head->blocks, i);
        if (find_block(diff->report, from->name, &(*numbers)[i])) {
            continue;
        }
        DiffBlock *block = g_new0(DiffBlock, 1);
        block->name = g_strdup(from->name);
        block->pages = MAX(pages_of(reader, from->name), pages_of(other, from->name));
        (*numbers)[i] = diff->report->blocks->len;
        g_ptr_array_add(diff->report->blocks, block);
        block->states = big_array_new(block->pages, 1, errp);
        if (!block->states) {
            return FALSE;
        }
    }
    return TRUE;
}

/* A page of zeros is the same whichever way an image has it. */
static void hash_page(const guint8 *data, gsize size, Hash128 *hash)
{
    memset(hash, 0, sizeof(*hash));
    if (data && !buffer_is_zero(data, size)) {
        hash128(data, size, hash);
    }
}

static gboolean take_first(guint block, guint64 offset, const void *data, guint64 length,
                           gpointer user, GError **errp)
{
    Diff *diff = user;
    guint number = diff->numbers[block];
    DiffBlock *to = g_ptr_array_index(diff->report->blocks, number);
    gsize size = (gsize)1 << diff->bits;

    for (guint64 at = 0; at < length; at += size) {
        guint64 page = (offset + at) >> diff->bits;
        to->states[page] = DIFF_ONLY_A;
        hash_page(data ? (const guint8 *)data + at : NULL, size, &diff->pages[number][page]);
    }
    return image_progress_walk(diff->progress, diff->reader, errp);
}

static gboolean take_second(guint block, guint64 offset, const void *data, guint64 length,
                            gpointer user, GError **errp)
{
    Diff *diff = user;
    guint number = diff->numbers[block];
    DiffBlock *to = g_ptr_array_index(diff->report->blocks, number);
    gsize size = (gsize)1 << diff->bits;

    for (guint64 at = 0; at < length; at += size) {
        guint64 page = (offset + at) >> diff->bits;
        Hash128 hash;
        hash_page(data ? (const guint8 *)data + at : NULL, size, &hash);
        if (to->states[page] == DIFF_ABSENT || to->states[page] == DIFF_ONLY_B) {
            to->states[page] = DIFF_ONLY_B;
        } else {
            to->states[page] =
                hash128_equal(&hash, &diff->pages[number][page]) ? DIFF_SAME : DIFF_CHANGED;
        }
    }
    return image_progress_walk(diff->progress, diff->reader, errp);
}

static gboolean make_pages(Diff *diff, GError **errp)
{
    diff->first_blocks = diff->report->blocks->len;
    diff->pages = g_new0(Hash128 *, diff->first_blocks + 1);
    for (guint i = 0; i < diff->first_blocks; i++) {
        const DiffBlock *block = g_ptr_array_index(diff->report->blocks, i);
        diff->pages[i] = big_array_new(block->pages, sizeof(Hash128), errp);
        if (!diff->pages[i]) {
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean walk(Diff *diff, ImageReader *reader, guint *numbers, ImagePageFunc func,
                     GError **errp)
{
    diff->reader = reader;
    diff->numbers = numbers;
    return image_reader_foreach_page(reader, func, diff, errp);
}

static void count_states(DiffReport *report)
{
    for (guint i = 0; i < report->blocks->len; i++) {
        DiffBlock *block = g_ptr_array_index(report->blocks, i);
        for (guint64 page = 0; page < block->pages; page++) {
            block->counts[block->states[page]]++;
        }
    }
}

static gboolean compare_devices(ImageReader *a, ImageReader *b, DiffReport *report, GError **errp)
{
    const guint8 *a_data, *b_data;
    gsize a_length, b_length;

    if (!image_reader_get_device_state(a, &a_data, &a_length, errp) ||
        !image_reader_get_device_state(b, &b_data, &b_length, errp)) {
        return FALSE;
    }
    report->devices_differ = a_length != b_length || memcmp(a_data, b_data, a_length) != 0;
    return TRUE;
}

static gboolean find_page_size(Diff *diff, ImageReader *a, ImageReader *b, GError **errp)
{
    if ((image_reader_is_mapped(a) && !image_reader_foreach_page(a, NULL, NULL, errp)) ||
        (image_reader_is_mapped(b) && !image_reader_foreach_page(b, NULL, NULL, errp))) {
        return FALSE;
    }
    diff->bits = image_reader_get_head(a)->target_page_bits;
    diff->report->page_size = 1ULL << diff->bits;
    if (diff->bits != image_reader_get_head(b)->target_page_bits) {
        g_set_error(errp, SF_ERROR, SF_ERROR_MISMATCH,
                    "the pages of the two images are not of one size");
        return FALSE;
    }
    return TRUE;
}

gboolean image_diff(ImageReader *a, ImageReader *b, const ImageProgress *progress,
                    DiffReport *report, GError **errp)
{
    g_autofree guint *a_numbers = NULL;
    g_autofree guint *b_numbers = NULL;
    Diff diff = { .report = report, .progress = progress };

    *report = (DiffReport){ .blocks = g_ptr_array_new_with_free_func(diff_block_free) };
    gboolean good =
        find_page_size(&diff, a, b, errp) && add_blocks(&diff, a, b, &a_numbers, errp) &&
        make_pages(&diff, errp) && add_blocks(&diff, b, a, &b_numbers, errp) &&
        walk(&diff, a, a_numbers, take_first, errp) &&
        walk(&diff, b, b_numbers, take_second, errp) && compare_devices(a, b, report, errp);
    for (guint i = 0; i < diff.first_blocks; i++) {
        big_array_free(diff.pages[i],
                       ((const DiffBlock *)g_ptr_array_index(report->blocks, i))->pages,
                       sizeof(Hash128));
    }
    g_free(diff.pages);
    count_states(report);
    return good;
}
