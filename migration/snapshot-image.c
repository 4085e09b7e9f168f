/*
 * The image of a snapshot: which writer it gets, and what its index tells beside the pages.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <sys/utsname.h>

#include "clock.h"
#include "screen.h"
#include "snapshot-impl.h"
#include "monitor/memory-map.h"
#include "util/autofd.h"

/* Which blocks the guest sees where. Only tools ask for it: not to know it is no error. */
static void describe_memory(Snapshot *snapshot)
{
    g_autoptr(GPtrArray) pieces = machine_query_memory_map(snapshot->qmp, NULL);

    for (guint i = 0; pieces && i < pieces->len; i++) {
        const MemoryPiece *piece = g_ptr_array_index(pieces, i);
        for (guint n = 0; n < snapshot->ram->blocks->len; n++) {
            const GuestBlock *block = g_ptr_array_index(snapshot->ram->blocks, n);
            const IndexRange range = { .address = piece->address,
                                       .length = piece->length,
                                       .block = n,
                                       .offset = piece->offset };
            if (memory_piece_is_of_block(piece, block->name) && piece->offset <= block->length &&
                piece->length <= block->length - piece->offset) {
                image_index_builder_add_memory(snapshot->index, &range);
                break;
            }
        }
    }
}

static void describe_qemu(Snapshot *snapshot)
{
    ImageIndexBuilder *index = snapshot->index;
    guint version = qmp_client_get_version(snapshot->qmp);
    g_autofree char *text =
        g_strdup_printf("%u.%u.%u", version / 10000, version / 100 % 100, version % 100);
    g_autofree char *target = machine_query_target(snapshot->qmp, NULL);
    g_auto(GStrv) command = proc_read_cmdline(snapshot->pid, NULL);

    image_index_builder_set_text(index, INDEX_QEMU_VERSION, text);
    image_index_builder_set_text(index, INDEX_TARGET, target);
    image_index_builder_set_text(index, INDEX_MACHINE_TYPE, snapshot->head->machine_type);
    image_index_builder_set_command_line(index, (const char *const *)command);
}

/* All that has to be asked while there is a monitor and the guest runs undisturbed. */
static void describe(Snapshot *snapshot)
{
    ImageIndexBuilder *index = snapshot->index;
    struct utsname host;

    describe_qemu(snapshot);
    describe_memory(snapshot);
    image_index_builder_set_text(index, INDEX_WRITER, "stillframe " STILLFRAME_VERSION);
    image_index_builder_set_text(index, INDEX_LABEL, snapshot->options->label);
    if (uname(&host) == 0) {
        image_index_builder_set_text(index, INDEX_HOST_KERNEL, host.release);
    }
    if (!snapshot->options->no_screen) {
        snapshot->screen = screen_capture(snapshot->qmp, snapshot->was_running);
    }
}

/* Before anything is opened: a command that is not going to be used must not be started. */
static gboolean check_format(const SnapshotOptions *options, GError **errp)
{
    if (options->format == IMAGE_FORMAT_MAPPED_RAM && options->destination->kind != DEST_FILE) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE,
                    "a mapped-ram image needs a regular file, where each page has its place; give "
                    "file:PATH, or choose --format stream");
        return FALSE;
    }
    return TRUE;
}

static gboolean open_parent(Snapshot *snapshot, GError **errp)
{
    guint64 page_size = 1ULL << snapshot->head->target_page_bits;

    if (!snapshot->options->parent) {
        return TRUE;
    }
    snapshot->parent = image_chain_open(snapshot->options->parent, errp);
    if (snapshot->parent && image_chain_get_index(snapshot->parent)->page_size != page_size) {
        g_set_error(errp, SF_ERROR, SF_ERROR_MISMATCH,
                    "the parent %s is of a machine with other pages", snapshot->options->parent);
        return FALSE;
    }
    return snapshot->parent != NULL;
}

/* A clone that is whole by itself, or what the parent has not. */
static ImageWriter *new_child_writer(Snapshot *snapshot, GError **errp)
{
    const ImageIndex *parent = image_chain_get_index(snapshot->parent);
    GError *error = NULL;
    ImageWriter *writer = NULL;

    if (parent->format == IMAGE_FORMAT_MAPPED_RAM &&
        snapshot->options->format != IMAGE_FORMAT_STREAM) {
        writer = mapped_writer_new_clone(snapshot->channel, image_chain_get_fd(snapshot->parent),
                                         &error);
    }
    if (error) {
        g_propagate_error(errp, error);
        return NULL;
    }
    return writer ? writer : incremental_writer_new(snapshot->channel);
}

/* The writer of the pages, without the index. */
static ImageWriter *new_writer(Snapshot *snapshot, GError **errp)
{
    if (snapshot->parent) {
        return new_child_writer(snapshot, errp);
    }
    switch (snapshot->options->format) {
    case IMAGE_FORMAT_MAPPED_RAM:
        return mapped_writer_new(snapshot->channel, errp);
    default:
        return stream_writer_new(snapshot->channel);
    }
}

static const char *format_name(ImageFormat format)
{
    static const char *const names[] = { "", "stream", "mapped-ram", "incremental" };
    return names[format];
}

gboolean snapshot_open_image(Snapshot *snapshot, GError **errp)
{
    const SnapshotOptions *options = snapshot->options;

    if (!check_format(options, errp) || !open_parent(snapshot, errp)) {
        return FALSE;
    }
    snapshot->channel = channel_open_output(options->destination, options->sync, errp);
    ImageWriter *writer = snapshot->channel ? new_writer(snapshot, errp) : NULL;
    if (!writer) {
        return FALSE;
    }
    snapshot->report->format = format_name(writer->format);
    snapshot->index =
        image_index_builder_new(writer->format, 1ULL << snapshot->head->target_page_bits);
    snapshot->output.writer = index_writer_new(writer, snapshot->index);
    describe(snapshot);
    return TRUE;
}

gboolean snapshot_begin_image(Snapshot *snapshot, GError **errp)
{
    ImageWriter *writer = snapshot->output.writer;

    if (!output_begin(&snapshot->output, snapshot->head, errp)) {
        return FALSE;
    }
    if (snapshot->parent) {
        index_writer_set_parent(writer, snapshot->parent,
                                writer->format == IMAGE_FORMAT_INCREMENTAL);
    }
    return TRUE;
}

static void describe_heat(Snapshot *snapshot)
{
    for (guint i = 0; i < snapshot->ram->blocks->len; i++) {
        const GuestBlock *block = g_ptr_array_index(snapshot->ram->blocks, i);
        g_autofree guint32 *heat = g_new(guint32, block->regions);
        for (guint64 n = 0; n < block->regions; n++) {
            heat[n] = atomic_load_explicit(&block->heat[n], memory_order_relaxed);
        }
        image_index_builder_set_heat(snapshot->index, i, block->region_pages * block->page_size,
                                     heat, block->regions);
    }
}

static void describe_screen(Snapshot *snapshot)
{
    gsize length = 0;
    g_autofree guint8 *png = screen_to_png(snapshot->screen, &length);

    if (png) {
        image_index_builder_set_bytes(snapshot->index, INDEX_SCREEN, png, length);
    }
    sf_clear_fd(&snapshot->screen);
}

gboolean snapshot_finish_image(Snapshot *snapshot, GError **errp)
{
    ImageWriter *writer = snapshot->output.writer;
    SnapshotReport *report = snapshot->report;
    guint64 now = clock_now_ns();

    if (!writer->device_state(writer, snapshot->devices.data, snapshot->devices.length, errp)) {
        return FALSE;
    }
    report->total_ns = now - snapshot->began_ns;
    report->kept_bytes = index_writer_get_kept(writer);
    report->bytes_written = channel_get_bytes(snapshot->channel);
    g_autoptr(JsonNode) node = snapshot_report_to_json(report);
    g_autofree char *statistics = json_to_string(node, FALSE);
    image_index_builder_set_text(snapshot->index, INDEX_STATISTICS, statistics);
    image_index_builder_set_created(snapshot->index,
                                    g_get_real_time() - (gint64)((now - snapshot->t0_ns) / 1000));
    describe_heat(snapshot);
    describe_screen(snapshot);
    if (!writer->finish(writer, errp)) {
        return FALSE;
    }
    report->index_bytes = writer->trailer;
    report->bytes_written = channel_get_bytes(snapshot->channel);
    return TRUE;
}
