/*
 * Where each page of an image is, and reading it from there.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "image-places.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "util/big-array.h"

/* What may stand between two pages that are read in one go: the words of a stream's records. */
#define GAP_MAX 64

static void places_block_free(gpointer data)
{
    PlacesBlock *block = data;

    big_array_free(block->place, block->pages, sizeof(*block->place));
    g_free(block->name);
    g_free(block);
}

void image_places_free(ImagePlaces *places)
{
    if (places) {
        g_ptr_array_unref(places->blocks);
        g_free(places);
    }
}

const PlacesBlock *image_places_find(const ImagePlaces *places, const char *name)
{
    for (guint i = 0; i < places->blocks->len; i++) {
        const PlacesBlock *block = g_ptr_array_index(places->blocks, i);
        if (!strcmp(block->name, name)) {
            return block;
        }
    }
    return NULL;
}

static gboolean add_block(ImagePlaces *places, const ImageBlock *from, GError **errp)
{
    PlacesBlock *block = g_new0(PlacesBlock, 1);

    block->name = g_strdup(from->name);
    block->used_length = from->used_length;
    block->pages = from->used_length / places->page_size;
    block->place = big_array_new(block->pages, sizeof(*block->place), errp);
    if (!block->place) {
        places_block_free(block);
        return FALSE;
    }
    g_ptr_array_add(places->blocks, block);
    return TRUE;
}

/* ---- from the index ---- */

static gboolean take_run(ImagePlaces *places, PlacesBlock *block, const IndexRun *run,
                         GError **errp)
{
    const ImageLayout *layout = image_reader_get_layout(places->reader);
    guint64 place = layout->start + run->place;

    if (run->kind == INDEX_ZERO) {
        return TRUE;
    }
    if (run->kind != INDEX_HERE) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "the image has not all of its pages itself: make a whole one of it with "
                    "\"stillframe convert\"");
        return FALSE;
    }
    if (run->first > block->pages || run->count > block->pages - run->first) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT, "the index has pages outside of RAM block %s",
                    block->name);
        return FALSE;
    }
    /* Whether the place is in the file at all shows when it is read. */
    for (guint64 i = 0; i < run->count; i++, place += block->index->stride) {
        block->place[run->first + i] = place;
    }
    return TRUE;
}

static gboolean take_index(ImagePlaces *places, const ImageIndex *index, GError **errp)
{
    for (guint i = 0; i < places->blocks->len; i++) {
        PlacesBlock *block = g_ptr_array_index(places->blocks, i);
        block->index = g_ptr_array_index(index->blocks, i);
        for (guint64 r = 0; r < block->index->n_runs; r++) {
            if (!take_run(places, block, &block->index->runs[r], errp)) {
                return FALSE;
            }
        }
    }
    return TRUE;
}

/* ---- from a walk ---- */

typedef struct Walk {
    ImagePlaces *places;
    PlacesProgress progress;
    gpointer user;
    guint64 seen;
} Walk;

/* A page may come again: the last record counts, as data or as zero. */
static gboolean take_pages(guint block_number, guint64 offset, const void *data, guint64 length,
                           gpointer user, GError **errp)
{
    Walk *walk = user;
    ImagePlaces *places = walk->places;
    PlacesBlock *block = g_ptr_array_index(places->blocks, block_number);
    guint64 first = offset / places->page_size;
    guint64 place = data ? image_reader_get_place(places->reader, data) : PLACE_ZERO;

    for (guint64 i = 0; i < length / places->page_size && first + i < block->pages; i++) {
        block->place[first + i] = data ? place + i * places->page_size : PLACE_ZERO;
    }
    if (walk->progress && walk->seen++ % 4096 == 0) {
        guint64 done, total;
        image_reader_get_progress(places->reader, &done, &total);
        return walk->progress(done, total, walk->user, errp);
    }
    return TRUE;
}

static gboolean find_pages(ImagePlaces *places, PlacesProgress progress, gpointer user,
                           GError **errp)
{
    Walk walk = { .places = places, .progress = progress, .user = user };

    return image_reader_foreach_page(places->reader, take_pages, &walk, errp);
}

/* ---- making it ---- */

static gboolean check_reader(ImageReader *reader, GError **errp)
{
    if (image_reader_get_fd(reader) >= 0 &&
        (image_reader_get_kind(reader) == IMAGE_KIND_STREAM ||
         image_reader_get_kind(reader) == IMAGE_KIND_MAPPED_RAM)) {
        return TRUE;
    }
    g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                "pages can be read when they are needed only from a migration stream or a "
                "mapped-ram image that is a file and not compressed; make one of it with "
                "\"stillframe convert\"");
    return FALSE;
}

ImagePlaces *image_places_new(ImageReader *reader, PlacesProgress progress, gpointer user,
                              GError **errp)
{
    g_autoptr(ImagePlaces) places = g_new0(ImagePlaces, 1);
    const ImageHead *head = image_reader_get_head(reader);
    g_autoptr(GError) error = NULL;

    places->blocks = g_ptr_array_new_with_free_func(places_block_free);
    if (!check_reader(reader, errp)) {
        return NULL;
    }
    const ImageIndex *index = image_reader_adopt_index(reader, &error);
    if (error) {
        g_propagate_error(errp, g_steal_pointer(&error));
        return NULL;
    }
    places->reader = reader;
    places->fd = image_reader_get_fd(reader);
    places->page_size = 1ULL << head->target_page_bits;
    for (guint i = 0; i < head->blocks->len; i++) {
        if (!add_block(places, g_ptr_array_index(head->blocks, i), errp)) {
            return NULL;
        }
    }
    if (!(index ? take_index(places, index, errp) : find_pages(places, progress, user, errp))) {
        return NULL;
    }
    return g_steal_pointer(&places);
}

/* ---- reading ---- */

static gboolean read_all(const ImagePlaces *places, guint8 *to, gsize length, guint64 position,
                         GError **errp)
{
    while (length) {
        ssize_t got = pread(places->fd, to, length, (off_t)position);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return sf_error_set_errno(errp, SF_ERROR_IO, got ? errno : ENODATA,
                                      "cannot read the image at byte %" G_GUINT64_FORMAT, position);
        }
        to += got;
        position += (guint64)got;
        length -= (gsize)got;
    }
    return TRUE;
}

/* How many pages from @first on lie so that one read gets them: all of one kind, at one distance.
 */
static guint64 even_pages(const ImagePlaces *places, const guint64 *place, guint64 count,
                          guint64 *stride)
{
    guint64 n = 1;

    *stride = places->page_size;
    if (place[0] == PLACE_ZERO) {
        while (n < count && place[n] == PLACE_ZERO) {
            n++;
        }
        return n;
    }
    if (count > 1 && place[1] > place[0] && place[1] - place[0] >= places->page_size &&
        place[1] - place[0] <= places->page_size + GAP_MAX) {
        *stride = place[1] - place[0];
    }
    while (n < count && place[n] && place[n] - place[n - 1] == *stride) {
        n++;
    }
    return n;
}

static gboolean read_even(const ImagePlaces *places, guint64 place, guint64 count, guint64 stride,
                          guint8 *to, guint8 *scratch, GError **errp)
{
    guint64 page = places->page_size;

    if (place == PLACE_ZERO) {
        memset(to, 0, count * page);
        return TRUE;
    }
    if (stride == page) {
        return read_all(places, to, count * page, place, errp);
    }
    if (!read_all(places, scratch, (count - 1) * stride + page, place, errp)) {
        return FALSE;
    }
    for (guint64 i = 0; i < count; i++) {
        memcpy(to + i * page, scratch + i * stride, page);
    }
    return TRUE;
}

static gboolean check_hashes(const ImagePlaces *places, const PlacesBlock *block, guint64 first,
                             guint64 count, const guint8 *data, GError **errp)
{
    const IndexRun *run = NULL;
    Hash128 hash;

    for (guint64 i = 0; i < count && block->index; i++) {
        guint64 page = first + i;
        if (block->place[page] == PLACE_ZERO) {
            continue;
        }
        if (!run || page - run->first >= run->count) {
            run = index_block_find(block->index, page);
        }
        hash128(data + i * places->page_size, places->page_size, &hash);
        if (!run || !run->hashes || !hash128_equal(index_run_hash(run, page), &hash)) {
            g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                        "the image is damaged: page 0x%" G_GINT64_MODIFIER
                        "x of RAM block %s is not what the index says",
                        page * places->page_size, block->name);
            return FALSE;
        }
    }
    return TRUE;
}

gboolean image_places_read(const ImagePlaces *places, const PlacesBlock *block, guint64 first,
                           guint64 count, guint8 *to, guint8 *scratch, GError **errp)
{
    g_assert(count * places->page_size <= PLACES_READ_MAX);
    for (guint64 done = 0; done < count;) {
        guint64 stride;
        const guint64 *place = block->place + first + done;
        guint64 n = even_pages(places, place, count - done, &stride);
        guint8 *here = to + done * places->page_size;
        if (!read_even(places, *place, n, stride, here, scratch, errp)) {
            return FALSE;
        }
        done += n;
    }
    return check_hashes(places, block, first, count, to, errp);
}
