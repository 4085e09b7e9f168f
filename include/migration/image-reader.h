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

/* The head, owned by the reader. */
const ImageHead *image_reader_get_head(ImageReader *reader);

/*
 * Called for each run of pages in stream order; @data is NULL for zero pages. Return FALSE and set
 * *errp to stop.
 */
typedef gboolean (*ImagePageFunc)(guint block, guint64 offset, const void *data, guint64 length,
                                  gpointer user, GError **errp);

/* Walks all RAM sections. @func may be NULL: then the structure is only checked. */
gboolean image_reader_foreach_page(ImageReader *reader, ImagePageFunc func, gpointer user,
                                   GError **errp);

/* The device sections (owned by the reader), known after image_reader_foreach_page(). */
gboolean image_reader_get_device_state(ImageReader *reader, const guint8 **data, gsize *length,
                                       GError **errp);
