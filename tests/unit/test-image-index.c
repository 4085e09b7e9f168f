/*
 * The index trailer: what is put in comes out again, it costs little, and no damage to it is taken
 * for an index or does harm.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>

#include "migration/image-index.h"

#define PAGE 4096ULL
#define IMAGE_LENGTH (64ULL << 20)
#define NO_BASE G_MAXUINT64

static gboolean append(const void *data, gsize length, gpointer user, GError **errp)
{
    g_byte_array_append(user, data, (guint)length);
    return TRUE;
}

static GByteArray *write_index(ImageIndexBuilder *builder, Hash128 *identity)
{
    GByteArray *out = g_byte_array_new();
    g_autoptr(GError) error = NULL;

    g_assert_true(image_index_builder_write(builder, IMAGE_LENGTH, append, out, identity, &error));
    g_assert_no_error(error);
    return out;
}

/* Hashes that tell pages apart. */
static const guint8 *sample_hashes(void)
{
    static Hash128 hashes[4096];

    for (guint i = 0; i < G_N_ELEMENTS(hashes); i++) {
        hash128(&i, sizeof(i), &hashes[i]);
    }
    return hashes[0].bytes;
}

static void add_here(ImageIndexBuilder *builder, guint block, guint64 first, guint64 count,
                     guint64 place, guint32 when_ms, IndexSource source)
{
    IndexRun run = { .first = first,
                     .count = count,
                     .place = place,
                     .when_ms = when_ms,
                     .kind = INDEX_HERE,
                     .source = (guint8)source,
                     .hashes = sample_hashes() + first * HASH128_BYTES };
    image_index_builder_add_run(builder, block, &run);
}

static ImageIndexBuilder *sample_builder(void)
{
    ImageIndexBuilder *builder = image_index_builder_new(IMAGE_FORMAT_STREAM, PAGE);
    const IndexRun zero = { .first = 100, .count = 3000, .when_ms = 7 };
    const IndexRun parent = { .first = 50, .count = 10, .kind = INDEX_PARENT };
    const IndexRun elsewhere = {
        .first = 60, .count = 2, .kind = INDEX_ELSEWHERE, .parent_block = 5, .parent_first = 77
    };
    const IndexParent from = { .path = (char *)"/images/monday.sf",
                               .uuid = "fedcba",
                               .needed = TRUE };
    const IndexRange range = { .address = 1ULL << 32, .length = 2 * PAGE, .offset = PAGE };
    const char *const arguments[] = { "qemu-system-x86_64", "", "-name", "caf\xe9", NULL };
    const guint32 heat[] = { 0, 3, 70000, 1 };

    image_index_builder_add_block(builder, "pc.ram", 4096 * PAGE, PAGE, INDEX_BLOCK_SHARED,
                                  PAGE + 8, NO_BASE);
    image_index_builder_add_block(builder, "vga.vram", 16 * PAGE, PAGE, 0, PAGE, 1 << 20);
    add_here(builder, 0, 3500, 1, 1000, 3, INDEX_BY_FAULT);
    add_here(builder, 0, 0, 50, 1000 + PAGE + 8, 3, INDEX_BY_SWEEP);
    image_index_builder_add_run(builder, 0, &zero);
    image_index_builder_add_run(builder, 0, &parent);
    image_index_builder_add_run(builder, 0, &elsewhere);
    /* Older than the one before, and before it in the image. */
    add_here(builder, 0, 4000, 96, 500, 1, INDEX_BY_FAULT);
    add_here(builder, 1, 4, 8, (1 << 20) + 4 * PAGE, 9, INDEX_BY_SWEEP);
    image_index_builder_set_devices(builder, 5000, "devices", 7);
    image_index_builder_set_created(builder, 1234567890123456);
    image_index_builder_set_text(builder, INDEX_MACHINE_TYPE, "pc-q35-7.2");
    image_index_builder_set_text(builder, INDEX_TARGET, "x86_64");
    image_index_builder_set_text(builder, INDEX_QEMU_VERSION, "7.2.9");
    image_index_builder_set_text(builder, INDEX_HOST_KERNEL, "6.1.0");
    image_index_builder_set_text(builder, INDEX_WRITER, "stillframe 0.1");
    image_index_builder_set_text(builder, INDEX_LABEL, "not this one");
    image_index_builder_set_text(builder, INDEX_LABEL, "before the upgrade");
    image_index_builder_set_text(builder, INDEX_STATISTICS, "{\"faults\": 3}");
    image_index_builder_set_bytes(builder, INDEX_SCREEN, "\x89PNG", 4);
    image_index_builder_set_command_line(builder, arguments);
    image_index_builder_set_parent(builder, &from);
    image_index_builder_set_heat(builder, 0, 1024 * PAGE, heat, G_N_ELEMENTS(heat));
    image_index_builder_add_memory(builder, &range);
    return builder;
}

static void check_facts(const ImageIndex *index)
{
    const IndexRange *range = &g_array_index(index->memory, IndexRange, 0);

    g_assert_cmpint(index->format, ==, IMAGE_FORMAT_STREAM);
    g_assert_cmpuint(index->page_size, ==, PAGE);
    g_assert_cmpuint(index->image_length, ==, IMAGE_LENGTH);
    g_assert_cmpint(index->created_us, ==, 1234567890123456);
    g_assert_cmpuint(index->devices_at, ==, 5000);
    g_assert_cmpuint(index->devices_length, ==, 7);
    g_assert_cmpstr(index->machine_type, ==, "pc-q35-7.2");
    g_assert_cmpstr(index->target, ==, "x86_64");
    g_assert_cmpstr(index->qemu_version, ==, "7.2.9");
    g_assert_cmpstr(index->host_kernel, ==, "6.1.0");
    g_assert_cmpstr(index->writer, ==, "stillframe 0.1");
    g_assert_cmpstr(index->label, ==, "before the upgrade");
    g_assert_cmpstr(index->statistics, ==, "{\"faults\": 3}");
    g_assert_cmpuint(g_strv_length(index->command_line), ==, 4);
    g_assert_cmpstr(index->command_line[1], ==, "");
    g_assert_cmpstr(index->command_line[3], ==, "caf\xe9");
    g_assert_cmpmem(index->screen, index->screen_length, "\x89PNG", 4);
    g_assert_cmpuint(index->memory->len, ==, 1);
    g_assert_cmpuint(range->address, ==, 1ULL << 32);
    g_assert_cmpuint(range->offset, ==, PAGE);
}

static void check_parent(const ImageIndex *index, gboolean needed)
{
    g_assert_nonnull(index->parent);
    g_assert_cmpstr(index->parent->path, ==, "/images/monday.sf");
    g_assert_cmpmem(index->parent->uuid, 6, "fedcba", 6);
    g_assert_cmpint(index->parent->needed, ==, needed);
}

static void check_run(const IndexBlock *block, guint64 page, const IndexRun *expected)
{
    const IndexRun *run = index_block_find(block, page);

    g_assert_nonnull(run);
    g_assert_cmpuint(run->first, ==, expected->first);
    g_assert_cmpuint(run->count, ==, expected->count);
    g_assert_cmpint(run->kind, ==, expected->kind);
    g_assert_cmpint(run->source, ==, expected->source);
    g_assert_cmpuint(run->when_ms, ==, expected->when_ms);
    if (run->kind != INDEX_ZERO) {
        g_assert_cmpuint(run->place, ==, expected->place);
        g_assert_cmpuint(run->parent_block, ==, expected->parent_block);
    }
    if (run->kind == INDEX_HERE) {
        g_assert_cmpmem(index_run_hash(run, page), HASH128_BYTES,
                        sample_hashes() + page * HASH128_BYTES, HASH128_BYTES);
    }
}

static void check_pages(const ImageIndex *index)
{
    guint number = 99;
    const IndexBlock *ram = image_index_find_block(index, "pc.ram", &number);
    const IndexBlock *vga = image_index_find_block(index, "vga.vram", NULL);

    g_assert_cmpuint(number, ==, 0);
    g_assert_null(image_index_find_block(index, "pc", NULL));
    g_assert_cmpuint(ram->flags, ==, INDEX_BLOCK_SHARED);
    g_assert_cmpuint(ram->pages, ==, 4096);
    g_assert_cmpuint(ram->n_runs, ==, 6);
    check_run(ram, 49,
              &(IndexRun){ .count = 50, .place = 1000 + PAGE + 8, .when_ms = 3, .kind = 1 });
    check_run(ram, 50, &(IndexRun){ .first = 50, .count = 10, .place = 50, .kind = 2 });
    check_run(ram, 61,
              &(IndexRun){ .first = 60, .count = 2, .place = 77, .kind = 3, .parent_block = 5 });
    check_run(ram, 3099, &(IndexRun){ .first = 100, .count = 3000, .when_ms = 7 });
    check_run(ram, 3500,
              &(IndexRun){
                  .first = 3500, .count = 1, .place = 1000, .when_ms = 3, .kind = 1, .source = 1 });
    check_run(ram, 4095,
              &(IndexRun){
                  .first = 4000, .count = 96, .place = 500, .when_ms = 1, .kind = 1, .source = 1 });
    check_run(vga, 5,
              &(IndexRun){
                  .first = 4, .count = 8, .place = (1 << 20) + 4 * PAGE, .when_ms = 9, .kind = 1 });
    g_assert_cmpuint(index_run_place(ram, index_block_find(ram, 2), 2), ==, 1000 + 3 * (PAGE + 8));
    g_assert_null(index_block_find(ram, 62));
    g_assert_null(index_block_find(ram, 4096));
    g_assert_null(index_block_find(vga, 12));
    g_assert_cmpuint(ram->n_heat, ==, 4);
    g_assert_cmpuint(ram->heat[2], ==, 70000);
    g_assert_null(vga->heat);
}

static void test_round_trip(void)
{
    g_autoptr(ImageIndexBuilder) builder = sample_builder();
    g_autoptr(GError) error = NULL;
    Hash128 identity;
    gsize length = 0;
    g_autoptr(GByteArray) bytes = write_index(builder, &identity);
    guint trailer = bytes->len;

    g_byte_array_append(bytes, (const guint8 *)"what follows", 12);
    g_autoptr(ImageIndex) index = image_index_parse(bytes->data, bytes->len, &length, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(length, ==, trailer);
    g_assert_cmpuint(index->trailer_length, ==, trailer);
    g_assert_true(hash128_equal(&index->identity, &identity));
    check_facts(index);
    check_parent(index, TRUE);
    check_pages(index);
}

static void test_copy(void)
{
    g_autoptr(ImageIndexBuilder) builder = sample_builder();
    g_autoptr(ImageIndexBuilder) copy = image_index_builder_new(IMAGE_FORMAT_STREAM, PAGE);
    g_autoptr(GByteArray) bytes = write_index(builder, NULL);
    g_autoptr(GError) error = NULL;
    g_autoptr(ImageIndex) index = image_index_parse(bytes->data, bytes->len, NULL, &error);

    g_assert_no_error(error);
    image_index_builder_add_block(copy, "pc.ram", 4096 * PAGE, PAGE, 0, PAGE, NO_BASE);
    image_index_builder_set_devices(copy, 5000, "devices", 7);
    image_index_builder_copy_facts(copy, index);
    g_autoptr(GByteArray) again = write_index(copy, NULL);
    g_autoptr(ImageIndex) copied = image_index_parse(again->data, again->len, NULL, &error);
    g_assert_no_error(error);
    check_facts(copied);
    /* Whoever flattens a chain leaves its parent behind. */
    g_assert_null(copied->parent);
    g_assert_true(memcmp(index->uuid, copied->uuid, IMAGE_UUID_BYTES) != 0);
}

static void test_find(void)
{
    g_autoptr(ImageIndexBuilder) builder = sample_builder();
    g_autoptr(GByteArray) bytes = write_index(builder, NULL);
    g_autoptr(GError) error = NULL;
    gboolean found = TRUE;
    gsize size = IMAGE_LENGTH + 100 + bytes->len;
    g_autofree guint8 *file = g_malloc0(size);

    memcpy(file + IMAGE_LENGTH + 100, bytes->data, bytes->len);
    g_autoptr(ImageIndex) index = image_index_find(file, size, &found, &error);
    g_assert_no_error(error);
    g_assert_true(found);
    check_facts(index);
    /* The beginning of the image is not there. */
    g_assert_null(image_index_find(file + 101, size - 101, &found, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_FORMAT);
    g_assert_true(found);
    g_clear_error(&error);
    g_assert_null(image_index_find(file, IMAGE_LENGTH, &found, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_FORMAT);
    g_assert_false(found);
}

/* A copy of exactly @length bytes, so that a sanitizer sees each step past the end. */
static void expect_refused(const guint8 *data, gsize length)
{
    g_autofree guint8 *copy = g_memdup2(data, length);
    g_autoptr(GError) error = NULL;

    g_assert_null(image_index_parse(copy, length, NULL, &error));
    g_assert_nonnull(error);
}

static void test_truncated(void)
{
    g_autoptr(ImageIndexBuilder) builder = sample_builder();
    g_autoptr(GByteArray) bytes = write_index(builder, NULL);

    for (guint length = 0; length < bytes->len; length++) {
        expect_refused(bytes->data, length);
    }
}

static void test_flipped(void)
{
    g_autoptr(ImageIndexBuilder) builder = sample_builder();
    g_autoptr(GByteArray) bytes = write_index(builder, NULL);

    for (guint bit = 0; bit < bytes->len * 8; bit++) {
        bytes->data[bit / 8] ^= (guint8)(1 << bit % 8);
        expect_refused(bytes->data, bytes->len);
        bytes->data[bit / 8] ^= (guint8)(1 << bit % 8);
    }
}

/* Makes the checksums right again, so that what lies under them is reached. */
static void seal(GByteArray *bytes)
{
    guint64 length;
    gsize at = 32;

    for (;;) {
        memcpy(&length, bytes->data + at + 8, 8);
        if (!memcmp(bytes->data + at, "\0\0\0\0", 4) ||
            length > bytes->len - at - 24 /* its head and a checksum */) {
            break;
        }
        gsize covered = 16 + (gsize)((length + 7) & ~7ULL);
        if (covered + 8 > bytes->len - at) {
            break;
        }
        guint64 checksum = GUINT64_TO_LE(hash64(bytes->data + at, covered));
        memcpy(bytes->data + at + covered, &checksum, 8);
        at += covered + 8;
        if (bytes->len - at < 32) {
            return;
        }
    }
    hash128(bytes->data, bytes->len - 24, (Hash128 *)(bytes->data + bytes->len - 24));
}

/* Damage that has a right checksum: any answer but harm. */
static void test_hostile(void)
{
    static const guint64 values[] = { 0,          1,          0x7fffffff,      0xffffffff,
                                      G_MAXINT64, 1ULL << 63, G_MAXUINT64 - 7, G_MAXUINT64 };
    g_autoptr(ImageIndexBuilder) builder = sample_builder();
    g_autoptr(GByteArray) bytes = write_index(builder, NULL);
    guint good = 0;

    for (guint at = 0; at + 8 <= bytes->len; at++) {
        for (guint i = 0; i < G_N_ELEMENTS(values); i++) {
            g_autoptr(GByteArray) bad = g_byte_array_new();
            g_autoptr(GError) error = NULL;
            g_byte_array_append(bad, bytes->data, bytes->len);
            memcpy(bad->data + at, &values[i], 8);
            seal(bad);
            g_autofree guint8 *copy = g_memdup2(bad->data, bad->len);
            g_autoptr(ImageIndex) index = image_index_parse(copy, bad->len, NULL, &error);
            g_assert_true((index != NULL) == (error == NULL));
            good += index != NULL;
        }
    }
    /* Changed texts and hashes are none of the reader's business: the seal was reached. */
    g_assert_cmpuint(good, >, 1000);
}

/* A record of another time: skipped, or where it says that it must be known refused. */
static void test_unknown_record(void)
{
    for (guint32 required = 0; required < 2; required++) {
        g_autoptr(ImageIndexBuilder) builder = sample_builder();
        g_autoptr(GError) error = NULL;
        image_index_builder_set_bytes(builder, (IndexRecordType)0x7777, "future", 6);
        g_autoptr(GByteArray) bytes = write_index(builder, NULL);
        for (guint at = 32; at < bytes->len; at += 8) {
            if (!memcmp(bytes->data + at, "\x77\x77\0\0", 4)) {
                bytes->data[at + 4] = (guint8)required;
            }
        }
        seal(bytes);
        g_autoptr(ImageIndex) index = image_index_parse(bytes->data, bytes->len, NULL, &error);
        if (required) {
            g_assert_error(error, SF_ERROR, SF_ERROR_UNSUPPORTED);
        } else {
            g_assert_no_error(error);
            check_facts(index);
        }
    }
}

/* Of a page that was saved again the later one counts, whatever lies over what. */
static void test_page_twice(void)
{
    const guint pages = 300;
    guint8 last[300];

    for (guint round = 0; round < 300; round++) {
        g_autoptr(ImageIndexBuilder) builder = image_index_builder_new(IMAGE_FORMAT_STREAM, PAGE);
        g_autoptr(GError) error = NULL;
        memset(last, 0xff, sizeof(last));
        image_index_builder_add_block(builder, "ram", pages * PAGE, 0, 0, PAGE + 8, NO_BASE);
        for (guint n = 0; n < round % 50; n++) {
            guint first = (guint)g_test_rand_int_range(0, pages);
            guint count = (guint)g_test_rand_int_range(1, (gint)MIN(pages - first, 60) + 1);
            IndexRun run = { .first = first, .count = count, .when_ms = n };
            image_index_builder_add_run(builder, 0, &run);
            memset(last + first, (int)n, count);
            if (n % 3 == 0) {
                add_here(builder, 0, first, count, 1000 + first * (PAGE + 8), n, INDEX_BY_FAULT);
            }
        }
        g_autoptr(GByteArray) bytes = write_index(builder, NULL);
        g_autoptr(ImageIndex) index = image_index_parse(bytes->data, bytes->len, NULL, &error);
        g_assert_no_error(error);
        const IndexBlock *block = g_ptr_array_index(index->blocks, 0);
        for (guint page = 0; page < pages; page++) {
            const IndexRun *run = index_block_find(block, page);
            g_assert_cmpint(run ? (int)run->when_ms : 0xff, ==, last[page]);
            g_assert_true(!run || (run->kind == INDEX_HERE) == (last[page] % 3 == 0));
            if (run && run->kind == INDEX_HERE) {
                g_assert_cmpuint(index_run_place(block, run, page), ==, 1000 + page * (PAGE + 8));
                g_assert_true(hash128_equal(index_run_hash(run, page),
                                            sample_hashes() + page * HASH128_BYTES));
            }
        }
    }
}

/* A GiB saved in an order and in pieces as bad as they come costs at most 0.5 %. */
static void test_cost(void)
{
    const guint64 pages = (1ULL << 30) / PAGE;
    g_autoptr(ImageIndexBuilder) builder = image_index_builder_new(IMAGE_FORMAT_STREAM, PAGE);
    guint64 place = 100;
    Hash128 hash = { { 0 } };

    image_index_builder_add_block(builder, "ram", pages * PAGE, PAGE, 0, PAGE + 8, NO_BASE);
    for (guint64 i = 0; i < pages;) {
        /* 127 faults in a scattered order and a batch of the sweep, then a new section. */
        for (guint n = 0; n < 128 && i < pages; n++, i++) {
            IndexRun run = { .first = i * 77771 % pages,
                             .count = 1,
                             .place = place,
                             .when_ms = (guint32)(i / 500),
                             .kind = INDEX_HERE,
                             .source = INDEX_BY_FAULT,
                             .hashes = hash.bytes };
            image_index_builder_add_run(builder, 0, &run);
            place += PAGE + 8;
        }
        place += 30;
    }
    g_autoptr(GByteArray) bytes = write_index(builder, NULL);
    g_test_message("%.3f %% of the pages, all saved by single faults",
                   100.0 * bytes->len / (double)(pages * PAGE));
    g_assert_cmpuint(bytes->len, <=, pages * PAGE / 200);
}

/* Longer than one record holds. */
static void test_long_run(void)
{
    const guint64 pages = 100000;
    g_autoptr(ImageIndexBuilder) builder = image_index_builder_new(IMAGE_FORMAT_STREAM, 512);
    g_autofree Hash128 *hashes = g_new0(Hash128, pages);
    IndexRun run = { .count = pages, .place = 8, .kind = INDEX_HERE, .hashes = hashes->bytes };
    g_autoptr(GError) error = NULL;

    for (guint64 i = 0; i < pages; i++) {
        hash128(&i, sizeof(i), &hashes[i]);
    }
    image_index_builder_add_block(builder, "ram", pages * 512, PAGE, 0, 520, NO_BASE);
    image_index_builder_add_run(builder, 0, &run);
    g_autoptr(GByteArray) bytes = write_index(builder, NULL);
    g_autoptr(ImageIndex) index = image_index_parse(bytes->data, bytes->len, NULL, &error);
    g_assert_no_error(error);
    const IndexBlock *block = g_ptr_array_index(index->blocks, 0);
    for (guint64 i = 0; i < pages; i++) {
        const IndexRun *found = index_block_find(block, i);
        g_assert_nonnull(found);
        g_assert_true(hash128_equal(index_run_hash(found, i), &hashes[i]));
        g_assert_cmpuint(index_run_place(block, found, i), ==, 8 + i * 520);
    }
}

/* As "printf '' | xxh128sum" and a page of zeros print it: the algorithm is part of the format. */
static void test_hash(void)
{
    static const guint8 nothing[] = { 0x99, 0xaa, 0x06, 0xd3, 0x01, 0x47, 0x98, 0xd8,
                                      0x60, 0x01, 0xc3, 0x24, 0x46, 0x8d, 0x49, 0x7f };
    g_autoptr(HashStream) stream = hash_stream_new();
    guint8 page[4096] = { 1, 2, 3 };
    Hash128 whole, pieces;

    hash128("", 0, &whole);
    g_assert_cmpmem(&whole, sizeof(whole), nothing, sizeof(nothing));
    hash128(page, sizeof(page), &whole);
    hash_stream_add(stream, page, 1000);
    hash_stream_add(stream, page + 1000, sizeof(page) - 1000);
    hash_stream_get(stream, &pieces);
    g_assert_true(hash128_equal(&whole, &pieces));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/image-index/round-trip", test_round_trip);
    g_test_add_func("/image-index/copy", test_copy);
    g_test_add_func("/image-index/find", test_find);
    g_test_add_func("/image-index/truncated", test_truncated);
    g_test_add_func("/image-index/flipped", test_flipped);
    g_test_add_func("/image-index/hostile", test_hostile);
    g_test_add_func("/image-index/unknown-record", test_unknown_record);
    g_test_add_func("/image-index/page-twice", test_page_twice);
    g_test_add_func("/image-index/cost", test_cost);
    g_test_add_func("/image-index/long-run", test_long_run);
    g_test_add_func("/image-index/hash", test_hash);
    return g_test_run();
}
