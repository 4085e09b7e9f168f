/*
 * From the copiers to the image writer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "output.h"

#include "clock.h"
#include "util/zero.h"

/* Faulted pages written at once; they are what gives the pool its memory back. */
#define SLOTS_AT_ONCE 128

gboolean output_begin(Output *output, const ImageHead *head, GError **errp)
{
    return output->writer->begin(output->writer, head, errp) && output_flush(output, errp);
}

gboolean output_flush(Output *output, GError **errp)
{
    return output->writer->flush(output->writer, errp);
}

void output_count(Output *output, guint64 bytes, guint64 zero_bytes)
{
    atomic_fetch_add_explicit(&output->zero, zero_bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&output->saved, bytes, memory_order_relaxed);
}

gboolean output_pages(Output *output, guint block, guint64 offset, const guint8 *data,
                      guint64 length, gboolean *zero, GError **errp)
{
    ImageWriter *writer = output->writer;
    guint64 pages = length / POOL_SLOT_SIZE;

    for (guint64 i = 0; i < pages; i++) {
        zero[i] = !data || buffer_is_zero(data + i * POOL_SLOT_SIZE, POOL_SLOT_SIZE);
    }
    for (guint64 i = 0, end; i < pages; i = end) {
        for (end = i + 1; end < pages && zero[end] == zero[i]; end++) {
        }
        guint64 at = i * POOL_SLOT_SIZE, bytes = (end - i) * POOL_SLOT_SIZE;
        if (!(zero[i] ? writer->zero(writer, block, offset + at, bytes, errp)
                      : writer->page(writer, block, offset + at, data + at, bytes, errp))) {
            return FALSE;
        }
    }
    return TRUE;
}

/* Who saved what follows, and when. */
static void note_source(Output *output, IndexSource source)
{
    output->writer->source = source;
    output->writer->when_ms = (guint32)((clock_now_ns() - output->t0_ns) / 1000000);
}

static gboolean write_slots(Output *output, const gint *slots, guint n, GError **errp)
{
    note_source(output, INDEX_BY_FAULT);
    for (guint i = 0; i < n; i++) {
        Extent extent = buffer_pool_slot_extent(output->pool, slots[i]);
        gboolean zero;
        if (!output_pages(output, extent.block, extent.offset, extent.data, extent.length, &zero,
                          errp)) {
            return FALSE;
        }
        output_count(output, extent.length, zero ? extent.length : 0);
    }
    return output_flush(output, errp);
}

static gboolean take_slots(Output *output, gboolean wait, GError **errp)
{
    gint slots[SLOTS_AT_ONCE];
    guint n;

    while ((n = buffer_pool_fetch(output->pool, slots, SLOTS_AT_ONCE, wait))) {
        gboolean good = write_slots(output, slots, n, errp);
        buffer_pool_return(output->pool, slots, n);
        if (!good) {
            return FALSE;
        }
    }
    note_source(output, INDEX_BY_SWEEP);
    return TRUE;
}

gboolean output_slots(Output *output, GError **errp)
{
    return take_slots(output, FALSE, errp);
}

gboolean output_slots_to_the_end(Output *output, GError **errp)
{
    return take_slots(output, TRUE, errp);
}

guint64 output_get_saved(Output *output)
{
    return atomic_load_explicit(&output->saved, memory_order_relaxed);
}

guint64 output_get_zero(Output *output)
{
    return atomic_load_explicit(&output->zero, memory_order_relaxed);
}
