/*
 * The stream writer: byte for byte what the format says, and what is handed over comes back
 * whatever the sizes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "image-helper.h"
#include "migration/image-reader.h"

static ImageHead *small_head(void)
{
    ImageHead *head = image_head_new();

    head->machine_type = g_strdup("microvm");
    image_head_add_block(head, "ram", 3 * 4096);
    image_head_add_block(head, "bios", 4096);
    return head;
}

static void put_ram_footer(GByteArray *out)
{
    put_u64(out, 0x10);
    put_u8(out, 0x7e);
    put_u32(out, 0x53460000);
}

static void put_ram_header(GByteArray *out, guint8 type)
{
    put_u8(out, type);
    put_u32(out, 0x53460000);
}

/* What the format asks for, written down by hand. */
static GByteArray *expected_stream(const guint8 *page, GByteArray *devices)
{
    static const char description[] = "{\"page_size\": 4096, \"devices\": []}";
    GByteArray *out = g_byte_array_new();

    put_u32(out, 0x5145564d);
    put_u32(out, 3);
    put_u8(out, 7);
    put_u32(out, 7);
    g_byte_array_append(out, (const guint8 *)"microvm", 7);
    put_ram_header(out, 1);
    put_name(out, "ram");
    put_u32(out, 0);
    put_u32(out, 4);
    put_u64(out, 4 * 4096 | 0x04);
    put_name(out, "ram");
    put_u64(out, 3 * 4096);
    put_name(out, "bios");
    put_u64(out, 4096);
    put_ram_footer(out);
    put_ram_header(out, 2);
    put_u64(out, 0x1000 | 0x08);
    put_name(out, "ram");
    g_byte_array_append(out, page, 4096);
    put_u64(out, 0x2000 | 0x02 | 0x20);
    put_u8(out, 0);
    put_u64(out, 0 | 0x02);
    put_name(out, "bios");
    put_u8(out, 0);
    put_ram_footer(out);
    put_ram_header(out, 2);
    put_u64(out, 0 | 0x02);
    put_name(out, "ram");
    put_u8(out, 0);
    put_ram_footer(out);
    put_ram_header(out, 3);
    put_ram_footer(out);
    g_byte_array_append(out, devices->data, devices->len);
    put_u8(out, 0);
    put_u8(out, 6);
    put_u32(out, sizeof(description) - 1);
    g_byte_array_append(out, (const guint8 *)description, sizeof(description) - 1);
    return out;
}

static void check(gboolean ok, GError *error)
{
    g_assert_no_error(error);
    g_assert_true(ok);
}

static void test_bytes(void)
{
    g_autoptr(ImageHead) head = small_head();
    g_autoptr(GByteArray) devices = sample_device_state();
    g_autofree guint8 *page = g_malloc(4096);
    GError *error = NULL;
    char *path;
    g_autoptr(Channel) channel = image_file_create(&path);
    g_autoptr(ImageWriter) writer = stream_writer_new(channel);

    memset(page, 0xa5, 4096);
    check(writer->begin(writer, head, &error), error);
    check(writer->page(writer, 0, 0x1000, page, 4096, &error), error);
    check(writer->zero(writer, 0, 0x2000, 4096, &error), error);
    check(writer->zero(writer, 1, 0, 4096, &error), error);
    check(writer->flush(writer, &error), error);
    check(writer->zero(writer, 0, 0, 4096, &error), error);
    check(writer->device_state(writer, devices->data, devices->len, &error), error);
    check(writer->finish(writer, &error), error);
    check(channel_commit(channel, &error), error);

    g_autofree char *content = NULL;
    gsize length;
    g_autoptr(GByteArray) expected = expected_stream(page, devices);
    g_assert_true(g_file_get_contents(path, &content, &length, NULL));
    g_assert_cmpmem(content, length, expected->data, expected->len);
    image_file_remove(path);
}

/* ---- round trips ---- */

typedef struct Copy {
    const ImageHead *head;
    guint8 **blocks; /* filled with 0xff, so that zero pages must be told as well */
} Copy;

static Copy *copy_new(const ImageHead *head)
{
    Copy *copy = g_new0(Copy, 1);

    copy->head = head;
    copy->blocks = g_new0(guint8 *, head->blocks->len);
    for (guint i = 0; i < head->blocks->len; i++) {
        const ImageBlock *block = g_ptr_array_index(head->blocks, i);
        copy->blocks[i] = g_malloc(block->used_length);
        memset(copy->blocks[i], 0xff, block->used_length);
    }
    return copy;
}

static void copy_free(Copy *copy)
{
    for (guint i = 0; i < copy->head->blocks->len; i++) {
        g_free(copy->blocks[i]);
    }
    g_free(copy->blocks);
    g_free(copy);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Copy, copy_free)

static gboolean take_pages(guint block, guint64 offset, const void *data, guint64 length,
                           gpointer user, GError **errp)
{
    Copy *copy = user;
    const ImageBlock *b = g_ptr_array_index(copy->head->blocks, block);

    g_assert_cmpuint(offset + length, <=, b->used_length);
    if (data) {
        memcpy(copy->blocks[block] + offset, data, length);
    } else {
        memset(copy->blocks[block] + offset, 0, length);
    }
    return TRUE;
}

/* Runs of random length, some zero, in a random order of chunks. */
static void write_all(ImageWriter *writer, Copy *source)
{
    guint page_bits = source->head->target_page_bits;
    GError *error = NULL;

    for (guint i = 0; i < source->head->blocks->len; i++) {
        const ImageBlock *block = g_ptr_array_index(source->head->blocks, i);
        guint64 pages = block->used_length >> page_bits;
        for (guint64 page = 0; page < pages;) {
            guint64 run = (guint64)g_test_rand_int_range(1, 700);
            run = MIN(run, pages - page);
            guint64 offset = page << page_bits;
            guint64 length = run << page_bits;
            if (g_test_rand_bit()) {
                memset(source->blocks[i] + offset, 0, length);
                check(writer->zero(writer, i, offset, length, &error), error);
            } else {
                for (guint64 at = 0; at < length; at++) {
                    source->blocks[i][offset + at] = (guint8)(at * 7 + offset / 512 + i);
                }
                check(writer->page(writer, i, offset, source->blocks[i] + offset, length, &error),
                      error);
            }
            if (g_test_rand_int_range(0, 4) == 0) {
                check(writer->flush(writer, &error), error);
            }
            page += run;
        }
    }
}

static void round_trip(guint page_bits, gboolean send_page_bits, guint blocks)
{
    g_autoptr(ImageHead) head = image_head_new();
    g_autoptr(GByteArray) devices = sample_device_state();
    g_autofree char *long_name = g_strnfill(255, 'n');
    GError *error = NULL;
    char *path;

    head->machine_type = g_strdup("virt-7.2");
    head->target_page_bits = page_bits;
    head->send_page_bits = send_page_bits;
    for (guint i = 0; i < blocks; i++) {
        g_autofree char *name = g_strdup_printf("block%u", i);
        image_head_add_block(head, i ? name : long_name, (i ? 8ULL : 3000ULL) << page_bits);
    }
    g_autoptr(Copy) source = copy_new(head);
    g_autoptr(Channel) channel = image_file_create(&path);
    g_autoptr(ImageWriter) writer = stream_writer_new(channel);
    check(writer->begin(writer, head, &error), error);
    write_all(writer, source);
    check(writer->device_state(writer, devices->data, devices->len, &error), error);
    check(writer->finish(writer, &error), error);
    check(channel_commit(channel, &error), error);

    g_autoptr(ImageReader) reader = image_reader_open(path, 0, &error);
    g_assert_no_error(error);
    const ImageHead *read = image_reader_get_head(reader);
    g_assert_cmpstr(read->machine_type, ==, "virt-7.2");
    g_assert_cmpuint(read->target_page_bits, ==, page_bits);
    g_assert_cmpuint(read->blocks->len, ==, blocks);
    g_autoptr(Copy) copy = copy_new(read);
    check(image_reader_foreach_page(reader, take_pages, copy, &error), error);
    for (guint i = 0; i < blocks; i++) {
        const ImageBlock *a = g_ptr_array_index(head->blocks, i);
        const ImageBlock *b = g_ptr_array_index(read->blocks, i);
        g_assert_cmpstr(a->name, ==, b->name);
        g_assert_cmpuint(a->used_length, ==, b->used_length);
        g_assert_true(memcmp(source->blocks[i], copy->blocks[i], a->used_length) == 0);
    }
    const guint8 *data;
    gsize length;
    check(image_reader_get_device_state(reader, &data, &length, &error), error);
    g_assert_cmpmem(data, length, devices->data, devices->len);
    g_assert_cmpuint(image_reader_get_layout(reader)->end, ==, channel_get_bytes(channel));
    image_file_remove(path);
}

static void test_round_trip(void)
{
    round_trip(12, FALSE, 3);
}

static void test_small_pages(void)
{
    round_trip(10, TRUE, 3);
}

static void test_large_pages(void)
{
    round_trip(16, TRUE, 2);
}

/* More blocks, and so more names, than one write takes. */
static void test_many_blocks(void)
{
    round_trip(12, FALSE, 6000);
}

/* ---- refusals ---- */

static void test_ranges(void)
{
    static const struct {
        guint block;
        guint64 offset;
        guint64 length;
    } wrong[] = {
        { 2, 0, 4096 },        { 0, 3 * 4096, 4096 },
        { 0, 4096, 3 * 4096 }, { 0, 100, 4096 },
        { 0, 0, 100 },         { 0, G_MAXUINT64 - 4095, 4096 },
        { 1, 4096, 4096 },     { 0, 4096, G_MAXUINT64 - 4095 },
    };
    g_autoptr(ImageHead) head = small_head();
    GError *error = NULL;
    char *path;
    g_autoptr(Channel) channel = image_file_create(&path);
    g_autoptr(ImageWriter) writer = stream_writer_new(channel);

    check(writer->begin(writer, head, &error), error);
    for (guint i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autoptr(GError) refusal = NULL;
        g_assert_false(
            writer->page(writer, wrong[i].block, wrong[i].offset, "", wrong[i].length, &refusal));
        g_assert_error(refusal, SF_ERROR, SF_ERROR_FAILED);
        g_clear_error(&refusal);
        g_assert_false(
            writer->zero(writer, wrong[i].block, wrong[i].offset, wrong[i].length, &refusal));
        g_assert_error(refusal, SF_ERROR, SF_ERROR_FAILED);
    }
    check(channel_commit(channel, &error), error);
    image_file_remove(path);
}

static void test_heads(void)
{
    char *path;
    g_autoptr(Channel) channel = image_file_create(&path);

    for (int i = 0; i < 4; i++) {
        g_autoptr(ImageWriter) writer = stream_writer_new(channel);
        g_autoptr(ImageHead) head = small_head();
        g_autoptr(GError) error = NULL;
        g_autofree char *name = g_strnfill(256, 'n');
        if (i == 0) {
            image_head_add_block(head, name, 4096);
        } else if (i == 1) {
            image_head_add_block(head, "odd", 4097);
        } else if (i == 2) {
            head->target_page_bits = 8;
        } else {
            image_head_add_block(head, "huge", G_MAXUINT64 - 4095);
        }
        g_assert_false(writer->begin(writer, head, &error));
        g_assert_error(error, SF_ERROR, SF_ERROR_UNSUPPORTED);
    }
    g_autoptr(GError) error = NULL;
    g_assert_true(channel_commit(channel, &error));
    image_file_remove(path);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/stream/bytes", test_bytes);
    g_test_add_func("/stream/round-trip", test_round_trip);
    g_test_add_func("/stream/small-target-pages", test_small_pages);
    g_test_add_func("/stream/large-target-pages", test_large_pages);
    g_test_add_func("/stream/many-blocks", test_many_blocks);
    g_test_add_func("/stream/ranges", test_ranges);
    g_test_add_func("/stream/heads", test_heads);
    return g_test_run();
}
