/*
 * The image reader against damaged images: whatever a file holds, the answer is an error or a
 * reading that stays inside of it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <sys/stat.h>

#include "image-helper.h"
#include "migration/image-reader.h"

/* A small whole image behind @offset bytes of something else. */
static GByteArray *sample_image(guint64 offset)
{
    g_autoptr(ImageHead) head = image_head_new();
    g_autoptr(GByteArray) devices = sample_device_state();
    g_autofree guint8 *page = g_malloc(1024);
    GByteArray *image = g_byte_array_new();
    char *path;
    g_autofree char *content = NULL;
    gsize length;

    memset(page, 0x7e, 1024);
    head->machine_type = g_strdup("none");
    head->target_page_bits = 10;
    head->send_page_bits = TRUE;
    image_head_add_block(head, "a", 4096);
    image_head_add_block(head, "b", 1024);
    g_autoptr(Channel) channel = image_file_create(&path);
    g_autoptr(ImageWriter) writer = stream_writer_new(channel);
    g_assert_true(writer->begin(writer, head, NULL));
    g_assert_true(writer->page(writer, 0, 1024, page, 1024, NULL));
    g_assert_true(writer->zero(writer, 0, 2048, 2048, NULL));
    g_assert_true(writer->flush(writer, NULL));
    g_assert_true(writer->zero(writer, 1, 0, 1024, NULL));
    g_assert_true(writer->device_state(writer, devices->data, devices->len, NULL));
    g_assert_true(writer->finish(writer, NULL));
    g_assert_true(channel_commit(channel, NULL));
    g_assert_true(g_file_get_contents(path, &content, &length, NULL));
    image_file_remove(path);
    for (guint64 i = 0; i < offset; i++) {
        put_u8(image, (guint8)i);
    }
    return g_byte_array_append(image, (const guint8 *)content, (guint)length);
}

static gboolean count_pages(guint block, guint64 offset, const void *data, guint64 length,
                            gpointer user, GError **errp)
{
    static const guint64 lengths[] = { 4096, 1024 };
    guint64 *pages = user;

    g_assert_cmpuint(block, <, G_N_ELEMENTS(lengths));
    g_assert_cmpuint(offset + length, <=, lengths[block]);
    if (data) {
        /* Touches every byte: the mapping ends with the file. */
        g_autofree void *copy = g_memdup2(data, length);
        g_assert_nonnull(copy);
    }
    *pages += length / 1024;
    return TRUE;
}

/* Reads all of an image, whatever it is; the number of pages, or -1 with *errp. */
static gint64 read_image(const char *path, guint64 offset, GError **errp)
{
    guint64 pages = 0;
    const guint8 *data;
    gsize length;
    g_autoptr(ImageReader) reader = image_reader_open(path, offset, errp);

    if (!reader || !image_reader_foreach_page(reader, count_pages, &pages, errp) ||
        !image_reader_get_device_state(reader, &data, &length, errp)) {
        return -1;
    }
    return (gint64)pages;
}

typedef struct Fixture {
    char *dir;
    char *path;
} Fixture;

static void setup(Fixture *f, gconstpointer data)
{
    f->dir = g_dir_make_tmp("stillframe-reader-XXXXXX", NULL);
    f->path = g_build_filename(f->dir, "image", NULL);
}

static void teardown(Fixture *f, gconstpointer data)
{
    g_unlink(f->path);
    g_assert_cmpint(g_rmdir(f->dir), ==, 0);
    g_free(f->path);
    g_free(f->dir);
}

static void store(Fixture *f, const guint8 *data, gsize length)
{
    g_assert_true(g_file_set_contents_full(f->path, (const char *)data, (gssize)length,
                                           G_FILE_SET_CONTENTS_NONE, 0600, NULL));
}

static void test_whole(Fixture *f, gconstpointer data)
{
    g_autoptr(GByteArray) image = sample_image(0);
    g_autoptr(GByteArray) shifted = sample_image(100);
    g_autoptr(GError) error = NULL;

    store(f, image->data, image->len);
    g_assert_cmpint(read_image(f->path, 0, &error), ==, 4);
    store(f, shifted->data, shifted->len);
    g_assert_cmpint(read_image(f->path, 100, &error), ==, 4);
    g_assert_no_error(error);
    g_assert_cmpint(read_image(f->path, 99, &error), ==, -1);
    g_assert_error(error, SF_ERROR, SF_ERROR_FORMAT);
}

static void test_trailer(Fixture *f, gconstpointer data)
{
    g_autoptr(GByteArray) image = sample_image(0);
    guint length = image->len;
    g_autoptr(GError) error = NULL;

    for (int i = 0; i < 5000; i++) {
        put_u8(image, (guint8)g_test_rand_int());
    }
    store(f, image->data, image->len);
    g_autoptr(ImageReader) reader = image_reader_open(f->path, 0, &error);
    g_assert_true(image_reader_foreach_page(reader, NULL, NULL, &error));
    g_assert_cmpuint(image_reader_get_layout(reader)->end, ==, length);
}

static void test_cut_off(Fixture *f, gconstpointer data)
{
    g_autoptr(GByteArray) image = sample_image(0);
    static const char description[] = "{\"page_size\": 1024, \"devices\": []}";
    gsize eof = image->len - sizeof(description) - 5; /* ... EOF, type, length, text */
    /* The sample has a body that ends like a stream: cut there it is as good as whole. */
    static const guint8 trap[] = { 0x7e, 0, 0, 0, 9, 0 };
    const guint8 *found = memmem(image->data, image->len, trap, sizeof(trap));
    gsize behind_trap = (gsize)(found - image->data) + sizeof(trap);

    for (gsize length = 0; length < image->len; length++) {
        g_autoptr(GError) error = NULL;
        store(f, image->data, length);
        gint64 pages = read_image(f->path, 0, &error);
        if (length == eof + 1 || length == behind_trap) {
            g_assert_cmpint(pages, ==, 4); /* ends with EOF, without a description */
        } else {
            g_assert_cmpint(pages, ==, -1);
            g_assert_error(error, SF_ERROR, SF_ERROR_FORMAT);
        }
    }
}

/* Every byte changed in several ways: errors of a known domain or a reading, no more. */
static void test_damaged(Fixture *f, gconstpointer data)
{
    g_autoptr(GByteArray) image = sample_image(0);
    static const guint8 flips[] = { 0x01, 0x04, 0x20, 0x80, 0xff };
    guint errors = 0;

    for (gsize at = 0; at < image->len; at++) {
        guint8 flip = flips[at % G_N_ELEMENTS(flips)];
        g_autoptr(GError) error = NULL;
        image->data[at] ^= flip;
        store(f, image->data, image->len);
        image->data[at] ^= flip;
        if (read_image(f->path, 0, &error) < 0) {
            g_assert_true(error->domain == SF_ERROR);
            errors++;
        }
    }
    /* The page's bytes and the devices' bodies are anything; the rest is checked. */
    g_assert_cmpuint(errors, >, image->len - 1024 - 300);
}

static void test_wrong_files(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) missing = NULL;
    g_autoptr(GError) empty = NULL;
    g_autoptr(GError) directory = NULL;
    g_autoptr(GError) fifo = NULL;

    g_assert_null(image_reader_open(f->path, 0, &missing));
    g_assert_error(missing, SF_ERROR, SF_ERROR_IO);
    store(f, (const guint8 *)"", 0);
    g_assert_null(image_reader_open(f->path, 0, &empty));
    g_assert_error(empty, SF_ERROR, SF_ERROR_FORMAT);
    g_assert_null(image_reader_open(f->dir, 0, &directory));
    g_assert_error(directory, SF_ERROR, SF_ERROR_USAGE);
    g_unlink(f->path);
    g_assert_cmpint(mkfifo(f->path, 0600), ==, 0);
    g_assert_null(image_reader_open(f->path, 0, &fifo));
    g_assert_error(fifo, SF_ERROR, SF_ERROR_USAGE);
}

#define ADD(path, func) g_test_add(path, Fixture, NULL, setup, func, teardown)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("/image-reader/whole", test_whole);
    ADD("/image-reader/trailer", test_trailer);
    ADD("/image-reader/cut-off", test_cut_off);
    ADD("/image-reader/damaged", test_damaged);
    ADD("/image-reader/wrong-files", test_wrong_files);
    return g_test_run();
}
