/*
 * A channel that compresses: frames of a fixed content size, each on its own, one behind the other
 * into another channel.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "channel-impl.h"

#define FRAME_BYTES ((gsize)1024 * 1024)
#define ZSTD_LEVEL 1 /* its default, 3, takes twice the time for a tenth less */
#define GZIP_LEVEL 1
#define GZIP_WINDOW (15 + 16) /* the largest window, in a gzip member */
#define GZIP_ROOM 1024        /* more than a member's head and tail */
/* The "Zstandard Seekable Format", version 0.1.0. */
#define SEEK_FRAME_MAGIC 0x184d2a5eU
#define SEEK_TABLE_MAGIC 0x8f92eab1U
#define SEEK_FRAMES_MAX 0x8000000U /* the format's own limit */
#define SEEK_ENTRY_BYTES 8

typedef struct CompressChannel {
    Channel base;
    Channel *inner;
    ChannelCompression compression;
    int level;
    ZSTD_CCtx *zstd;
    guint8 *plain;
    gsize used;
    guint8 *packed;
    gsize packed_room;
    GByteArray *table; /* of the seek table: sizes of each frame, packed and plain */
    GError *error;     /* of the inner channel */
} CompressChannel;

static void put_le32(GByteArray *out, guint32 value)
{
    value = GUINT32_TO_LE(value);
    g_byte_array_append(out, (const guint8 *)&value, sizeof(value));
}

static gboolean inner_write(CompressChannel *c, const void *data, gsize length)
{
    struct iovec iov = { (void *)data, length };

    return channel_writev(c->inner, &iov, 1, &c->error);
}

/* One gzip member; its size, 0 where it failed. */
static gsize pack_gzip(CompressChannel *c)
{
    z_stream stream = { .next_in = c->plain,
                        .avail_in = (uInt)c->used,
                        .next_out = c->packed,
                        .avail_out = (uInt)c->packed_room };

    if (deflateInit2(&stream, c->level, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
        return 0;
    }
    gsize size = deflate(&stream, Z_FINISH) == Z_STREAM_END ? stream.total_out : 0;
    deflateEnd(&stream);
    return size;
}

static gsize pack_zstd(CompressChannel *c)
{
    size_t size = ZSTD_compress2(c->zstd, c->packed, c->packed_room, c->plain, c->used);

    return ZSTD_isError(size) ? 0 : size;
}

static gboolean write_frame(CompressChannel *c)
{
    if (!c->used) {
        return TRUE;
    }
    gsize size = c->compression == CHANNEL_ZSTD ? pack_zstd(c) : pack_gzip(c);
    if (!size) {
        g_set_error(&c->error, SF_ERROR, SF_ERROR_FAILED, "%s: cannot compress", c->base.name);
        return FALSE;
    }
    put_le32(c->table, (guint32)size);
    put_le32(c->table, (guint32)c->used);
    c->used = 0;
    return inner_write(c, c->packed, size);
}

static ssize_t compress_write(Channel *channel, const struct iovec *iov, int count)
{
    CompressChannel *c = (CompressChannel *)channel;
    gsize length = MIN(iov->iov_len, FRAME_BYTES - c->used);

    memcpy(c->plain + c->used, iov->iov_base, length);
    c->used += length;
    if (c->used == FRAME_BYTES && !write_frame(c)) {
        errno = EIO;
        return -1;
    }
    return (ssize_t)length;
}

static void compress_explain(Channel *channel, int err, GError **errp)
{
    g_propagate_error(errp, g_steal_pointer(&((CompressChannel *)channel)->error));
}

/* Behind the frames: a frame that decoders skip. Without it they are frames all the same. */
static gboolean write_seek_table(CompressChannel *c)
{
    guint32 frames = c->table->len / SEEK_ENTRY_BYTES;
    g_autoptr(GByteArray) out = g_byte_array_new();

    if (c->compression != CHANNEL_ZSTD || frames > SEEK_FRAMES_MAX) {
        return TRUE;
    }
    put_le32(out, SEEK_FRAME_MAGIC);
    put_le32(out, c->table->len + 9);
    g_byte_array_append(out, c->table->data, c->table->len);
    put_le32(out, frames);
    g_byte_array_append(out, (const guint8 *)"", 1); /* no checksums in the table */
    put_le32(out, SEEK_TABLE_MAGIC);
    return inner_write(c, out->data, out->len);
}

static gboolean compress_commit(Channel *channel, GError **errp)
{
    CompressChannel *c = (CompressChannel *)channel;

    if (!write_frame(c) || !write_seek_table(c)) {
        g_propagate_error(errp, g_steal_pointer(&c->error));
        return FALSE;
    }
    return channel_commit(c->inner, errp);
}

static void compress_release(Channel *channel)
{
    CompressChannel *c = (CompressChannel *)channel;

    channel_free(c->inner);
    ZSTD_freeCCtx(c->zstd);
    g_free(c->plain);
    g_free(c->packed);
    g_byte_array_unref(c->table);
    g_clear_error(&c->error);
}

static const ChannelOps compress_ops = {
    .write = compress_write,
    .explain = compress_explain,
    .commit = compress_commit,
    .release = compress_release,
};

Channel *channel_compress_new(Channel *inner, ChannelCompression compression, int level,
                              GError **errp)
{
    CompressChannel *c = g_new0(CompressChannel, 1);
    g_autoptr(Channel) channel = &c->base;
    gboolean zstd = compression == CHANNEL_ZSTD;

    c->inner = inner;
    c->compression = compression;
    c->level = level ? level : zstd ? ZSTD_LEVEL : GZIP_LEVEL;
    c->plain = g_malloc(FRAME_BYTES);
    c->packed_room = MAX(ZSTD_compressBound(FRAME_BYTES), compressBound(FRAME_BYTES)) + GZIP_ROOM;
    c->packed = g_malloc(c->packed_room);
    c->table = g_byte_array_new();
    c->zstd = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(c->zstd, ZSTD_c_compressionLevel, c->level);
    ZSTD_CCtx_setParameter(c->zstd, ZSTD_c_checksumFlag, 1);
    /* A channel is open as long as it has a descriptor; this one writes to none itself. */
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (!channel_init(channel, &compress_ops, fd, g_strdup(inner->name), errp)) {
        return NULL;
    }
    return g_steal_pointer(&channel);
}
