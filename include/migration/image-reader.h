/*
 * Reading an image: head, pages, device sections. Made for any file that somebody hands over, so
 * every length is checked before it is used.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "migration/image-writer.h"

typedef struct ImageReader ImageReader;

/* Maps @path and reads the head of the migration stream that begins at @offset. */
ImageReader *image_reader_open(const char *path, guint64 offset, GError **errp);
void image_reader_free(ImageReader *reader);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ImageReader, image_reader_free)

/* The file, open for reading; owned by the reader. Its position is nobody's. */
int image_reader_get_fd(ImageReader *reader);

/* The head, owned by the reader. */
const ImageHead *image_reader_get_head(ImageReader *reader);

/*
 * Called for each run of pages in stream order; @data is NULL for zero pages. Return FALSE and set
 * *errp to stop.
 */
typedef gboolean (*ImagePageFunc)(guint block, guint64 offset, const void *data, guint64 length,
                                  gpointer user, GError **errp);

/*
 * Walks all RAM sections. @func may be NULL: then the structure is only checked, and a page size
 * that the stream leaves open (legacy ARM machines) is found out for the calls that follow.
 */
gboolean image_reader_foreach_page(ImageReader *reader, ImagePageFunc func, gpointer user,
                                   GError **errp);

/*
 * Where the parts of the stream stand in the file. All but start and pages are known only after
 * image_reader_foreach_page().
 */
typedef struct ImageLayout {
    guint64 start;   /* of the stream */
    guint64 pages;   /* behind the head and the list of RAM blocks */
    guint64 devices; /* the first device section */
    guint64 eof;     /* behind the last device section */
    guint64 end;     /* behind the description, or behind EOF where there is none */
} ImageLayout;

const ImageLayout *image_reader_get_layout(ImageReader *reader);

/* The device sections (owned by the reader), known after image_reader_foreach_page(). */
gboolean image_reader_get_device_state(ImageReader *reader, const guint8 **data, gsize *length,
                                       GError **errp);
