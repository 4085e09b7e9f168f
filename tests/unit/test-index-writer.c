/*
 * Every format with its index: what is handed over is read again, each page lies where the index
 * says and has the hash that it says, and nobody who does not know the index meets it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "image-helper.h"

#include <sys/stat.h>

#include "migration/image-reader.h"

#define PAGES 1000U
#define PAGE 4096U

typedef struct Format {
    const char *name;
    guint64 offset;
    gboolean mapped;
} Format;

/* Page @n of the sample; every third one is zero. */
static gboolean fill_page(guint8 *page, guint block, guint64 n)
{
    guint64 *words = (guint64 *)page;

    memset(page, 0, PAGE);
    if (n % 3 == 0) {
        return FALSE;
    }
    for (guint i = 0; i < PAGE / 8; i++) {
        words[i] = n * 0x9e3779b97f4a7c15ULL + i + block;
    }
    return TRUE;
}

static ImageHead *sample_head(void)
{
    ImageHead *head = image_head_new();

    head->machine_type = g_strdup("pc-q35-7.2");
    image_head_add_block(head, "pc.ram", (guint64)PAGES * PAGE);
    image_head_add_block(head, "vga", 70 * PAGE);
    return head;
}

/* In chunks of a size of their own, some of them out of order. */
static void write_pages(ImageWriter *writer, guint block, guint pages)
{
    g_autofree guint8 *data = g_malloc(pages * PAGE);
    g_autoptr(GError) error = NULL;

    for (guint step = 0; step < pages; step++) {
        guint n = step ^ (step % 64 < 8 && (step | 4) < pages ? 4 : 0);
        gboolean filled = fill_page(data + n * PAGE, block, n);
        guint run = 1;
        if (filled && n % 3 == 1 && step == n && (step + 1) % 64 >= 8 && n + 1 < pages) {
            fill_page(data + (n + 1) * PAGE, block, n + 1);
            run = 2;
            step++;
        }
        writer->source = n % 7 ? INDEX_BY_SWEEP : INDEX_BY_FAULT;
        writer->when_ms = step / 100;
        if (!filled) {
            g_assert_true(writer->zero(writer, block, n * PAGE, PAGE, &error));
        } else {
            g_assert_true(
                writer->page(writer, block, n * PAGE, data + n * PAGE, run * PAGE, &error));
        }
        if (step % 50 == 49) {
            g_assert_true(writer->flush(writer, &error));
        }
    }
    g_assert_true(writer->flush(writer, &error));
    g_assert_no_error(error);
}

static void write_image(const Format *format, const char *path)
{
    Destination destination = { .kind = DEST_FILE, .path = (char *)path, .offset = format->offset };
    g_autoptr(GError) error = NULL;
    g_autoptr(Channel) channel = channel_open_output(&destination, TRUE, &error);
    g_autoptr(ImageHead) head = sample_head();
    g_autoptr(GByteArray) devices = sample_device_state();
    g_assert_no_error(error);
    ImageWriter *inner =
        format->mapped ? mapped_writer_new(channel, &error) : stream_writer_new(channel);
    g_assert_no_error(error);
    g_autoptr(ImageIndexBuilder) builder = image_index_builder_new(inner->format, PAGE);
    g_autoptr(ImageWriter) writer = index_writer_new(inner, builder);

    g_assert_true(writer->begin(writer, head, &error));
    write_pages(writer, 0, PAGES);
    write_pages(writer, 1, 70);
    g_assert_true(writer->device_state(writer, devices->data, devices->len, &error));
    image_index_builder_set_text(builder, INDEX_LABEL, "a label");
    g_assert_true(writer->finish(writer, &error));
    g_assert_true(channel_commit(channel, &error));
    g_assert_no_error(error);
}

typedef struct Seen {
    guint pages[2];
} Seen;

static gboolean see(guint block, guint64 offset, const void *data, guint64 length, gpointer user,
                    GError **errp)
{
    Seen *seen = user;
    guint8 expected[PAGE];

    for (guint64 done = 0; done < length; done += PAGE) {
        gboolean filled = fill_page(expected, block, (offset + done) / PAGE);
        g_assert_cmpint(filled, ==, data != NULL);
        if (data) {
            g_assert_cmpmem((const guint8 *)data + done, PAGE, expected, PAGE);
        }
        seen->pages[block]++;
    }
    return TRUE;
}

static void check_reader(const Format *format, const char *path)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(ImageReader) reader = image_reader_open(path, format->offset, &error);
    g_autoptr(GByteArray) devices = sample_device_state();
    const guint8 *state = NULL;
    gsize length = 0;
    Seen seen = { 0 };

    g_assert_no_error(error);
    g_assert_true(image_reader_foreach_page(reader, see, &seen, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(seen.pages[0], ==, PAGES);
    g_assert_cmpuint(seen.pages[1], ==, 70);
    g_assert_cmpint(image_reader_get_kind(reader), ==,
                    format->mapped ? IMAGE_KIND_MAPPED_RAM : IMAGE_KIND_STREAM);
    g_assert_true(image_reader_get_device_state(reader, &state, &length, &error));
    g_assert_cmpmem(state, length, devices->data, devices->len);
}

static void check_page(const guint8 *image, const IndexBlock *block, guint number, guint64 n)
{
    const IndexRun *run = index_block_find(block, n);
    guint8 expected[PAGE];
    Hash128 hash;

    g_assert_nonnull(run);
    /* A run has the source of its first page. */
    g_assert_cmpint(run->source, ==, run->first % 7 ? INDEX_BY_SWEEP : INDEX_BY_FAULT);
    if (!fill_page(expected, number, n)) {
        g_assert_cmpint(run->kind, ==, INDEX_ZERO);
        return;
    }
    g_assert_cmpint(run->kind, ==, INDEX_HERE);
    g_assert_cmpmem(image + index_run_place(block, run, n), PAGE, expected, PAGE);
    hash128(expected, PAGE, &hash);
    g_assert_true(hash128_equal(index_run_hash(run, n), &hash));
}

static void check_index(const Format *format, const guint8 *file, gsize size)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(ImageIndex) index = image_index_find(file, size, NULL, &error);
    g_autoptr(GByteArray) devices = sample_device_state();

    g_assert_no_error(error);
    const guint8 *image = file + size - index->trailer_length - index->image_length;
    g_assert_cmpuint((guint64)(image - file), ==, format->offset);
    g_assert_cmpint(index->format, ==,
                    format->mapped ? IMAGE_FORMAT_MAPPED_RAM : IMAGE_FORMAT_STREAM);
    g_assert_cmpstr(index->label, ==, "a label");
    g_assert_cmpmem(image + index->devices_at, index->devices_length, devices->data, devices->len);
    for (guint i = 0; i < index->blocks->len; i++) {
        const IndexBlock *block = g_ptr_array_index(index->blocks, i);
        for (guint64 n = 0; n < block->pages; n++) {
            check_page(image, block, i, n);
        }
    }
}

static void test_format(gconstpointer data)
{
    const Format *format = data;
    char *path = NULL;
    g_autofree char *content = NULL;
    gsize size = 0;
    g_autoptr(Channel) unused = image_file_create(&path);

    write_image(format, path);
    check_reader(format, path);
    g_assert_true(g_file_get_contents(path, &content, &size, NULL));
    check_index(format, (const guint8 *)content, size);
    image_file_remove(path);
}

/* Pages of zeros take no room. */
static void test_holes(void)
{
    g_autoptr(GError) error = NULL;
    char *path = NULL;
    struct stat st;
    g_autoptr(Channel) channel = image_file_create(&path);
    g_autoptr(ImageWriter) writer = mapped_writer_new(channel, &error);
    g_autoptr(ImageHead) head = image_head_new();
    g_autoptr(GByteArray) devices = sample_device_state();

    head->machine_type = g_strdup("microvm");
    image_head_add_block(head, "ram", 64 << 20);
    g_assert_true(writer->begin(writer, head, &error));
    g_assert_true(writer->zero(writer, 0, 0, 64 << 20, &error));
    g_assert_true(writer->device_state(writer, devices->data, devices->len, &error));
    g_assert_true(writer->finish(writer, &error));
    g_assert_true(channel_commit(channel, &error));
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, >, 64 << 20);
    g_assert_cmpint(st.st_blocks * 512, <, 1 << 20);
    image_file_remove(path);
}

static void test_no_places(void)
{
    g_autoptr(GError) error = NULL;
    Destination destination = { .kind = DEST_EXEC, .path = (char *)"cat >/dev/null" };
    g_autoptr(Channel) channel = channel_open_output(&destination, FALSE, &error);

    g_assert_no_error(error);
    g_assert_null(mapped_writer_new(channel, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_UNSUPPORTED);
    g_assert_nonnull(strstr(error->message, "file:PATH"));
}

int main(int argc, char **argv)
{
    static const Format formats[] = {
        { "stream", 0, FALSE },
        { "stream-offset", 12345, FALSE },
        { "mapped-ram", 0, TRUE },
        { "mapped-ram-offset", 12345, TRUE },
    };

    g_test_init(&argc, &argv, NULL);
    for (guint i = 0; i < G_N_ELEMENTS(formats); i++) {
        g_autofree char *name = g_strdup_printf("/index-writer/%s", formats[i].name);
        g_test_add_data_func(name, &formats[i], test_format);
    }
    g_test_add_func("/index-writer/holes", test_holes);
    g_test_add_func("/index-writer/no-places", test_no_places);
    return g_test_run();
}
