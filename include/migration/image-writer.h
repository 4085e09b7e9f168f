/*
 * The small interface between the engine and an image format. The engine calls it from one thread,
 * the output thread, in the order: begin, any number of page/zero/flush, device_state, finish.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "migration/channel.h"

/* A RAM block as an image names it. */
typedef struct ImageBlock {
    char *name;
    guint64 used_length; /* bytes */
} ImageBlock;

/* What stands at the head of an image. */
typedef struct ImageHead {
    char *machine_type;      /* as in CONFIGURATION, e.g. "pc-q35-7.2" */
    guint target_page_bits;  /* 12 = 4 KiB target pages */
    gboolean send_page_bits; /* the target needs configuration/target-page-bits */
    GPtrArray *blocks;       /* ImageBlock, owning; the index is what page() and zero() take */
} ImageHead;

ImageHead *image_head_new(void);
void image_head_free(ImageHead *head);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ImageHead, image_head_free)
void image_head_add_block(ImageHead *head, const char *name, guint64 used_length);

typedef struct ImageWriter ImageWriter;

struct ImageWriter {
    /* @head stays valid until free. */
    gboolean (*begin)(ImageWriter *writer, const ImageHead *head, GError **errp);
    /*
     * @length bytes of block @block at @offset; all three multiples of the target page size.
     * @data must stay valid until the next flush() returns.
     */
    gboolean (*page)(ImageWriter *writer, guint block, guint64 offset, const void *data,
                     gsize length, GError **errp);
    /* The same for bytes that are all zero. */
    gboolean (*zero)(ImageWriter *writer, guint block, guint64 offset, guint64 length,
                     GError **errp);
    /* Everything handed over so far is written, its buffers may be used again. */
    gboolean (*flush)(ImageWriter *writer, GError **errp);
    /* The device sections as QEMU wrote them, without frame. @data must stay valid until finish. */
    gboolean (*device_state)(ImageWriter *writer, const void *data, gsize length, GError **errp);
    /* The end of the image. The channel is not committed by it. */
    gboolean (*finish)(ImageWriter *writer, GError **errp);
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
