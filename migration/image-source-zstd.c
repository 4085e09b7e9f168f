/*
 * zstd frames of an image. Memory is bounded by the library: frames that want a window of more than
 * 128 MiB are refused.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <zstd.h>

#include "image-source-impl.h"

typedef struct ZstdDecoder {
    ImageDecoder decoder;
    ZSTD_DStream *stream;
    gboolean in_frame;
} ZstdDecoder;

static gssize zstd_read(ImageDecoder *decoder, RawInput *raw, void *buffer, gsize length,
                        GError **errp)
{
    ZstdDecoder *zstd = (ZstdDecoder *)decoder;
    ZSTD_outBuffer out = { buffer, length, 0 };

    while (!out.pos) {
        if (!raw_input_fill(raw, errp)) {
            return -1;
        }
        gboolean empty = raw->at == raw->have;
        if (empty && !zstd->in_frame) {
            break;
        }
        ZSTD_inBuffer in = { raw->buffer, raw->have, raw->at };
        size_t left = ZSTD_decompressStream(zstd->stream, &out, &in);
        if (ZSTD_isError(left)) {
            g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT, "the zstd frames are damaged: %s",
                        ZSTD_getErrorName(left));
            return -1;
        }
        raw->at = in.pos;
        zstd->in_frame = left != 0;
        if (empty && zstd->in_frame && !out.pos) {
            g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT, "the zstd frames are cut off");
            return -1;
        }
    }
    return (gssize)out.pos;
}

static void zstd_free(ImageDecoder *decoder)
{
    ZSTD_freeDStream(((ZstdDecoder *)decoder)->stream);
    g_free(decoder);
}

ImageDecoder *image_decoder_new_zstd(void)
{
    ZstdDecoder *zstd = g_new0(ZstdDecoder, 1);

    zstd->decoder = (ImageDecoder){ .read = zstd_read, .free = zstd_free };
    zstd->stream = ZSTD_createDStream();
    ZSTD_initDStream(zstd->stream);
    return &zstd->decoder;
}
