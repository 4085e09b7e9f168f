/*
 * Reading an image of any kind: head, pages, device sections. Kinds are plain migration streams
 * (Stillframe's, QEMU's "migrate", savevm's), mapped-ram files, device state alone
 * (xen-save-devices-state), each also inside a libvirt save file or behind zstd, zlib or gzip. Made
 * for any file that somebody hands over, so every length is checked before it is used.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "migration/image-source.h"
#include "migration/image-writer.h"

typedef struct ImageReader ImageReader;

typedef enum {
    IMAGE_KIND_STREAM,
    IMAGE_KIND_MAPPED_RAM,
    IMAGE_KIND_DEVICES,     /* no RAM section at all */
    IMAGE_KIND_INCREMENTAL, /* with its parents: pages come by ascending place */
} ImageKind;

/* "stream", "mapped-ram", "devices", "incremental". */
const char *image_kind_name(ImageKind kind);

/*
 * Opens @path ("-": standard input) and reads the head of what begins at @offset. Owned by one
 * thread at a time. SF_ERROR_IO, _FORMAT, _UNSUPPORTED, _USAGE.
 */
ImageReader *image_reader_open(const char *path, guint64 offset, GError **errp);
void image_reader_free(ImageReader *reader);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ImageReader, image_reader_free)

/*
 * The file, open for reading; owned by the reader. Its position is nobody's. -1 where the positions
 * of the layout are not positions in a file: compressed, or from a pipe.
 */
int image_reader_get_fd(ImageReader *reader);
/* Where the bytes come from: compression, libvirt's header. Owned by the reader. */
ImageSource *image_reader_get_source(ImageReader *reader);
ImageKind image_reader_get_kind(ImageReader *reader);

/* The head, owned by the reader. */
const ImageHead *image_reader_get_head(ImageReader *reader);
/* Names of the migration capabilities that the image notes, owned; the 16 bytes of the machine's
 * UUID or NULL. */
const GPtrArray *image_reader_get_capabilities(ImageReader *reader);
const guint8 *image_reader_get_uuid(ImageReader *reader);
/* Whether each byte of it can be had at any time: the file is mapped. */
gboolean image_reader_is_mapped(ImageReader *reader);
/* Makes it so, before the first walk: unpacks it into a nameless file in $TMPDIR if need be. */
gboolean image_reader_map(ImageReader *reader, GError **errp);

/*
 * Called for each run of pages in the image's order; @data is NULL for zero pages, else valid until
 * the function returns, and as long as the reader where image_reader_is_mapped(). Return FALSE and
 * set *errp to stop.
 */
typedef gboolean (*ImagePageFunc)(guint block, guint64 offset, const void *data, guint64 length,
                                  gpointer user, GError **errp);

/*
 * Walks all RAM sections. @func may be NULL: then the structure is only checked, and a page size
 * that the stream leaves open (legacy ARM machines) is found out for the calls that follow. A
 * second walk goes back to the start, which a pipe cannot: SF_ERROR_UNSUPPORTED.
 */
gboolean image_reader_foreach_page(ImageReader *reader, ImagePageFunc func, gpointer user,
                                   GError **errp);

/* Inside of an ImagePageFunc: the position of @data, as in ImageLayout. */
guint64 image_reader_get_place(ImageReader *reader, const void *data);
/* How far the walk is, and how far it goes: bytes of the file; total is 0 where unknown. */
void image_reader_get_progress(ImageReader *reader, guint64 *done, guint64 *total);

/*
 * Where the parts of the stream stand in the file (in the decompressed bytes where there is no
 * file). All but start and pages are known only after image_reader_foreach_page().
 */
typedef struct ImageLayout {
    guint64 start;   /* of the stream */
    guint64 pages;   /* behind the head and the list of RAM blocks */
    guint64 devices; /* the first device section */
    guint64 eof;     /* behind the last device section */
    guint64 end;     /* behind the description, or behind EOF where there is none */
} ImageLayout;

const ImageLayout *image_reader_get_layout(ImageReader *reader);

/* The places of a block in a mapped-ram image; both 0 for a block that is not in the file. */
typedef struct ImageMappedBlock {
    guint64
        bitmap;    /* position of one bit a page, little-endian words of 64; 1: the page is there */
    guint64 pages; /* position of the block's first page */
} ImageMappedBlock;

/* Of block @index; NULL where the image is not mapped-ram. */
const ImageMappedBlock *image_reader_get_mapped_block(ImageReader *reader, guint index);

/*
 * The index behind the image, owned by the reader; NULL without an error where there is none, with
 * SF_ERROR_FORMAT where it is damaged. Walks the image if that was not done.
 */
const ImageIndex *image_reader_find_index(ImageReader *reader, GError **errp);

/*
 * The same without a walk, where the file is mapped and the index agrees with the head: afterwards
 * the layout and the device sections are known from the index. NULL without an error where there is
 * none that does.
 */
const ImageIndex *image_reader_adopt_index(ImageReader *reader, GError **errp);

/* The device sections (owned by the reader), known after image_reader_foreach_page(). */
gboolean image_reader_get_device_state(ImageReader *reader, const guint8 **data, gsize *length,
                                       GError **errp);
/*
 * QEMU's description of the device sections: JSON, not terminated, owned by the reader. NULL where
 * there is none. Known as above.
 */
const char *image_reader_get_description(ImageReader *reader, gsize *length);
