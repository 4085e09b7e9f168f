/*
 * Conversions: a reader at one end, a writer for each format at the other.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "image/convert.h"
#include "image/elf-core.h"
#include "image/raw-memory.h"
#include "migration/device-state.h"

/* Pages are handed to the writer in so many bytes at most. */
#define BATCH_BYTES ((gsize)1024 * 1024)
/* libvirt leaves as much behind the XML, for an edited one that is longer. */
#define LIBVIRT_SPARE (64 * 1024)
#define XML_MAX (16 * 1024 * 1024)

typedef struct Conversion {
    const ConvertOptions *options;
    ImageReader *reader;
    Channel *channel;
    ConvertReport *report;
} Conversion;

static void conversion_clear(Conversion *c)
{
    channel_free(c->channel);
    image_reader_free(c->reader);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Conversion, conversion_clear)

gboolean convert_format_parse(const char *name, ConvertFormat *format, GError **errp)
{
    static const char *const names[] = { "stream", "mapped-ram", "elf", "raw", "libvirt" };

    for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
        if (!g_strcmp0(name, names[i])) {
            *format = (ConvertFormat)i;
            return TRUE;
        }
    }
    g_set_error(errp, SF_ERROR, SF_ERROR_USAGE,
                "no format \"%s\"; there are stream, mapped-ram, elf, raw and libvirt", name);
    return FALSE;
}

/* ---- Both ends ---- */

static Channel *open_output(const ConvertOptions *options, GError **errp)
{
    g_autoptr(Destination) destination = NULL;

    if (strcmp(options->output, "-") != 0) {
        destination = destination_parse(options->output, errp);
    } else {
        destination = g_new0(Destination, 1);
        destination->kind = DEST_FD;
        destination->fd = STDOUT_FILENO;
    }
    return destination ? channel_open_output(destination, options->sync, errp) : NULL;
}

/* From here on, what is written is compressed. */
static gboolean start_compression(Conversion *c, GError **errp)
{
    const char *name = c->options->compress;
    ChannelCompression compression = CHANNEL_ZSTD;

    if (!name) {
        return TRUE;
    }
    if (!strcmp(name, "zlib") || !strcmp(name, "gzip")) {
        compression = CHANNEL_GZIP;
    } else if (strcmp(name, "zstd") != 0) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE,
                    "no compression \"%s\"; there are zstd and zlib", name);
        return FALSE;
    }
    c->channel = channel_compress_new(c->channel, compression, c->options->level, errp);
    return c->channel != NULL;
}

/* A stream that QEMU or we made ends in a description, so one without it was cut off. */
static gboolean check_whole(Conversion *c, GError **errp)
{
    gsize length;

    if (image_reader_get_description(c->reader, &length)) {
        return TRUE;
    }
    g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                "%s: nothing stands behind the end of its device state; it seems to be cut off",
                c->options->input);
    return FALSE;
}

static gboolean check_input(Conversion *c, GError **errp)
{
    const GPtrArray *capabilities = image_reader_get_capabilities(c->reader);

    if (image_reader_get_kind(c->reader) == IMAGE_KIND_DEVICES) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "%s holds device state and no memory; nothing can be made of it",
                    c->options->input);
        return FALSE;
    }
    for (guint i = 0; i < capabilities->len; i++) {
        if (!strcmp(g_ptr_array_index(capabilities, i), "x-ignore-shared")) {
            g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                        "%s was written with x-ignore-shared: it lacks the guest's shared memory",
                        c->options->input);
            return FALSE;
        }
    }
    return TRUE;
}

/* ---- A migration stream ---- */

typedef struct StreamSink {
    Conversion *conversion;
    ImageWriter *writer;
    const ImageIndex *index; /* of the input, NULL where it has none or it is not known yet */
    guint8 *batch;           /* of a reader whose data does not last */
    GuestPages *last;        /* of one whose data does: which record of a page counts */
    gsize pending;           /* bytes handed over since the last flush */
} StreamSink;

/* Hands on who saved the pages and when; up to where that is the same, it returns the length. */
static guint64 take_origin(StreamSink *sink, guint block, guint64 offset, guint64 length)
{
    guint bits = image_reader_get_head(sink->conversion->reader)->target_page_bits;
    const IndexBlock *from = sink->index && block < sink->index->blocks->len
                                 ? g_ptr_array_index(sink->index->blocks, block)
                                 : NULL;
    const IndexRun *run = from ? index_block_find(from, offset >> bits) : NULL;

    if (!run) {
        return length;
    }
    sink->writer->source = (IndexSource)run->source;
    sink->writer->when_ms = run->when_ms;
    return MIN(length, ((run->first + run->count) << bits) - offset);
}

static gboolean sink_data(StreamSink *sink, guint block, guint64 offset, const void *data,
                          guint64 length, GError **errp)
{
    ImageWriter *writer = sink->writer;

    if (sink->pending + length > BATCH_BYTES) {
        sink->pending = 0;
        if (!writer->flush(writer, errp)) {
            return FALSE;
        }
    }
    /* What does not last comes page by page, which always fits. */
    if (sink->batch) {
        data = memcpy(sink->batch + sink->pending, data, length);
    }
    sink->pending += length;
    return writer->page(writer, block, offset, data, length, errp);
}

/*
 * A page that the guest wrote to while it was saved comes twice: how long the run is whose first
 * page's record is the last, or is not.
 */
static guint64 take_counting(StreamSink *sink, guint block, guint64 offset, const guint8 *data,
                             guint64 length, gboolean *counts)
{
    *counts = TRUE;
    if (!sink->last) {
        return length;
    }
    gsize size = guest_pages_get_size(sink->last);
    guint64 done = 0;
    *counts = guest_pages_take(sink->last, block, offset / size, data);
    if (!*counts) {
        return size;
    }
    do {
        done += size;
    } while (done < length && guest_pages_take(sink->last, block, (offset + done) / size,
                                               data ? data + done : NULL));
    return done;
}

static gboolean sink_run(guint block, guint64 offset, const void *data, guint64 length,
                         gpointer user, GError **errp)
{
    StreamSink *sink = user;
    Conversion *c = sink->conversion;

    for (guint64 done = 0; done < length;) {
        const guint8 *from = data ? (const guint8 *)data + done : NULL;
        gboolean counts;
        guint64 part = take_origin(sink, block, offset + done, length - done);
        part = take_counting(sink, block, offset + done, from, part, &counts);
        if (counts &&
            !(from ? sink_data(sink, block, offset + done, from, part, errp)
                   : sink->writer->zero(sink->writer, block, offset + done, part, errp))) {
            return FALSE;
        }
        done += part;
    }
    return image_progress_walk(&c->options->progress, c->reader, errp);
}

/* A legacy ARM stream does not tell the size of its pages: then it is looked through once before.
 */
static gboolean find_page_size(Conversion *c, GError **errp)
{
    const ImageHead *head = image_reader_get_head(c->reader);
    const char *type = head->machine_type ? head->machine_type : "";

    return g_str_has_prefix(type, "pc-") || !image_reader_is_mapped(c->reader) ||
           image_reader_foreach_page(c->reader, NULL, NULL, errp);
}

/* What a mapped image has behind it is known before its pages; else only when they have gone by. */
static gboolean find_index(Conversion *c, const ImageIndex **index, GError **errp)
{
    g_autoptr(GError) error = NULL;

    *index = image_reader_find_index(c->reader, &error);
    if (error) {
        g_propagate_error(errp, g_steal_pointer(&error));
        return FALSE;
    }
    return TRUE;
}

static gboolean write_pages(Conversion *c, StreamSink *sink, GError **errp)
{
    return sink->writer->begin(sink->writer, image_reader_get_head(c->reader), errp) &&
           image_reader_foreach_page(c->reader, sink_run, sink, errp) &&
           sink->writer->flush(sink->writer, errp) && check_whole(c, errp);
}

static gboolean write_end(Conversion *c, StreamSink *sink, ImageIndexBuilder *builder,
                          GError **errp)
{
    const guint8 *devices;
    gsize length;

    if (!image_reader_get_device_state(c->reader, &devices, &length, errp) ||
        !find_index(c, &sink->index, errp)) {
        return FALSE;
    }
    if (sink->index) {
        image_index_builder_copy_facts(builder, sink->index);
    } else {
        image_index_builder_set_text(builder, INDEX_MACHINE_TYPE,
                                     image_reader_get_head(c->reader)->machine_type);
    }
    image_index_builder_set_text(builder, INDEX_WRITER, "stillframe " STILLFRAME_VERSION);
    return sink->writer->device_state(sink->writer, devices, length, errp) &&
           sink->writer->finish(sink->writer, errp);
}

/* @inner is taken. */
static gboolean write_with(Conversion *c, ImageWriter *inner, ImageFormat format, GError **errp)
{
    const ImageHead *head = image_reader_get_head(c->reader);
    g_autofree guint8 *batch = image_reader_is_mapped(c->reader) ? NULL : g_malloc(BATCH_BYTES);
    StreamSink sink = { .conversion = c, .batch = batch };

    if (!find_page_size(c, errp) ||
        (image_reader_is_mapped(c->reader) && !find_index(c, &sink.index, errp))) {
        image_writer_free(inner);
        return FALSE;
    }
    g_autoptr(GuestPages) last = NULL;
    if (!batch && !(last = guest_pages_load(c->reader, &c->options->progress, errp))) {
        image_writer_free(inner);
        return FALSE;
    }
    sink.last = last;
    g_autoptr(ImageIndexBuilder) builder =
        image_index_builder_new(format, 1ULL << head->target_page_bits);
    g_autoptr(ImageWriter) writer = index_writer_new(inner, builder);
    sink.writer = writer;
    return write_pages(c, &sink, errp) && write_end(c, &sink, builder, errp);
}

static gboolean write_stream(Conversion *c, GError **errp)
{
    return start_compression(c, errp) &&
           write_with(c, stream_writer_new(c->channel), IMAGE_FORMAT_STREAM, errp);
}

static gboolean write_mapped(Conversion *c, GError **errp)
{
    if (c->options->compress) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE,
                    "mapped-ram has each page at a place of its own and cannot be compressed; "
                    "compress a stream");
        return FALSE;
    }
    ImageWriter *inner = mapped_writer_new(c->channel, errp);
    return inner && write_with(c, inner, IMAGE_FORMAT_MAPPED_RAM, errp);
}

/* ---- libvirt ---- */

/* The domain's XML with its NUL and room to spare, or what the input's header has behind it. */
static GByteArray *make_libvirt_data(Conversion *c, LibvirtHeader *header, GError **errp)
{
    const guint8 *data;
    const LibvirtHeader *old = image_source_get_libvirt(image_reader_get_source(c->reader), &data);
    g_autoptr(GByteArray) out = g_byte_array_new();
    g_autofree char *xml = NULL;
    gsize length;

    if (!c->options->xml && old) {
        header->cookie_offset = old->cookie_offset;
        g_byte_array_append(out, data, old->data_length);
        return g_steal_pointer(&out);
    }
    if (!c->options->xml) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE,
                    "a libvirt save file holds the domain's XML; give it with --xml (\"virsh "
                    "dumpxml DOMAIN\" prints it)");
        return NULL;
    }
    if (!g_file_get_contents(c->options->xml, &xml, &length, errp)) {
        return NULL;
    }
    if (length > XML_MAX || strlen(xml) != length || !strstr(xml, "<domain")) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE, "%s holds no XML of a domain", c->options->xml);
        return NULL;
    }
    g_byte_array_append(out, (const guint8 *)xml, (guint)length);
    g_byte_array_set_size(out, (guint)length + 1 + LIBVIRT_SPARE);
    memset(out->data + length, 0, 1 + LIBVIRT_SPARE);
    return g_steal_pointer(&out);
}

static guint32 libvirt_format(const ConvertOptions *options)
{
    return !options->compress                   ? LIBVIRT_RAW
           : !strcmp(options->compress, "zstd") ? LIBVIRT_ZSTD
                                                : LIBVIRT_GZIP;
}

static gboolean write_libvirt(Conversion *c, GError **errp)
{
    LibvirtHeader header = { .version = LIBVIRT_VERSION, .format = libvirt_format(c->options) };
    guint8 bytes[LIBVIRT_HEADER_BYTES];
    const guint8 *devices;
    gsize length;

    /* The header tells what is known at the end only: whether the guest ran. */
    if (!image_reader_map(c->reader, errp) ||
        !image_reader_get_device_state(c->reader, &devices, &length, errp)) {
        return FALSE;
    }
    g_autofree char *state = device_state_get_run_state(devices, length);
    header.was_running = state && !strcmp(state, "running");
    g_autoptr(GByteArray) data = make_libvirt_data(c, &header, errp);
    if (!data) {
        return FALSE;
    }
    header.data_length = data->len;
    libvirt_header_format(&header, bytes);
    struct iovec iov[] = { { bytes, sizeof(bytes) }, { data->data, data->len } };
    return channel_writev(c->channel, iov, G_N_ELEMENTS(iov), errp) && write_stream(c, errp);
}

/* ---- Memory by address ---- */

/* One block from its first byte to its last. */
static GArray *block_range(Conversion *c, GError **errp)
{
    const ImageHead *head = image_reader_get_head(c->reader);
    GArray *ranges = g_array_new(FALSE, FALSE, sizeof(GuestRange));

    for (guint i = 0; i < head->blocks->len; i++) {
        const ImageBlock *block = g_ptr_array_index(head->blocks, i);
        if (!strcmp(block->name, c->options->block)) {
            GuestRange range = { 0, block->used_length, i, 0 };
            g_array_append_val(ranges, range);
            return ranges;
        }
    }
    g_array_unref(ranges);
    g_set_error(errp, SF_ERROR, SF_ERROR_USAGE,
                "%s has no RAM block \"%s\"; \"stillframe info\" names those it has",
                c->options->input, c->options->block);
    return NULL;
}

static gboolean write_raw(Conversion *c, const GuestPages *pages, const guint8 *devices,
                          gsize length, SparseOutput *output, GError **errp)
{
    g_autoptr(GArray) ranges =
        c->options->block
            ? block_range(c, errp)
            : guest_layout_x86(image_reader_get_head(c->reader), devices, length, errp);

    if (!ranges) {
        if (!c->options->block) {
            g_prefix_error(errp, "%s: ", c->options->input);
        }
        return FALSE;
    }
    return raw_memory_write(pages, ranges, output, &c->options->progress, errp);
}

static gboolean write_elf(Conversion *c, const GuestPages *pages, const guint8 *devices,
                          gsize length, SparseOutput *output, GError **errp)
{
    gsize text_length;
    const char *text = image_reader_get_description(c->reader, &text_length);
    g_autoptr(VmDescription) description =
        text ? vm_description_parse(text, text_length, errp) : NULL;

    if (text && !description) {
        return FALSE;
    }
    return elf_core_write(pages, image_reader_get_head(c->reader), devices, length, description,
                          output, &c->options->progress, errp);
}

static gboolean write_memory(Conversion *c, GError **errp)
{
    const guint8 *devices;
    gsize length;

    if (!image_reader_map(c->reader, errp)) {
        return FALSE;
    }
    g_autoptr(GuestPages) pages = guest_pages_load(c->reader, &c->options->progress, errp);
    if (!pages || !check_whole(c, errp) ||
        !image_reader_get_device_state(c->reader, &devices, &length, errp) ||
        !start_compression(c, errp)) {
        return FALSE;
    }
    SparseOutput output = { c->channel, 0 };
    return c->options->format == CONVERT_ELF ? write_elf(c, pages, devices, length, &output, errp)
                                             : write_raw(c, pages, devices, length, &output, errp);
}

/* ---- All of it ---- */

static gboolean write_format(Conversion *c, GError **errp)
{
    switch (c->options->format) {
    case CONVERT_STREAM:
        return write_stream(c, errp);
    case CONVERT_LIBVIRT:
        return write_libvirt(c, errp);
    case CONVERT_ELF:
    case CONVERT_RAW:
        return write_memory(c, errp);
    case CONVERT_MAPPED_RAM:
        return write_mapped(c, errp);
    }
    g_assert_not_reached();
}

gboolean convert_image(const ConvertOptions *options, ConvertReport *report, GError **errp)
{
    gint64 start = g_get_monotonic_time();
    g_auto(Conversion) c = { .options = options, .report = report };

    *report = (ConvertReport){ 0 };
    c.reader = image_reader_open(options->input, options->offset, errp);
    if (!c.reader || !check_input(&c, errp)) {
        return FALSE;
    }
    c.channel = open_output(options, errp);
    if (!c.channel || !write_format(&c, errp)) {
        return FALSE;
    }
    report->bytes_out = channel_get_bytes(c.channel);
    report->bytes_in = image_source_get_file_size(image_reader_get_source(c.reader));
    if (!channel_commit(c.channel, errp)) {
        return FALSE;
    }
    report->seconds = (double)(g_get_monotonic_time() - start) / G_USEC_PER_SEC;
    return TRUE;
}
