/*
 * Decoders behind an image source. Only image-source*.c may include this.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "migration/image-source.h"

/* Bytes of the file, read ahead into a buffer. */
typedef struct RawInput {
    int fd;
    gboolean pread;   /* a file: read at @position; otherwise from wherever the descriptor stands */
    guint64 position; /* of the next byte to be read into the buffer */
    guint8 *buffer;
    gsize at; /* the first byte not taken yet */
    gsize have;
    gboolean ended;
} RawInput;

/* At least one more byte is in the buffer, unless the input has ended. FALSE with *errp. */
gboolean raw_input_fill(RawInput *raw, GError **errp);

typedef struct ImageDecoder ImageDecoder;

struct ImageDecoder {
    /* As image_source_read(). */
    gssize (*read)(ImageDecoder *decoder, RawInput *raw, void *buffer, gsize length, GError **errp);
    void (*free)(ImageDecoder *decoder);
};

/* image-source-zstd.c, image-source-zlib.c. The latter tells zlib and gzip apart by itself. */
ImageDecoder *image_decoder_new_zstd(void);
ImageDecoder *image_decoder_new_zlib(void);
