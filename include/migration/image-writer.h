/*
 * The small interface between the engine and an image format. The engine calls it in the order:
 * begin, any number of page/zero/flush, device_state, finish; never from two threads at a time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "migration/channel.h"
#include "migration/image-chain.h"

/* A RAM block as an image names it. */
typedef struct ImageBlock {
    char *name;
    guint64 used_length; /* bytes */
    guint64 page_size;   /* of the memory behind it, for the index; 0 = not known */
    guint32 flags;       /* INDEX_BLOCK_*, for the index */
} ImageBlock;

/* What stands at the head of an image. */
typedef struct ImageHead {
    char *machine_type;      /* as in CONFIGURATION, e.g. "pc-q35-7.2" */
    guint target_page_bits;  /* 12 = 4 KiB target pages */
    gboolean send_page_bits; /* the target needs configuration/target-page-bits */
    char *description;       /* JSON of the device sections; NULL: one that names none */
    GPtrArray *blocks;       /* ImageBlock, owning; the index is what page() and zero() take */
} ImageHead;

ImageHead *image_head_new(void);
void image_head_free(ImageHead *head);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ImageHead, image_head_free)
void image_head_add_block(ImageHead *head, const char *name, guint64 used_length);

typedef struct ImageWriter ImageWriter;

/* Places are bytes from the beginning of the image. */
struct ImageWriter {
    ImageFormat format;
    /* Set by the caller before page(), zero() and keep(): who saved them, and when after T0. */
    IndexSource source;
    guint32 when_ms;
    /* From the beginning of a page to that of the next in one call of page(). Set by begin(). */
    guint64 stride;
    guint64 place;      /* of the first page of the last page(). Set by page() */
    guint64 devices_at; /* Set by device_state() */
    guint64 length;     /* of the image. Set by finish() */
    guint64 trailer;    /* bytes of the index behind it. Set by finish() */

    /* @head stays valid until free. */
    gboolean (*begin)(ImageWriter *writer, const ImageHead *head, GError **errp);
    /*
     * @length bytes of block @block at @offset; all three multiples of the target page size. A
     * page may come more than once, as data or as zero: the last one counts.
     * @data must stay valid until the next flush() returns.
     */
    gboolean (*page)(ImageWriter *writer, guint block, guint64 offset, const void *data,
                     gsize length, GError **errp);
    /* The same for bytes that are all zero. */
    gboolean (*zero)(ImageWriter *writer, guint block, guint64 offset, guint64 length,
                     GError **errp);
    /* As page(), for bytes that are as in the parent; NULL in a writer that has none. */
    gboolean (*keep)(ImageWriter *writer, guint block, guint64 offset, const void *data,
                     gsize length, GError **errp);
    /* What such pages are for the index: PARENT, or HERE at their fixed places. */
    IndexKind kept;
    /* Where page 0 of @block is in a format with fixed places, known after begin(); else NULL. */
    guint64 (*base)(ImageWriter *writer, guint block);
    /* Everything handed over so far is written, its buffers may be used again. */
    gboolean (*flush)(ImageWriter *writer, GError **errp);
    /* The device sections as QEMU wrote them, without frame. @data must stay valid until finish. */
    gboolean (*device_state)(ImageWriter *writer, const void *data, gsize length, GError **errp);
    /* The end of the image. The channel is not committed by it. */
    gboolean (*finish)(ImageWriter *writer, GError **errp);
    /* Behind the end, after finish(): where no loader looks. */
    gboolean (*append)(ImageWriter *writer, const void *data, gsize length, GError **errp);
    void (*free)(ImageWriter *writer);
};

static inline void image_writer_free(ImageWriter *writer)
{
    if (writer) {
        writer->free(writer);
    }
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ImageWriter, image_writer_free)

/* QEMU's migration stream, version 3, onto @channel (not taken, must outlive the writer). */
ImageWriter *stream_writer_new(Channel *channel);

/* The pages that the parent has not; it has keep(), and needs the index. As above. */
ImageWriter *incremental_writer_new(Channel *channel);

/*
 * QEMU's mapped-ram file onto @channel, as above. SF_ERROR_UNSUPPORTED where the channel has no
 * places (channel_has_places()).
 */
ImageWriter *mapped_writer_new(Channel *channel, GError **errp);

/*
 * The same on top of a clone of the file @parent, a mapped-ram image that begins with it; it has
 * keep(). NULL without an error where the file system shares no blocks between the two.
 */
ImageWriter *mapped_writer_new_clone(Channel *channel, int parent, GError **errp);

/*
 * Writes onto @inner (taken), hashes each page on the way and writes the index behind the image.
 * @builder (not taken, without blocks) gets blocks, pages and device sections; what else is to
 * stand in the index is the caller's to add before finish(). It has no append().
 */
ImageWriter *index_writer_new(ImageWriter *inner, ImageIndexBuilder *builder);
/*
 * From now on pages that are as in the youngest image of @parent (not taken, must outlive the
 * writer), at the same place of the block of the same name, are kept, not written. @needed: the
 * image cannot be read without it. After begin(); @writer has an inner one with keep().
 */
void index_writer_set_parent(ImageWriter *writer, const ImageChain *parent, gboolean needed);
/* Bytes that were kept. */
guint64 index_writer_get_kept(const ImageWriter *writer);
