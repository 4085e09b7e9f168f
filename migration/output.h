/*
 * The output thread: takes what the copiers put into the pool and feeds it to the image writer.
 * The only thread that waits for the destination. Private to migration/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "migration/image-writer.h"
#include "outcome.h"

typedef struct Output Output;

typedef struct OutputStats {
    guint64 zero_bytes;
    guint64 data_bytes;
} OutputStats;

/* Writes the head at once. Everything given must outlive it. */
Output *output_start(ImageWriter *writer, const ImageHead *head, BufferPool *pool, Outcome *outcome,
                     GError **errp);

/* Whether everything was written after buffer_pool_finish(), or an error ended it. Any thread. */
gboolean output_is_done(Output *output);

/* Bytes of guest memory handed to the writer so far. Any thread. */
guint64 output_get_saved(Output *output);
/* Those of them that were zero. Any thread. */
guint64 output_get_zero(Output *output);

/* Waits for the thread's end. After an error, the channel must have been interrupted. */
void output_stop(Output *output, OutputStats *stats);
