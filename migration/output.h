/*
 * The output: what has been copied on its way into the image writer, zero pages told apart. Used by
 * the sweep thread alone while that runs; the only code that waits for the destination. Private to
 * migration/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <stdatomic.h>

#include "buffer-pool.h"
#include "migration/image-writer.h"

typedef struct Output {
    ImageWriter *writer;
    BufferPool *pool;
    guint64 t0_ns;         /* that the image's times count from, CLOCK_MONOTONIC */
    _Atomic guint64 saved; /* bytes of guest memory handed to the writer */
    _Atomic guint64 zero;  /* those of them that were zero */
} Output;

/* Writes the image's head. */
gboolean output_begin(Output *output, const ImageHead *head, GError **errp);

/*
 * Hands over @length bytes of a block, a multiple of POOL_SLOT_SIZE; @data (NULL: all zero) stays
 * where it is until output_flush(). zero[i] tells of each POOL_SLOT_SIZE whether it was zero. Not
 * counted as saved: that is output_count()'s, when it is known that the image keeps it.
 */
gboolean output_pages(Output *output, guint block, guint64 offset, const guint8 *data,
                      guint64 length, gboolean *zero, GError **errp);
gboolean output_flush(Output *output, GError **errp);
void output_count(Output *output, guint64 bytes, guint64 zero_bytes);

/* Writes the faulted pages that wait in the pool, and gives their slots back. */
gboolean output_slots(Output *output, GError **errp);
/* The same until the pool is finished and empty, or closed. */
gboolean output_slots_to_the_end(Output *output, GError **errp);

/* Bytes of guest memory saved so far. Any thread. */
guint64 output_get_saved(Output *output);
/* Those of them that were zero. Any thread. */
guint64 output_get_zero(Output *output);
