/*
 * The output thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "output.h"

#include "util/zero.h"

/* Faulted pages written at once; they are what gives the pool its memory back. */
#define SLOTS_AT_ONCE 128

struct Output {
    GThread *thread;
    ImageWriter *writer;
    BufferPool *pool;
    Outcome *outcome;
    OutputStats stats;
    _Atomic guint64 saved;
    _Atomic guint64 zero;
    atomic_bool done;
};

static gboolean write_extent(Output *output, const Extent *extent, GError **errp)
{
    ImageWriter *writer = output->writer;

    if (!extent->data) {
        output->stats.zero_bytes += extent->length;
        return writer->zero(writer, extent->block, extent->offset, extent->length, errp);
    }
    output->stats.data_bytes += extent->length;
    return writer->page(writer, extent->block, extent->offset, extent->data, extent->length, errp);
}

/* A fault thread has no time to look whether its page is zero: that is done here. */
static gboolean write_slots(Output *output, const gint *slots, guint n, GError **errp)
{
    for (guint i = 0; i < n; i++) {
        Extent extent = buffer_pool_slot_extent(output->pool, slots[i]);
        if (buffer_is_zero(extent.data, extent.length)) {
            extent.data = NULL;
        }
        if (!write_extent(output, &extent, errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean write_batch(Output *output, const Batch *batch, GError **errp)
{
    for (guint i = 0; batch && i < batch->count; i++) {
        if (!write_extent(output, &batch->extent[i], errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

static gpointer output_thread(gpointer data)
{
    Output *output = data;
    gint slots[SLOTS_AT_ONCE];
    guint n_slots;
    Batch *batch;

    while (buffer_pool_fetch(output->pool, slots, SLOTS_AT_ONCE, &n_slots, &batch)) {
        GError *error = NULL;
        gboolean good = write_slots(output, slots, n_slots, &error) &&
                        write_batch(output, batch, &error) &&
                        output->writer->flush(output->writer, &error);
        buffer_pool_return(output->pool, slots, n_slots, batch);
        if (!good) {
            outcome_fail(output->outcome, error);
        }
        atomic_store_explicit(&output->zero, output->stats.zero_bytes, memory_order_relaxed);
        atomic_store_explicit(&output->saved, output->stats.zero_bytes + output->stats.data_bytes,
                              memory_order_relaxed);
    }
    atomic_store_explicit(&output->done, TRUE, memory_order_release);
    return NULL;
}

Output *output_start(ImageWriter *writer, const ImageHead *head, BufferPool *pool, Outcome *outcome,
                     GError **errp)
{
    if (!writer->begin(writer, head, errp) || !writer->flush(writer, errp)) {
        return NULL;
    }
    g_autofree Output *output = g_new0(Output, 1);
    output->writer = writer;
    output->pool = pool;
    output->outcome = outcome;
    output->thread = g_thread_try_new("sf-output", output_thread, output, errp);
    return output->thread ? g_steal_pointer(&output) : NULL;
}

gboolean output_is_done(Output *output)
{
    return atomic_load_explicit(&output->done, memory_order_acquire);
}

guint64 output_get_saved(Output *output)
{
    return atomic_load_explicit(&output->saved, memory_order_relaxed);
}

guint64 output_get_zero(Output *output)
{
    return atomic_load_explicit(&output->zero, memory_order_relaxed);
}

void output_stop(Output *output, OutputStats *stats)
{
    g_thread_join(output->thread);
    if (stats) {
        *stats = output->stats;
    }
    g_free(output);
}
