/*
 * Bytes onto a channel in order, where zeros become holes if the channel can have them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "migration/channel.h"

typedef struct SparseOutput {
    Channel *channel; /* not owned */
    guint64 written;  /* bytes, holes included */
} SparseOutput;

gboolean sparse_output_write(SparseOutput *output, const void *data, gsize length, GError **errp);
/* Zeros. */
gboolean sparse_output_skip(SparseOutput *output, guint64 length, GError **errp);
