/*
 * zlib and gzip around an image, one member or many.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <zlib.h>

#include "image-source-impl.h"

/* inflateInit2(): the largest window, zlib or gzip by what the first bytes say. */
#define WINDOW_AUTO (15 + 32)

typedef struct ZlibDecoder {
    ImageDecoder decoder;
    z_stream stream;
    gboolean in_member;
} ZlibDecoder;

static gboolean set_damaged(ZlibDecoder *zlib, GError **errp)
{
    g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT, "the zlib or gzip data is damaged: %s",
                zlib->stream.msg ? zlib->stream.msg : "cut off");
    return FALSE;
}

/* One call of the library. *more is FALSE at the end of the data. */
static gboolean inflate_some(ZlibDecoder *zlib, RawInput *raw, gboolean *more, GError **errp)
{
    gsize before = raw->have - raw->at;

    if (!before) {
        *more = FALSE;
        return !zlib->in_member || set_damaged(zlib, errp);
    }
    zlib->stream.next_in = raw->buffer + raw->at;
    zlib->stream.avail_in = (uInt)before;
    zlib->in_member = TRUE;
    int result = inflate(&zlib->stream, Z_NO_FLUSH);
    raw->at += before - zlib->stream.avail_in;
    if (result == Z_STREAM_END) {
        zlib->in_member = FALSE;
        inflateReset2(&zlib->stream, WINDOW_AUTO);
        return TRUE;
    }
    return result == Z_OK || result == Z_BUF_ERROR || set_damaged(zlib, errp);
}

static gssize zlib_read(ImageDecoder *decoder, RawInput *raw, void *buffer, gsize length,
                        GError **errp)
{
    ZlibDecoder *zlib = (ZlibDecoder *)decoder;
    gboolean more = TRUE;
    uInt room = (uInt)MIN(length, G_MAXINT);

    zlib->stream.next_out = buffer;
    zlib->stream.avail_out = room;
    while (more && zlib->stream.avail_out == room) {
        if (!raw_input_fill(raw, errp) || !inflate_some(zlib, raw, &more, errp)) {
            return -1;
        }
    }
    return (gssize)(room - zlib->stream.avail_out);
}

static void zlib_free(ImageDecoder *decoder)
{
    inflateEnd(&((ZlibDecoder *)decoder)->stream);
    g_free(decoder);
}

ImageDecoder *image_decoder_new_zlib(void)
{
    ZlibDecoder *zlib = g_new0(ZlibDecoder, 1);

    zlib->decoder = (ImageDecoder){ .read = zlib_read, .free = zlib_free };
    /* It can only fail for want of memory, where GLib would have ended the process too. */
    if (inflateInit2(&zlib->stream, WINDOW_AUTO) != Z_OK) {
        g_error("zlib: %s", zlib->stream.msg ? zlib->stream.msg : "no memory");
    }
    return &zlib->decoder;
}
