/*
 * One image in all its wrappings: compressed, behind libvirt's header, through a pipe, as
 * mapped-ram, as device state alone. Each gives the same pages; cut off anywhere, each is an error.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "image-helper.h"
#include "migration/image-reader.h"

#define PAGE 4096
#define PAGES 200

/* Page 0 mod 3 is zero; the others have a byte of their own all over. */
static gboolean page_is_zero(guint page)
{
    return page % 3 == 0;
}

static void put_head(GByteArray *out)
{
    put_u32(out, 0x5145564d);
    put_u32(out, 3);
    put_u8(out, 0x07);
    put_u32(out, 4);
    g_byte_array_append(out, (const guint8 *)"none", 4);
}

static void put_ram_header(GByteArray *out)
{
    put_u8(out, 0x01);
    put_u32(out, 2);
    put_name(out, "ram");
    put_u32(out, 0);
    put_u32(out, 4);
    put_u64(out, PAGES * PAGE | 0x04);
    put_name(out, "mem");
    put_u64(out, PAGES * PAGE);
}

static void put_ram_footer(GByteArray *out)
{
    put_u64(out, 0x10);
    put_u8(out, 0x7e);
    put_u32(out, 2);
}

static void put_tail(GByteArray *out)
{
    static const char text[] = "{\"devices\": []}";
    g_autoptr(GByteArray) devices = sample_device_state();

    g_byte_array_append(out, devices->data, devices->len);
    put_u8(out, 0x00);
    put_u8(out, 0x06);
    put_u32(out, sizeof(text) - 1);
    g_byte_array_append(out, (const guint8 *)text, sizeof(text) - 1);
}

static void put_page_bytes(GByteArray *out, guint page)
{
    guint8 bytes[PAGE];

    memset(bytes, (int)page + 1, sizeof(bytes));
    g_byte_array_append(out, bytes, sizeof(bytes));
}

static GByteArray *make_stream(void)
{
    GByteArray *out = g_byte_array_new();

    put_head(out);
    put_ram_header(out);
    put_ram_footer(out);
    put_u8(out, 0x02);
    put_u32(out, 2);
    for (guint page = 0; page < PAGES; page++) {
        guint64 flags = (page_is_zero(page) ? 0x02U : 0x08U) | (page ? 0x20U : 0);
        put_u64(out, page * PAGE | flags);
        if (!page) {
            put_name(out, "mem");
        }
        if (page_is_zero(page)) {
            put_u8(out, 0);
        } else {
            put_page_bytes(out, page);
        }
    }
    put_ram_footer(out);
    put_tail(out);
    return out;
}

static GByteArray *make_mapped(void)
{
    GByteArray *out = g_byte_array_new();
    guint8 zero[PAGE] = { 0 };
    guint8 bitmap[(PAGES + 63) / 64 * 8] = { 0 };

    put_head(out);
    put_u8(out, 0x05);
    put_name(out, "configuration/capabilities");
    put_u32(out, 1);
    put_u32(out, 1);
    put_name(out, "mapped-ram");
    put_ram_header(out);
    put_u32(out, 1);
    put_u64(out, PAGE);
    put_u64(out, out->len + 16);
    put_u64(out, 2 * PAGE);
    for (guint page = 0; page < PAGES; page++) {
        bitmap[page / 8] |= (guint8)(!page_is_zero(page) << page % 8);
    }
    g_byte_array_append(out, bitmap, sizeof(bitmap));
    g_byte_array_append(out, zero, 2 * PAGE - out->len > PAGE ? PAGE : 2 * PAGE - out->len);
    g_byte_array_append(out, zero, 2 * PAGE - out->len);
    for (guint page = 0; page < PAGES; page++) {
        if (page_is_zero(page)) {
            g_byte_array_append(out, zero, PAGE);
        } else {
            put_page_bytes(out, page);
        }
    }
    put_ram_footer(out);
    put_u8(out, 0x03);
    put_u32(out, 2);
    put_ram_footer(out);
    put_tail(out);
    return out;
}

static GByteArray *wrap_zstd(const GByteArray *image)
{
    GByteArray *out = g_byte_array_new();

    /* Frames of half the image each. */
    for (guint at = 0; at < image->len; at += image->len / 2 + 1) {
        guint length = MIN(image->len - at, image->len / 2 + 1);
        g_autofree guint8 *frame = g_malloc(ZSTD_compressBound(length));
        size_t size = ZSTD_compress(frame, ZSTD_compressBound(length), image->data + at, length, 1);
        g_assert_false(ZSTD_isError(size));
        g_byte_array_append(out, frame, (guint)size);
    }
    return out;
}

/* @bits as deflateInit2() wants them: 15 for zlib, 31 for gzip. */
static GByteArray *wrap_zlib(const GByteArray *image, int bits)
{
    GByteArray *out = g_byte_array_sized_new(image->len + 1024);
    z_stream stream = { .next_in = image->data, .avail_in = image->len };

    g_byte_array_set_size(out, image->len + 1024);
    g_assert_cmpint(deflateInit2(&stream, 1, Z_DEFLATED, bits, 8, 0), ==, Z_OK);
    stream.next_out = out->data;
    stream.avail_out = out->len;
    g_assert_cmpint(deflate(&stream, Z_FINISH), ==, Z_STREAM_END);
    g_byte_array_set_size(out, (guint)stream.total_out);
    deflateEnd(&stream);
    return out;
}

static GByteArray *wrap_libvirt(const GByteArray *image)
{
    static const char xml[] = "<domain type='qemu'><name>d</name></domain>";
    const LibvirtHeader header = { .version = 2, .data_length = 100, .was_running = 1 };
    GByteArray *out = g_byte_array_new();
    guint8 bytes[LIBVIRT_HEADER_BYTES + 100] = { 0 };

    libvirt_header_format(&header, bytes);
    memcpy(bytes + LIBVIRT_HEADER_BYTES, xml, sizeof(xml));
    g_byte_array_append(out, bytes, sizeof(bytes));
    return g_byte_array_append(out, image->data, image->len);
}

/* ---- Reading ---- */

static gboolean check_run(guint block, guint64 offset, const void *data, guint64 length,
                          gpointer user, GError **errp)
{
    guint8 *seen = user;

    g_assert_cmpuint(block, ==, 0);
    g_assert_cmpuint(offset + length, <=, PAGES * PAGE);
    for (guint64 at = 0; at < length; at += PAGE) {
        guint page = (guint)((offset + at) / PAGE);
        const guint8 *bytes = data ? (const guint8 *)data + at : NULL;
        seen[page]++;
        g_assert_cmpint(page_is_zero(page), ==, !bytes);
        for (guint i = 0; bytes && i < PAGE; i++) {
            g_assert_cmpuint(bytes[i], ==, (guint8)(page + 1));
        }
    }
    return TRUE;
}

/* All pages once, the devices and the description; FALSE with *errp. */
static gboolean read_all(const char *path, GError **errp)
{
    guint8 seen[PAGES] = { 0 };
    g_autoptr(GByteArray) expected = sample_device_state();
    const guint8 *data;
    gsize length;
    g_autoptr(ImageReader) reader = image_reader_open(path, 0, errp);

    if (!reader || !image_reader_foreach_page(reader, check_run, seen, errp) ||
        !image_reader_get_device_state(reader, &data, &length, errp)) {
        return FALSE;
    }
    for (guint i = 0; i < PAGES; i++) {
        g_assert_cmpuint(seen[i], ==, 1);
    }
    gsize ignored;
    if (!image_reader_get_description(reader, &ignored)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT, "no description");
        return FALSE;
    }
    g_assert_cmpmem(data, length, expected->data, expected->len);
    g_assert_cmpmem(image_reader_get_description(reader, &length), length, "{\"devices\": []}", 15);
    return TRUE;
}

static char *store(const GByteArray *image, gsize length)
{
    g_autofree char *dir = g_dir_make_tmp("stillframe-source-XXXXXX", NULL);
    char *path = g_build_filename(dir, "image", NULL);

    g_assert_true(g_file_set_contents_full(path, (const char *)image->data, (gssize)length,
                                           G_FILE_SET_CONTENTS_NONE, 0600, NULL));
    return path;
}

static gboolean read_stored(const GByteArray *image, gsize length, GError **errp)
{
    char *path = store(image, length);
    gboolean good = read_all(path, errp);

    image_file_remove(path);
    return good;
}

typedef enum { WRAP_NONE, WRAP_ZSTD, WRAP_ZLIB, WRAP_GZIP, WRAP_LIBVIRT } Wrapping;

static GByteArray *wrap(GByteArray *image, Wrapping wrapping)
{
    GByteArray *out = wrapping == WRAP_ZSTD      ? wrap_zstd(image)
                      : wrapping == WRAP_ZLIB    ? wrap_zlib(image, 15)
                      : wrapping == WRAP_GZIP    ? wrap_zlib(image, 31)
                      : wrapping == WRAP_LIBVIRT ? wrap_libvirt(image)
                                                 : g_byte_array_ref(image);

    g_byte_array_unref(image);
    return out;
}

static void test_wrapped(gconstpointer data)
{
    Wrapping wrapping = GPOINTER_TO_UINT(data);
    g_autoptr(GByteArray) stream = wrap(make_stream(), wrapping);
    g_autoptr(GByteArray) mapped = wrap(make_mapped(), wrapping);
    g_autoptr(GError) error = NULL;

    read_stored(stream, stream->len, &error);
    g_assert_no_error(error);
    read_stored(mapped, mapped->len, &error);
    if (wrapping == WRAP_LIBVIRT) {
        /* Its positions count from the beginning of the file, which is another one now. */
        g_assert_error(error, SF_ERROR, SF_ERROR_FORMAT);
        return;
    }
    g_assert_no_error(error);
}

static void test_cut_off(gconstpointer data)
{
    Wrapping wrapping = GPOINTER_TO_UINT(data);
    g_autoptr(GByteArray) stream = wrap(make_stream(), wrapping);
    gsize step = wrapping == WRAP_NONE || wrapping == WRAP_LIBVIRT ? 9973 : 13;

    for (gsize length = 0; length < stream->len; length += length + 200 < stream->len ? step : 1) {
        g_autoptr(GError) error = NULL;
        gboolean good = read_stored(stream, length, &error);
        /* What ends right behind a compressed stream's last byte of content lacks its check only.
         */
        if (good) {
            g_assert_cmpuint(length + 16, >, stream->len);
            continue;
        }
        g_assert_error(error, SF_ERROR, SF_ERROR_FORMAT);
    }
}

/* Through standard input, in pieces. */
static void test_pipe(gconstpointer data)
{
    g_autoptr(GByteArray) image = wrap(make_stream(), GPOINTER_TO_UINT(data));
    g_autoptr(GError) error = NULL;
    int ends[2];
    int saved = dup(STDIN_FILENO);

    g_assert_cmpint(pipe(ends), ==, 0);
    fcntl(ends[0], F_SETPIPE_SZ, 1024 * 1024);
    g_assert_cmpint(write(ends[1], image->data, image->len), ==, image->len);
    close(ends[1]);
    g_assert_cmpint(dup2(ends[0], STDIN_FILENO), ==, STDIN_FILENO);
    close(ends[0]);
    read_all("-", &error);
    dup2(saved, STDIN_FILENO);
    close(saved);
    g_assert_no_error(error);
}

static void test_devices(void)
{
    g_autoptr(GByteArray) image = g_byte_array_new();
    g_autoptr(GByteArray) expected = sample_device_state();
    g_autoptr(GError) error = NULL;
    const guint8 *data;
    gsize length;

    put_u32(image, 0x5145564d);
    put_u32(image, 3);
    put_tail(image);
    char *path = store(image, image->len);
    g_autoptr(ImageReader) reader = image_reader_open(path, 0, &error);
    g_assert_no_error(error);
    g_assert_cmpint(image_reader_get_kind(reader), ==, IMAGE_KIND_DEVICES);
    g_assert_true(image_reader_get_device_state(reader, &data, &length, &error));
    g_assert_cmpmem(data, length, expected->data, expected->len);
    image_file_remove(path);
}

static void test_libvirt(void)
{
    g_autoptr(GByteArray) image = wrap(make_stream(), WRAP_LIBVIRT);
    char *path = store(image, image->len);
    g_autoptr(GError) error = NULL;
    const guint8 *data;
    LibvirtHeader header;

    g_autoptr(ImageReader) reader = image_reader_open(path, 0, &error);
    const LibvirtHeader *found = image_source_get_libvirt(image_reader_get_source(reader), &data);
    g_assert_cmpuint(found->was_running, ==, 1);
    g_autofree char *xml = libvirt_header_get_xml(found, data);
    g_assert_cmpstr(xml, ==, "<domain type='qemu'><name>d</name></domain>");
    g_assert_cmpuint(image_reader_get_layout(reader)->start, ==, LIBVIRT_HEADER_BYTES + 100);
    image_file_remove(path);

    memcpy(image->data, LIBVIRT_MAGIC_PARTIAL, LIBVIRT_MAGIC_BYTES);
    g_assert_false(libvirt_header_parse(image->data, image->len, &header, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_FORMAT);
    g_clear_error(&error);
    memcpy(image->data, LIBVIRT_MAGIC, LIBVIRT_MAGIC_BYTES);
    image->data[28] = LIBVIRT_XZ;
    g_assert_false(libvirt_header_parse(image->data, image->len, &header, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_UNSUPPORTED);
    g_clear_error(&error);
    memset(image->data + 20, 0xff, 4);
    g_assert_false(libvirt_header_parse(image->data, image->len, &header, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_FORMAT);
}

/* Positions of a block that lead out of the file, or that overflow. */
static void test_mapped_places(void)
{
    g_autoptr(GByteArray) image = make_mapped();
    static const guint64 wrong[] = { 0, 1, G_MAXUINT64, G_MAXINT64, G_MAXUINT64 - PAGE + 1 };
    static const guint8 header[] = { 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x10, 0 };
    gsize at =
        (gsize)((guint8 *)memmem(image->data, image->len, header, sizeof(header)) - image->data) +
        sizeof(header);

    for (guint i = 0; i < 2 * G_N_ELEMENTS(wrong); i++) {
        g_autoptr(GByteArray) copy = g_byte_array_new();
        g_autoptr(GError) error = NULL;
        guint64 value = GUINT64_TO_BE(wrong[i / 2]);
        g_byte_array_append(copy, image->data, image->len);
        memcpy(copy->data + at + i % 2 * 8, &value, sizeof(value));
        g_assert_false(read_stored(copy, copy->len, &error));
        g_assert_error(error, SF_ERROR, SF_ERROR_FORMAT);
    }
}

int main(int argc, char **argv)
{
    static const char *const names[] = { "plain", "zstd", "zlib", "gzip", "libvirt" };

    g_test_init(&argc, &argv, NULL);
    for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *wrapped = g_strdup_printf("/image-source/%s/whole", names[i]);
        g_autofree char *cut = g_strdup_printf("/image-source/%s/cut-off", names[i]);
        g_autofree char *pipe = g_strdup_printf("/image-source/%s/pipe", names[i]);
        g_test_add_data_func(wrapped, GUINT_TO_POINTER(i), test_wrapped);
        g_test_add_data_func(cut, GUINT_TO_POINTER(i), test_cut_off);
        g_test_add_data_func(pipe, GUINT_TO_POINTER(i), test_pipe);
    }
    g_test_add_func("/image-source/devices", test_devices);
    g_test_add_func("/image-source/libvirt-header", test_libvirt);
    g_test_add_func("/image-source/mapped-places", test_mapped_places);
    return g_test_run();
}
