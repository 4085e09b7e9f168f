/*
 * Opening the bytes of an image: what they are wrapped in, and the mapped file or the decoder that
 * they come from.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "image-source-impl.h"
#include "util/autofd.h"
#include "util/zero.h"

#define RAW_BYTES (256 * 1024)
#define PEEK_BYTES LIBVIRT_MAGIC_BYTES
#define SPOOL_STEP (64 * 1024)

struct ImageSource {
    char *path;
    int fd;
    gboolean regular;
    guint64 file_size;
    guint64 start; /* of the stream, in the file as it lies there */
    RawInput raw;
    ImageCompression compression;
    ImageDecoder *decoder;
    guint8 *map;
    gsize map_size;
    gboolean spooled;
    gboolean has_libvirt;
    LibvirtHeader libvirt;
    guint8 *libvirt_data;
};

const char *image_compression_name(ImageCompression compression)
{
    static const char *const names[] = { "none", "zstd", "zlib", "gzip" };

    return names[compression];
}

/* ---- Raw bytes ---- */

/* Reads until @wanted bytes are in the buffer or the input ends. @wanted fits the buffer. */
static gboolean raw_input_peek(RawInput *raw, gsize wanted, GError **errp)
{
    if (raw->at) {
        memmove(raw->buffer, raw->buffer + raw->at, raw->have - raw->at);
        raw->have -= raw->at;
        raw->at = 0;
    }
    while (raw->have < wanted && !raw->ended) {
        guint8 *to = raw->buffer + raw->have;
        gsize room = RAW_BYTES - raw->have;
        ssize_t got =
            raw->pread ? pread(raw->fd, to, room, (off_t)raw->position) : read(raw->fd, to, room);
        if (got < 0 && errno != EINTR) {
            return sf_error_set_errno(errp, SF_ERROR_IO, errno, "cannot read it");
        }
        raw->ended = got == 0;
        raw->have += (gsize)MAX(got, 0);
        raw->position += (guint64)MAX(got, 0);
    }
    return TRUE;
}

gboolean raw_input_fill(RawInput *raw, GError **errp)
{
    return raw->at < raw->have || raw_input_peek(raw, 1, errp);
}

static gssize raw_input_read(RawInput *raw, void *buffer, gsize length, GError **errp)
{
    if (!raw_input_fill(raw, errp)) {
        return -1;
    }
    gsize count = MIN(length, raw->have - raw->at);
    memcpy(buffer, raw->buffer + raw->at, count);
    raw->at += count;
    return (gssize)count;
}

static void raw_input_seek(RawInput *raw, guint64 position)
{
    raw->position = position;
    raw->at = raw->have = 0;
    raw->ended = FALSE;
}

/* Exactly @length bytes. */
static gboolean raw_input_take(RawInput *raw, guint8 *buffer, gsize length, GError **errp)
{
    for (gsize done = 0; done < length;) {
        gssize got = raw_input_read(raw, buffer + done, length - done, errp);
        if (got <= 0) {
            if (got == 0) {
                g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT, "it is cut off in its header");
            }
            return FALSE;
        }
        done += (gsize)got;
    }
    return TRUE;
}

/* ---- Opening ---- */

static gboolean open_file(ImageSource *source, guint64 offset, GError **errp)
{
    struct stat st;

    /* O_NONBLOCK: a FIFO without a writer is not waited for. */
    source->fd = strcmp(source->path, "-") != 0
                     ? open(source->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
                     : fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    if (source->fd < 0 || fstat(source->fd, &st) < 0) {
        return sf_error_set_errno(errp, SF_ERROR_IO, errno, "cannot read the image");
    }
    source->regular = S_ISREG(st.st_mode);
    if (!source->regular && strcmp(source->path, "-") != 0) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE,
                    "not a regular file; give what is to be read once to standard input (-)");
        return FALSE;
    }
    if (!source->regular && offset) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE,
                    "an image that comes through a pipe begins at its first byte");
        return FALSE;
    }
    source->file_size = source->regular ? (guint64)st.st_size : 0;
    if (source->regular && source->file_size <= offset) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                    "it has only %" G_GUINT64_FORMAT
                    " bytes, no image begins at byte %" G_GUINT64_FORMAT,
                    source->file_size, offset);
        return FALSE;
    }
    source->start = offset;
    source->raw = (RawInput){ .fd = source->fd,
                              .pread = source->regular,
                              .position = offset,
                              .buffer = g_malloc(RAW_BYTES) };
    return TRUE;
}

static gboolean take_libvirt(ImageSource *source, GError **errp)
{
    RawInput *raw = &source->raw;
    guint8 header[LIBVIRT_HEADER_BYTES];

    if (!raw_input_peek(raw, PEEK_BYTES, errp)) {
        return FALSE;
    }
    if (!libvirt_header_begins(raw->buffer, raw->have)) {
        return TRUE;
    }
    if (!raw_input_take(raw, header, sizeof(header), errp) ||
        !libvirt_header_parse(header, sizeof(header), &source->libvirt, errp)) {
        return FALSE;
    }
    gsize length = source->libvirt.data_length;
    if (source->regular && length > source->file_size - source->start) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT, "the libvirt save file is cut off");
        return FALSE;
    }
    source->libvirt_data = g_malloc(length + 1);
    source->has_libvirt = TRUE;
    source->start += sizeof(header) + length;
    return raw_input_take(raw, source->libvirt_data, length, errp);
}

static gboolean starts(const RawInput *raw, const char *magic, gsize length)
{
    return raw->have >= length && !memcmp(raw->buffer, magic, length);
}

static gboolean is_zstd(const RawInput *raw)
{
    /* A frame, or one to be skipped before it: 0x184d2a50 to ...5f, little-endian. */
    return starts(raw, "\x28\xb5\x2f\xfd", 4) ||
           (raw->have >= 4 && (raw->buffer[0] & 0xf0) == 0x50 &&
            !memcmp(raw->buffer + 1, "\x2a\x4d\x18", 3));
}

/* RFC 1950: deflate with a window of up to 32 KiB, and a check modulo 31. */
static gboolean is_zlib(const RawInput *raw)
{
    return raw->have >= 2 && (raw->buffer[0] & 0x8f) == 0x08 &&
           (raw->buffer[0] << 8 | raw->buffer[1]) % 31 == 0;
}

static gboolean find_compression(ImageSource *source, GError **errp)
{
    const RawInput *raw = &source->raw;
    const char *program = NULL;

    if (!raw_input_peek(&source->raw, PEEK_BYTES, errp)) {
        return FALSE;
    }
    if (is_zstd(raw)) {
        source->compression = IMAGE_COMPRESSION_ZSTD;
        source->decoder = image_decoder_new_zstd();
    } else if (starts(raw, "\x1f\x8b", 2) || is_zlib(raw)) {
        source->compression =
            raw->buffer[0] == 0x1f ? IMAGE_COMPRESSION_GZIP : IMAGE_COMPRESSION_ZLIB;
        source->decoder = image_decoder_new_zlib();
    } else if (starts(raw,
                      "\xfd"
                      "7zXZ",
                      6)) {
        program = "xz";
    } else if (starts(raw, "BZh", 3)) {
        program = "bzip2";
    } else if (starts(raw, "\x89LZO", 4)) {
        program = "lzop";
    }
    if (program) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "compressed by %s; give it to standard input: %s -dc FILE | stillframe ... -",
                    program, program);
        return FALSE;
    }
    return TRUE;
}

static gboolean map_file(ImageSource *source, int fd, guint64 size, GError **errp)
{
    void *map = mmap(NULL, (gsize)size, PROT_READ, MAP_PRIVATE, fd, 0);

    if (map == MAP_FAILED) {
        return sf_error_set_errno(errp, SF_ERROR_IO, errno, "cannot map the image");
    }
    source->map = map;
    source->map_size = (gsize)size;
    /* Only a hint. */
    madvise(map, source->map_size, MADV_SEQUENTIAL);
    return TRUE;
}

ImageSource *image_source_open(const char *path, guint64 offset, GError **errp)
{
    g_autoptr(ImageSource) source = g_new0(ImageSource, 1);

    source->path = g_strdup(strcmp(path, "-") != 0 ? path : "-");
    source->fd = -1;
    if (!open_file(source, offset, errp) || !take_libvirt(source, errp) ||
        !find_compression(source, errp) ||
        (source->regular && !source->decoder &&
         !map_file(source, source->fd, source->file_size, errp))) {
        g_prefix_error(errp, "%s: ", path);
        return NULL;
    }
    return g_steal_pointer(&source);
}

void image_source_free(ImageSource *source)
{
    if (!source) {
        return;
    }
    if (source->decoder) {
        source->decoder->free(source->decoder);
    }
    if (source->map) {
        munmap(source->map, source->map_size);
    }
    sf_clear_fd(&source->fd);
    g_free(source->raw.buffer);
    g_free(source->libvirt_data);
    g_free(source->path);
    g_free(source);
}

/* ---- What is told ---- */

const char *image_source_get_path(ImageSource *source)
{
    return source->path;
}

ImageCompression image_source_get_compression(ImageSource *source)
{
    return source->compression;
}

const LibvirtHeader *image_source_get_libvirt(ImageSource *source, const guint8 **data)
{
    if (data) {
        *data = source->libvirt_data;
    }
    return source->has_libvirt ? &source->libvirt : NULL;
}

guint64 image_source_get_start(ImageSource *source)
{
    return source->map && !source->spooled ? source->start : 0;
}

const guint8 *image_source_get_map(ImageSource *source, gsize *size)
{
    *size = source->map_size;
    return source->map;
}

int image_source_get_fd(ImageSource *source)
{
    return source->map ? source->fd : -1;
}

guint64 image_source_get_file_size(ImageSource *source)
{
    return source->file_size;
}

guint64 image_source_get_file_done(ImageSource *source)
{
    return source->raw.position;
}

/* ---- Front to back ---- */

gssize image_source_read(ImageSource *source, void *buffer, gsize length, GError **errp)
{
    gssize got = source->decoder
                     ? source->decoder->read(source->decoder, &source->raw, buffer, length, errp)
                     : raw_input_read(&source->raw, buffer, length, errp);

    if (got < 0) {
        g_prefix_error(errp, "%s: ", source->path);
    }
    return got;
}

gboolean image_source_rewind(ImageSource *source, GError **errp)
{
    if (source->map) {
        return TRUE;
    }
    if (!source->regular) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "%s: it would have to be read twice; put it into a file first", source->path);
        return FALSE;
    }
    raw_input_seek(&source->raw, source->start);
    if (source->decoder) {
        source->decoder->free(source->decoder);
        source->decoder = source->compression == IMAGE_COMPRESSION_ZSTD ? image_decoder_new_zstd()
                                                                        : image_decoder_new_zlib();
    }
    return TRUE;
}

static gboolean spool_write(ImageSource *source, int fd, const guint8 *data, gsize length,
                            guint64 at, GError **errp)
{
    for (gsize put = 0; put < length;) {
        ssize_t n = pwrite(fd, data + put, length - put, (off_t)(at + put));
        if (n < 0 && errno != EINTR) {
            return sf_error_set_errno(errp, SF_ERROR_IO, errno,
                                      "cannot unpack %s in %s; set TMPDIR to where there is room",
                                      source->path, g_get_tmp_dir());
        }
        put += (gsize)MAX(n, 0);
    }
    return TRUE;
}

/* Everything that is left, into @fd from @size on; zeros become holes. The size, 0 with *errp. */
static guint64 spool_rest(ImageSource *source, int fd, guint64 size, GError **errp)
{
    g_autofree guint8 *buffer = g_malloc(SPOOL_STEP);
    gssize got;

    while ((got = image_source_read(source, buffer, SPOOL_STEP, errp)) > 0) {
        gboolean zero = got % 64 == 0 && buffer_is_zero(buffer, (gsize)got);
        if (!zero && !spool_write(source, fd, buffer, (gsize)got, size, errp)) {
            return 0;
        }
        size += (guint64)got;
    }
    if (got < 0) {
        return 0;
    }
    if (ftruncate(fd, (off_t)size) < 0) {
        sf_error_set_errno(errp, SF_ERROR_IO, errno, "cannot unpack %s", source->path);
        return 0;
    }
    return size;
}

gboolean image_source_spool(ImageSource *source, const guint8 *head, gsize head_length,
                            GError **errp)
{
    const char *directory = g_get_tmp_dir();
    sf_autofd fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd < 0) {
        return sf_error_set_errno(errp, SF_ERROR_IO, errno,
                                  "cannot unpack %s in %s; set TMPDIR to another directory",
                                  source->path, directory);
    }
    guint64 size = spool_write(source, fd, head, head_length, 0, errp)
                       ? spool_rest(source, fd, head_length, errp)
                       : 0;
    if (!size || !map_file(source, fd, size, errp)) {
        return FALSE;
    }
    sf_clear_fd(&source->fd);
    source->fd = sf_steal_fd(&fd);
    source->spooled = TRUE;
    return TRUE;
}
