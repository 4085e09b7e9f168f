/*
 * What the parts of the image reader share. A format adds one function that walks its pages. Only
 * image-reader*.c may include this.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "image-cursor.h"
#include "migration/image-reader.h"

/* More RAM than any machine has: whoever counts pages can rely on it. */
#define IMAGE_RAM_MAX (1ULL << 46)

struct ImageReader {
    char *path;
    ImageSource *source;
    Cursor cursor;
    ImageKind kind;
    ImageHead *head;
    GPtrArray *capabilities;
    gboolean ignore_shared;
    gboolean has_uuid;
    guint8 uuid[16];
    GArray *mapped; /* ImageMappedBlock */
    guint32 ram_id;
    ImageLayout layout;
    struct ImageChain *chain; /* of an incremental image */
    ImageIndex *index;
    /* Of a source that is not mapped: copies. */
    guint8 *devices;
    gsize description_length;
    /* The format's: walks the pages and leaves the cursor at the first device section. */
    gboolean (*walk)(ImageReader *reader, ImagePageFunc func, gpointer user, GError **errp);
};

/* SF_ERROR_FORMAT with path and position before the text. Returns FALSE. */
gboolean image_reader_broken(ImageReader *reader, GError **errp, const char *format, ...)
    G_GNUC_PRINTF(3, 4);
/* SF_ERROR_UNSUPPORTED, with the path. Returns FALSE. */
gboolean image_reader_unsupported(ImageReader *reader, GError **errp, const char *what,
                                  const char *name);
/* The footer of the ram section. */
gboolean image_reader_footer(ImageReader *reader, GError **errp);

/* image-reader-head.c: everything before the pages. */
gboolean image_reader_read_head(ImageReader *reader, GError **errp);
/* A section that is not ours to understand, from its type byte to behind its footer. */
gboolean image_reader_skip_section(ImageReader *reader, GError **errp);
/* A command; the cursor stands at its type byte. */
gboolean image_reader_skip_command(ImageReader *reader, GError **errp);

/* image-reader-stream.c: pages as records, in any order. */
gboolean stream_pages_walk(ImageReader *reader, ImagePageFunc func, gpointer user, GError **errp);
/* image-reader-mapped.c: pages at fixed places. */
gboolean mapped_pages_walk(ImageReader *reader, ImagePageFunc func, gpointer user, GError **errp);
/* image-reader-incremental.c: pages in this image and its parents. Behind the head. */
gboolean incremental_open(ImageReader *reader, GError **errp);
gboolean incremental_pages_walk(ImageReader *reader, ImagePageFunc func, gpointer user,
                                GError **errp);
