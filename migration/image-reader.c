/*
 * Images, as far as all formats agree: the mapped file, the head, the device sections.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "image-reader-impl.h"
#include "migration/device-state.h"
#include "stream-format.h"
#include "util/autofd.h"

#define MACHINE_TYPE_MAX 1024

const guint8 *cursor_bytes(Cursor *cursor, gsize length)
{
    if (cursor->bad || length > cursor->size - cursor->at) {
        cursor->bad = TRUE;
        return NULL;
    }
    const guint8 *bytes = cursor->data + cursor->at;
    cursor->at += length;
    return bytes;
}

/* Copies the next bytes; @to is left alone where there are not so many. */
static void cursor_copy(Cursor *cursor, void *to, gsize length)
{
    const guint8 *bytes = cursor_bytes(cursor, length);

    if (bytes) {
        memcpy(to, bytes, length);
    }
}

guint8 cursor_u8(Cursor *cursor)
{
    guint8 value = 0;

    cursor_copy(cursor, &value, sizeof(value));
    return value;
}

guint16 cursor_u16(Cursor *cursor)
{
    guint16 value = 0;

    cursor_copy(cursor, &value, sizeof(value));
    return GUINT16_FROM_BE(value);
}

guint32 cursor_u32(Cursor *cursor)
{
    guint32 value = 0;

    cursor_copy(cursor, &value, sizeof(value));
    return GUINT32_FROM_BE(value);
}

guint64 cursor_u64(Cursor *cursor)
{
    guint64 value = 0;

    cursor_copy(cursor, &value, sizeof(value));
    return GUINT64_FROM_BE(value);
}

int cursor_peek(const Cursor *cursor)
{
    return cursor->bad || cursor->at == cursor->size ? -1 : cursor->data[cursor->at];
}

char *cursor_name(Cursor *cursor)
{
    guint8 length = cursor_u8(cursor);
    const guint8 *bytes = cursor_bytes(cursor, length);

    /* A NUL inside would make two names look alike. */
    return bytes && length && !memchr(bytes, 0, length) ? g_strndup((const char *)bytes, length)
                                                        : NULL;
}

gboolean image_reader_broken(ImageReader *reader, const Cursor *cursor, GError **errp,
                             const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT, "%s: at byte %zu: %s%s", reader->path, cursor->at,
                cursor->bad ? "the image is cut off: " : "", text);
    return FALSE;
}

gboolean image_reader_footer(ImageReader *reader, Cursor *cursor, GError **errp)
{
    guint8 type = cursor_u8(cursor);
    guint32 id = cursor_u32(cursor);

    if (cursor->bad || type != STREAM_SECTION_FOOTER || id != reader->ram_id) {
        return image_reader_broken(reader, cursor, errp, "no footer behind the RAM section");
    }
    return TRUE;
}

static gboolean unsupported(ImageReader *reader, GError **errp, const char *what, const char *name)
{
    g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED, "%s: %s \"%s\" is not supported",
                reader->path, what, name);
    return FALSE;
}

/* Capabilities change what follows, so each that is named must be known; none is yet. */
static gboolean read_capabilities(ImageReader *reader, Cursor *cursor, GError **errp)
{
    guint32 count = cursor_u32(cursor);

    if (count) {
        g_autofree char *name = cursor_name(cursor);
        return unsupported(reader, errp, "the migration capability", name ? name : "?");
    }
    return TRUE;
}

static gboolean read_subsection(ImageReader *reader, Cursor *cursor, GError **errp)
{
    cursor_u8(cursor);
    g_autofree char *name = cursor_name(cursor);
    guint32 version = cursor_u32(cursor);

    if (!name || version != STREAM_CONFIG_SUBSECTION_VERSION) {
        return image_reader_broken(reader, cursor, errp, "a subsection that is none");
    }
    if (!strcmp(name, STREAM_CONFIG_PAGE_BITS)) {
        reader->head->target_page_bits = cursor_u32(cursor);
        reader->head->send_page_bits = TRUE;
    } else if (!strcmp(name, STREAM_CONFIG_UUID)) {
        cursor_bytes(cursor, STREAM_UUID_BYTES);
    } else if (!strcmp(name, STREAM_CONFIG_CAPABILITIES)) {
        return read_capabilities(reader, cursor, errp);
    } else {
        return unsupported(reader, errp, "the subsection", name);
    }
    /* The flags of the RAM section need bits to stand in. */
    if (reader->head->target_page_bits < 10 || reader->head->target_page_bits > 30) {
        return image_reader_broken(reader, cursor, errp, "impossible size of target pages");
    }
    return TRUE;
}

static gboolean read_configuration(ImageReader *reader, Cursor *cursor, GError **errp)
{
    cursor_u8(cursor);
    guint32 length = cursor_u32(cursor);
    const guint8 *type = length <= MACHINE_TYPE_MAX ? cursor_bytes(cursor, length) : NULL;

    if (!type || memchr(type, 0, length)) {
        return image_reader_broken(reader, cursor, errp, "no name of a machine type");
    }
    reader->head->machine_type = g_strndup((const char *)type, length);
    while (cursor_peek(cursor) == STREAM_SUBSECTION) {
        if (!read_subsection(reader, cursor, errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean read_blocks(ImageReader *reader, Cursor *cursor, GError **errp)
{
    guint64 word = cursor_u64(cursor);
    guint64 page_mask = (1ULL << reader->head->target_page_bits) - 1;
    guint64 left = word & ~page_mask;

    if (!(word & RAM_FLAG_MEM_SIZE)) {
        return image_reader_broken(reader, cursor, errp, "the RAM section has no list of blocks");
    }
    while (left) {
        g_autofree char *name = cursor_name(cursor);
        guint64 length = cursor_u64(cursor);
        if (!name || length > left || length & page_mask) {
            return image_reader_broken(reader, cursor, errp, "a RAM block that cannot be");
        }
        image_head_add_block(reader->head, name, length);
        left -= length;
    }
    if (cursor_u64(cursor) != RAM_FLAG_EOS) {
        return image_reader_broken(reader, cursor, errp, "the list of RAM blocks does not end");
    }
    return image_reader_footer(reader, cursor, errp);
}

static gboolean read_ram_start(ImageReader *reader, Cursor *cursor, GError **errp)
{
    guint8 type = cursor_u8(cursor);
    reader->ram_id = cursor_u32(cursor);
    g_autofree char *name = cursor_name(cursor);
    cursor_u32(cursor); /* instance */
    guint32 version = cursor_u32(cursor);

    if (cursor->bad || type != STREAM_SECTION_START || !name) {
        return image_reader_broken(reader, cursor, errp, "no section begins here");
    }
    if (strcmp(name, STREAM_RAM_NAME) || version != STREAM_RAM_VERSION) {
        return unsupported(reader, errp, "an image that begins with section", name);
    }
    return read_blocks(reader, cursor, errp);
}

static gboolean read_head(ImageReader *reader, GError **errp)
{
    Cursor cursor = { reader->map, reader->size, reader->layout.start };
    guint32 magic = cursor_u32(&cursor);
    guint32 version = cursor_u32(&cursor);

    if (magic != STREAM_MAGIC || version != STREAM_VERSION) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                    "%s: no migration stream of version 3 begins at byte %" G_GUINT64_FORMAT
                    "; is it compressed, or does it begin at another offset?",
                    reader->path, reader->layout.start);
        return FALSE;
    }
    if (cursor_peek(&cursor) == STREAM_CONFIGURATION &&
        !read_configuration(reader, &cursor, errp)) {
        return FALSE;
    }
    if (!read_ram_start(reader, &cursor, errp)) {
        return FALSE;
    }
    reader->layout.pages = cursor.at;
    reader->walk = stream_pages_walk;
    return TRUE;
}

static gboolean map_file(ImageReader *reader, GError **errp)
{
    struct stat st;

    /* O_NONBLOCK: a FIFO is refused below, not waited for. */
    reader->fd = open(reader->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (reader->fd < 0 || fstat(reader->fd, &st) < 0) {
        return sf_error_set_errno(errp, SF_ERROR_IO, errno, "cannot read the image %s",
                                  reader->path);
    }
    if (!S_ISREG(st.st_mode)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE,
                    "%s is not a regular file; an image is read twice, so copy it into one first",
                    reader->path);
        return FALSE;
    }
    if ((guint64)st.st_size <= reader->layout.start) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                    "%s has only %" G_GINT64_FORMAT
                    " bytes, no image begins at byte %" G_GUINT64_FORMAT,
                    reader->path, (gint64)st.st_size, reader->layout.start);
        return FALSE;
    }
    void *map = mmap(NULL, (gsize)st.st_size, PROT_READ, MAP_PRIVATE, reader->fd, 0);
    if (map == MAP_FAILED) {
        return sf_error_set_errno(errp, SF_ERROR_IO, errno, "cannot map the image %s",
                                  reader->path);
    }
    reader->map = map;
    reader->size = (gsize)st.st_size;
    /* Only a hint. */
    madvise(map, reader->size, MADV_SEQUENTIAL);
    return TRUE;
}

ImageReader *image_reader_open(const char *path, guint64 offset, GError **errp)
{
    g_autoptr(ImageReader) reader = g_new0(ImageReader, 1);

    reader->path = g_strdup(path);
    reader->fd = -1;
    reader->head = image_head_new();
    reader->layout.start = offset;
    if (!map_file(reader, errp) || !read_head(reader, errp)) {
        return NULL;
    }
    return g_steal_pointer(&reader);
}

void image_reader_free(ImageReader *reader)
{
    if (!reader) {
        return;
    }
    if (reader->map) {
        munmap(reader->map, reader->size);
    }
    sf_clear_fd(&reader->fd);
    image_head_free(reader->head);
    g_free(reader->path);
    g_free(reader);
}

int image_reader_get_fd(ImageReader *reader)
{
    return reader->fd;
}

const ImageHead *image_reader_get_head(ImageReader *reader)
{
    return reader->head;
}

const ImageLayout *image_reader_get_layout(ImageReader *reader)
{
    return &reader->layout;
}

/* EOF, and the description where there is one. */
static void find_end(ImageReader *reader)
{
    Cursor cursor = { reader->map, reader->size, reader->layout.eof };

    cursor_u8(&cursor);
    reader->layout.end = cursor.at;
    if (cursor_peek(&cursor) == STREAM_VMDESCRIPTION) {
        cursor_u8(&cursor);
        if (cursor_bytes(&cursor, cursor_u32(&cursor))) {
            reader->layout.end = cursor.at;
        }
    }
}

static gboolean walk_all(ImageReader *reader, ImagePageFunc func, gpointer user, GError **errp)
{
    Cursor cursor = { reader->map, reader->size, reader->layout.pages };
    gsize length;

    if (!reader->walk(reader, &cursor, func, user, errp)) {
        return FALSE;
    }
    g_autoptr(GPtrArray) sections = device_state_list_in_stream(
        reader->map + cursor.at, reader->size - cursor.at, &length, errp);
    if (!sections) {
        g_prefix_error(errp, "%s: ", reader->path);
        return FALSE;
    }
    reader->layout.devices = cursor.at;
    reader->layout.eof = cursor.at + length;
    find_end(reader);
    return TRUE;
}

gboolean image_reader_foreach_page(ImageReader *reader, ImagePageFunc func, gpointer user,
                                   GError **errp)
{
    ImageHead *head = reader->head;

    if (func || head->send_page_bits || head->target_page_bits != 12) {
        return walk_all(reader, func, user, errp);
    }
    if (walk_all(reader, NULL, NULL, errp)) {
        return TRUE;
    }
    /* A stream that says nothing may be of an ARM machine with its legacy page of 1 KiB. */
    head->target_page_bits = 10;
    if (walk_all(reader, NULL, NULL, NULL)) {
        g_clear_error(errp);
        return TRUE;
    }
    head->target_page_bits = 12;
    return FALSE;
}

gboolean image_reader_get_device_state(ImageReader *reader, const guint8 **data, gsize *length,
                                       GError **errp)
{
    const ImageLayout *layout = &reader->layout;

    if (!layout->eof && !image_reader_foreach_page(reader, NULL, NULL, errp)) {
        return FALSE;
    }
    *data = reader->map + layout->devices;
    *length = layout->eof - layout->devices;
    return TRUE;
}
