/*
 * Collecting and writing the index trailer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/image-index.h"

#include "image-index-format.h"

/* A record of pages is closed at this size: no large piece of memory ever has to grow. */
#define PAGES_RECORD_BYTES (256 * 1024)
/* More than the words of a run take without its hashes: seven numbers of ten bytes at the most. */
#define RUN_BYTES_MAX 80
/* Hashes that one run gets into a record. */
#define RUN_HASHES_MAX (PAGES_RECORD_BYTES / 2 / HASH128_BYTES)

typedef struct BuilderBlock {
    char *name;
    guint64 used_length;
    guint64 page_size;
    guint32 flags;
    guint64 stride;
    guint64 base;
    GByteArray *open; /* the record that runs are added to; NULL for none */
    /* Behind the run before. */
    guint64 next_page;
    guint64 next_place;
    guint64 when_ms;
} BuilderBlock;

struct ImageIndexBuilder {
    ImageFormat format;
    guint64 page_size;
    gint64 created_us;
    guint8 uuid[IMAGE_UUID_BYTES];
    guint64 devices_at;
    guint64 devices_length;
    Hash128 devices_hash;
    GPtrArray *blocks;  /* BuilderBlock */
    GPtrArray *records; /* GByteArray: finished ones but for their checksums */
    GHashTable *single; /* type -> GByteArray: those that are there once */
    GArray *memory;     /* IndexRange */
};

static void put_u32(GByteArray *out, guint32 value)
{
    value = GUINT32_TO_LE(value);
    g_byte_array_append(out, (const guint8 *)&value, sizeof(value));
}

static void put_u64(GByteArray *out, guint64 value)
{
    value = GUINT64_TO_LE(value);
    g_byte_array_append(out, (const guint8 *)&value, sizeof(value));
}

static void put_bytes(GByteArray *out, const void *data, gsize length)
{
    g_byte_array_append(out, data, (guint)length);
}

/* Seven bits a byte, the lowest first; all but the last have the top bit. */
static void put_number(GByteArray *out, guint64 value)
{
    guint8 bytes[10];
    guint n = 0;

    while (value >= 0x80) {
        bytes[n++] = (guint8)(value | 0x80);
        value >>= 7;
    }
    bytes[n++] = (guint8)value;
    put_bytes(out, bytes, n);
}

/* The sign goes to the lowest bit, so that small numbers of either sign are short. */
static void put_signed(GByteArray *out, guint64 value)
{
    put_number(out, (value << 1) ^ (value >> 63 ? G_MAXUINT64 : 0));
}

/* A record with room for its length, which record_close() fills in. */
static GByteArray *record_new(guint32 type, guint32 flags, gsize size)
{
    GByteArray *record = g_byte_array_sized_new((guint)(INDEX_RECORD_HEAD_BYTES + size + 16));

    put_u32(record, type);
    put_u32(record, flags);
    put_u64(record, 0);
    return record;
}

static void record_close(GByteArray *record)
{
    static const guint8 zeros[INDEX_RECORD_ALIGN] = { 0 };
    guint64 length = GUINT64_TO_LE((guint64)record->len - INDEX_RECORD_HEAD_BYTES);

    memcpy(record->data + 8, &length, sizeof(length));
    put_bytes(record, zeros, -(gsize)record->len % INDEX_RECORD_ALIGN);
    put_u64(record, hash64(record->data, record->len));
}

static void builder_block_free(gpointer data)
{
    BuilderBlock *block = data;

    if (block->open) {
        g_byte_array_unref(block->open);
    }
    g_free(block->name);
    g_free(block);
}

static void make_uuid(guint8 *uuid)
{
    g_autofree char *text = g_uuid_string_random();
    guint n = 0;

    for (const char *at = text; *at && n < IMAGE_UUID_BYTES; at++) {
        if (*at != '-') {
            uuid[n++] = (guint8)(g_ascii_xdigit_value(at[0]) * 16 + g_ascii_xdigit_value(at[1]));
            at++;
        }
    }
}

ImageIndexBuilder *image_index_builder_new(ImageFormat format, guint64 page_size)
{
    ImageIndexBuilder *builder = g_new0(ImageIndexBuilder, 1);

    builder->format = format;
    builder->page_size = page_size;
    builder->created_us = g_get_real_time();
    builder->blocks = g_ptr_array_new_with_free_func(builder_block_free);
    builder->records = g_ptr_array_new_with_free_func((GDestroyNotify)g_byte_array_unref);
    builder->single = g_hash_table_new_full(NULL, NULL, NULL, (GDestroyNotify)g_byte_array_unref);
    builder->memory = g_array_new(FALSE, FALSE, sizeof(IndexRange));
    make_uuid(builder->uuid);
    return builder;
}

void image_index_builder_free(ImageIndexBuilder *builder)
{
    if (builder) {
        g_ptr_array_unref(builder->blocks);
        g_ptr_array_unref(builder->records);
        g_hash_table_unref(builder->single);
        g_array_unref(builder->memory);
        g_free(builder);
    }
}

void image_index_builder_add_block(ImageIndexBuilder *builder, const char *name,
                                   guint64 used_length, guint64 page_size, guint32 flags,
                                   guint64 stride, guint64 base)
{
    BuilderBlock *block = g_new0(BuilderBlock, 1);

    *block = (BuilderBlock){ .name = g_strdup(name),
                             .used_length = used_length,
                             .page_size = page_size,
                             .flags = flags,
                             .stride = stride,
                             .base = base };
    g_ptr_array_add(builder->blocks, block);
}

/* Each record can be read alone: nothing is carried over from the one before. */
static void open_pages(BuilderBlock *block, guint number)
{
    block->open = record_new(INDEX_PAGES, INDEX_RECORD_REQUIRED, PAGES_RECORD_BYTES);
    put_u32(block->open, number);
    put_u32(block->open, 0);
    put_u64(block->open, block->stride);
    put_u64(block->open, block->base);
    block->next_page = 0;
    block->next_place = 0;
    block->when_ms = 0;
}

static void close_pages(ImageIndexBuilder *builder, BuilderBlock *block)
{
    if (block->open) {
        record_close(block->open);
        g_ptr_array_add(builder->records, g_steal_pointer(&block->open));
    }
}

static void put_run(BuilderBlock *block, const IndexRun *run)
{
    GByteArray *out = block->open;
    gboolean placed = run->kind == INDEX_HERE && block->base == INDEX_NO_BASE;
    guint8 token = run->kind;

    token |= run->source == INDEX_BY_FAULT ? RUN_BY_FAULT : 0;
    token |= run->when_ms != block->when_ms ? RUN_HAS_TIME : 0;
    token |= run->count != 1 ? RUN_HAS_COUNT : 0;
    token |= run->first != block->next_page ? RUN_HAS_FIRST : 0;
    token |= placed && run->place != block->next_place ? RUN_HAS_PLACE : 0;
    put_bytes(out, &token, 1);
    if (token & RUN_HAS_TIME) {
        put_signed(out, run->when_ms - block->when_ms);
    }
    if (token & RUN_HAS_COUNT) {
        put_number(out, run->count - 1);
    }
    if (token & RUN_HAS_FIRST) {
        put_signed(out, run->first - block->next_page);
    }
    if (token & RUN_HAS_PLACE) {
        put_signed(out, run->place - block->next_place);
    }
    if (run->kind == INDEX_ELSEWHERE) {
        put_number(out, run->parent_block);
        put_number(out, run->parent_first);
    }
    if (run->kind == INDEX_HERE) {
        put_bytes(out, run->hashes, run->count * HASH128_BYTES);
        block->next_place = run->place + run->count * block->stride;
    }
    block->when_ms = run->when_ms;
    block->next_page = run->first + run->count;
}

void image_index_builder_add_run(ImageIndexBuilder *builder, guint block, const IndexRun *run)
{
    BuilderBlock *b = g_ptr_array_index(builder->blocks, block);
    IndexRun rest = *run;

    while (rest.count) {
        IndexRun part = rest;
        gsize hashes = 0;
        if (rest.kind == INDEX_HERE) {
            part.count = MIN(rest.count, (guint64)RUN_HASHES_MAX);
            hashes = part.count * HASH128_BYTES;
            rest.hashes += hashes;
        }
        if (b->open && b->open->len + hashes + RUN_BYTES_MAX > PAGES_RECORD_BYTES) {
            close_pages(builder, b);
        }
        if (!b->open) {
            open_pages(b, block);
        }
        put_run(b, &part);
        rest.first += part.count;
        rest.count -= part.count;
        rest.place += part.count * (rest.kind == INDEX_HERE ? b->stride : 1);
    }
}

void image_index_builder_set_devices(ImageIndexBuilder *builder, guint64 at, const void *data,
                                     gsize length)
{
    builder->devices_at = at;
    builder->devices_length = length;
    hash128(data, length, &builder->devices_hash);
}

void image_index_builder_set_created(ImageIndexBuilder *builder, gint64 created_us)
{
    builder->created_us = created_us;
}

void image_index_builder_set_bytes(ImageIndexBuilder *builder, IndexRecordType type,
                                   const void *data, gsize length)
{
    GByteArray *record = record_new(type, 0, length);

    put_bytes(record, data, length);
    g_hash_table_replace(builder->single, GUINT_TO_POINTER(type), record);
}

void image_index_builder_set_text(ImageIndexBuilder *builder, IndexRecordType type,
                                  const char *text)
{
    if (text) {
        g_autofree char *valid = g_utf8_make_valid(text, -1);
        image_index_builder_set_bytes(builder, type, valid, strlen(valid));
    }
}

void image_index_builder_set_command_line(ImageIndexBuilder *builder, const char *const *arguments)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    for (guint i = 0; arguments && arguments[i]; i++) {
        put_bytes(bytes, arguments[i], strlen(arguments[i]) + 1);
    }
    if (bytes->len) {
        image_index_builder_set_bytes(builder, INDEX_COMMAND_LINE, bytes->data, bytes->len);
    }
}

void image_index_builder_set_parent(ImageIndexBuilder *builder, const IndexParent *parent)
{
    /* Who cannot follow the chain must not take the image for a whole one. */
    GByteArray *record =
        record_new(INDEX_PARENT_IMAGE, parent->needed ? INDEX_RECORD_REQUIRED : 0, 0);

    put_bytes(record, parent->uuid, IMAGE_UUID_BYTES);
    put_bytes(record, parent->identity.bytes, HASH128_BYTES);
    put_u32(record, parent->needed ? INDEX_PARENT_NEEDED : 0);
    put_u32(record, 0);
    put_bytes(record, parent->path, strlen(parent->path));
    g_hash_table_replace(builder->single, GUINT_TO_POINTER(INDEX_PARENT_IMAGE), record);
}

void image_index_builder_set_heat(ImageIndexBuilder *builder, guint block, guint64 unit,
                                  const guint32 *heat, guint64 count)
{
    GByteArray *record = record_new(INDEX_HEAT, 0, count * sizeof(*heat));

    put_u32(record, block);
    put_u32(record, 0);
    put_u64(record, unit);
    for (guint64 i = 0; i < count; i++) {
        put_u32(record, heat[i]);
    }
    record_close(record);
    g_ptr_array_add(builder->records, record);
}

void image_index_builder_add_memory(ImageIndexBuilder *builder, const IndexRange *range)
{
    g_array_append_val(builder->memory, *range);
}

void image_index_builder_copy_facts(ImageIndexBuilder *builder, const ImageIndex *index)
{
    builder->created_us = index->created_us;
    image_index_builder_set_text(builder, INDEX_MACHINE_TYPE, index->machine_type);
    image_index_builder_set_text(builder, INDEX_TARGET, index->target);
    image_index_builder_set_text(builder, INDEX_QEMU_VERSION, index->qemu_version);
    image_index_builder_set_text(builder, INDEX_HOST_KERNEL, index->host_kernel);
    image_index_builder_set_text(builder, INDEX_WRITER, index->writer);
    image_index_builder_set_text(builder, INDEX_LABEL, index->label);
    image_index_builder_set_text(builder, INDEX_STATISTICS, index->statistics);
    image_index_builder_set_command_line(builder, (const char *const *)index->command_line);
    if (index->screen) {
        image_index_builder_set_bytes(builder, INDEX_SCREEN, index->screen, index->screen_length);
    }
    if (index->parent && !index->parent->needed) {
        image_index_builder_set_parent(builder, index->parent);
    }
    g_array_append_vals(builder->memory, index->memory->data, index->memory->len);
}

static GByteArray *image_record(const ImageIndexBuilder *builder, guint64 image_length)
{
    GByteArray *record = record_new(INDEX_IMAGE, INDEX_RECORD_REQUIRED, 0);

    put_u32(record, builder->format);
    put_u32(record, INDEX_HASH_XXH3_128);
    put_u64(record, builder->page_size);
    put_u64(record, image_length);
    put_u64(record, (guint64)builder->created_us);
    put_u64(record, builder->devices_at);
    put_u64(record, builder->devices_length);
    put_bytes(record, builder->devices_hash.bytes, HASH128_BYTES);
    record_close(record);
    return record;
}

static GByteArray *blocks_record(const ImageIndexBuilder *builder)
{
    GByteArray *record = record_new(INDEX_BLOCKS, INDEX_RECORD_REQUIRED, 0);

    put_u32(record, builder->blocks->len);
    for (guint i = 0; i < builder->blocks->len; i++) {
        const BuilderBlock *block = g_ptr_array_index(builder->blocks, i);
        put_u32(record, (guint32)strlen(block->name));
        put_bytes(record, block->name, strlen(block->name));
        put_u64(record, block->used_length);
        put_u64(record, block->page_size);
        put_u32(record, block->flags);
    }
    record_close(record);
    return record;
}

static GByteArray *memory_record(const ImageIndexBuilder *builder)
{
    GByteArray *record = record_new(INDEX_MEMORY, 0, builder->memory->len * 32);

    for (guint i = 0; i < builder->memory->len; i++) {
        const IndexRange *range = &g_array_index(builder->memory, IndexRange, i);
        put_u64(record, range->address);
        put_u64(record, range->length);
        put_u64(record, range->offset);
        put_u32(record, range->block);
        put_u32(record, 0);
    }
    record_close(record);
    return record;
}

static GByteArray *header(const ImageIndexBuilder *builder)
{
    GByteArray *out = g_byte_array_new();

    put_bytes(out, INDEX_MAGIC, INDEX_MAGIC_BYTES);
    put_u32(out, INDEX_VERSION);
    put_u32(out, INDEX_HEADER_BYTES);
    put_bytes(out, builder->uuid, IMAGE_UUID_BYTES);
    return out;
}

/* All pieces in order, but the end; what is in builder->records moves over. */
static GPtrArray *all_pieces(ImageIndexBuilder *builder, guint64 image_length)
{
    GPtrArray *pieces = g_ptr_array_new_with_free_func((GDestroyNotify)g_byte_array_unref);
    GHashTableIter iter;
    gpointer record;

    g_ptr_array_add(pieces, header(builder));
    g_ptr_array_add(pieces, image_record(builder, image_length));
    g_ptr_array_add(pieces, blocks_record(builder));
    if (builder->memory->len) {
        g_ptr_array_add(pieces, memory_record(builder));
    }
    g_hash_table_iter_init(&iter, builder->single);
    while (g_hash_table_iter_next(&iter, NULL, &record)) {
        record_close(record);
        g_hash_table_iter_steal(&iter);
        g_ptr_array_add(pieces, record);
    }
    for (guint i = 0; i < builder->blocks->len; i++) {
        close_pages(builder, g_ptr_array_index(builder->blocks, i));
    }
    g_ptr_array_extend_and_steal(pieces, g_steal_pointer(&builder->records));
    builder->records = g_ptr_array_new_with_free_func((GDestroyNotify)g_byte_array_unref);
    return pieces;
}

static gboolean write_end(guint64 records, guint64 before, HashStream *hash, ImageIndexSink sink,
                          gpointer user, Hash128 *identity, GError **errp)
{
    g_autoptr(GByteArray) end = record_new(INDEX_END, INDEX_RECORD_REQUIRED, INDEX_END_BODY_BYTES);
    guint64 length = GUINT64_TO_LE((guint64)INDEX_END_BODY_BYTES);

    memcpy(end->data + 8, &length, sizeof(length));
    put_u64(end, records);
    put_u64(end, before + INDEX_END_BYTES);
    hash_stream_add(hash, end->data, end->len);
    hash_stream_get(hash, identity);
    put_bytes(end, identity->bytes, HASH128_BYTES);
    put_bytes(end, INDEX_END_MAGIC, INDEX_MAGIC_BYTES);
    return sink(end->data, end->len, user, errp);
}

gboolean image_index_builder_write(ImageIndexBuilder *builder, guint64 image_length,
                                   ImageIndexSink sink, gpointer user, Hash128 *identity,
                                   GError **errp)
{
    g_autoptr(GPtrArray) pieces = all_pieces(builder, image_length);
    g_autoptr(HashStream) hash = hash_stream_new();
    Hash128 unasked;
    guint64 length = 0;

    for (guint i = 0; i < pieces->len; i++) {
        const GByteArray *piece = g_ptr_array_index(pieces, i);
        hash_stream_add(hash, piece->data, piece->len);
        length += piece->len;
        if (!sink(piece->data, piece->len, user, errp)) {
            return FALSE;
        }
    }
    /* The header is no record, the end is one. */
    return write_end(pieces->len, length, hash, sink, user, identity ? identity : &unasked, errp);
}
