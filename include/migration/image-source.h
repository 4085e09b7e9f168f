/*
 * The bytes of an image, wherever they come from: a file, standard input, compressed frames, behind
 * a header of libvirt's. Plain files are mapped; everything else is read once, front to back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "migration/libvirt-header.h"

typedef enum {
    IMAGE_COMPRESSION_NONE,
    IMAGE_COMPRESSION_ZSTD, /* RFC 8878 frames */
    IMAGE_COMPRESSION_ZLIB, /* RFC 1950 */
    IMAGE_COMPRESSION_GZIP, /* RFC 1952 members */
} ImageCompression;

/* "none", "zstd", "zlib", "gzip". */
const char *image_compression_name(ImageCompression compression);

typedef struct ImageSource ImageSource;

/*
 * Opens @path ("-": standard input) at byte @offset, looks for libvirt's header and for
 * compression, and stands behind the header. SF_ERROR_IO, SF_ERROR_FORMAT, SF_ERROR_UNSUPPORTED,
 * SF_ERROR_USAGE.
 */
ImageSource *image_source_open(const char *path, guint64 offset, GError **errp);
void image_source_free(ImageSource *source);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ImageSource, image_source_free)

/* For messages; owned by the source. */
const char *image_source_get_path(ImageSource *source);
ImageCompression image_source_get_compression(ImageSource *source);
/* NULL where there was no such header. *data (may be NULL) gets what stands behind it. Owned. */
const LibvirtHeader *image_source_get_libvirt(ImageSource *source, const guint8 **data);
/*
 * Where the stream begins: in the file for a mapped source; 0 in what is read front to back, where
 * positions count decompressed bytes.
 */
guint64 image_source_get_start(ImageSource *source);
/* The whole mapped file and its size; NULL where the source is read front to back. */
const guint8 *image_source_get_map(ImageSource *source, gsize *size);
/* The file of a mapped source; -1 otherwise. Owned. Its position is nobody's. */
int image_source_get_fd(ImageSource *source);
/* Size of the file in bytes as it lies on the disk, 0 where unknown; and bytes read of it so far.
 */
guint64 image_source_get_file_size(ImageSource *source);
guint64 image_source_get_file_done(ImageSource *source);

/*
 * The next bytes of a source that is read front to back: at most @length, 0 at the end, -1 with
 * *errp.
 */
gssize image_source_read(ImageSource *source, void *buffer, gsize length, GError **errp);
/* Goes back to the start. FALSE with SF_ERROR_UNSUPPORTED for standard input. */
gboolean image_source_rewind(ImageSource *source, GError **errp);
/*
 * Puts a source that is read front to back into a nameless file in $TMPDIR (zeros as holes) and
 * maps that. @head, @head_length: all that was read of it before.
 */
gboolean image_source_spool(ImageSource *source, const guint8 *head, gsize head_length,
                            GError **errp);
