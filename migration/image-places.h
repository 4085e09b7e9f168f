/*
 * Where each page of an image is in its file, for whoever reads them out of order. Private to
 * migration/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "migration/image-reader.h"

/* Of a page that holds zeros only, or that the image has not: no page begins an image. */
#define PLACE_ZERO 0

typedef struct PlacesBlock {
    char *name;
    guint64 used_length;     /* bytes */
    guint64 pages;           /* the target's */
    guint64 *place;          /* position in the file of each page, or PLACE_ZERO */
    const IndexBlock *index; /* hashes and heat; NULL where the image has no index */
} PlacesBlock;

typedef struct ImagePlaces {
    ImageReader *reader;
    int fd;
    guint64 page_size; /* the target's */
    GPtrArray *blocks; /* PlacesBlock, in the order of the image's head */
} ImagePlaces;

/* How far the walk over an image without an index is. FALSE with *errp ends it. */
typedef gboolean (*PlacesProgress)(guint64 done, guint64 total, gpointer user, GError **errp);

/*
 * From the index, from the places of mapped-ram, or else from one walk over the image; afterwards
 * the reader's layout is known. @reader must outlive it. SF_ERROR_UNSUPPORTED for an image whose
 * pages are not in a file as they are, or in another image.
 */
ImagePlaces *image_places_new(ImageReader *reader, PlacesProgress progress, gpointer user,
                              GError **errp);
void image_places_free(ImagePlaces *places);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ImagePlaces, image_places_free)

/* The block of that name, or NULL. */
const PlacesBlock *image_places_find(const ImagePlaces *places, const char *name);

/* The most bytes that one image_places_read() takes. */
#define PLACES_READ_MAX (256ULL * 1024)

/*
 * Reads @count pages from @first on to @to, and checks their hashes where the image has any.
 * @scratch: 2 * PLACES_READ_MAX bytes of the caller's. Any thread. SF_ERROR_IO where the file
 * cannot be read, SF_ERROR_FORMAT where a page is not what the index says.
 */
gboolean image_places_read(const ImagePlaces *places, const PlacesBlock *block, guint64 first,
                           guint64 count, guint8 *to, guint8 *scratch, GError **errp);
