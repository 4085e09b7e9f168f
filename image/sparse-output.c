/*
 * Ordered output with holes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "image/sparse-output.h"

gboolean sparse_output_write(SparseOutput *output, const void *data, gsize length, GError **errp)
{
    struct iovec iov = { (void *)data, length };

    output->written += length;
    return channel_writev(output->channel, &iov, 1, errp);
}

gboolean sparse_output_skip(SparseOutput *output, guint64 length, GError **errp)
{
    output->written += length;
    return channel_skip(output->channel, length, errp);
}
