/*
 * Writing guest memory as plain bytes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "image/raw-memory.h"

/* Pages between two looks at whether to stop. */
#define STEP_PAGES 256

static guint64 total_length(const GArray *ranges)
{
    guint64 total = 0;

    for (guint i = 0; i < ranges->len; i++) {
        total += g_array_index(ranges, GuestRange, i).length;
    }
    return total;
}

typedef struct RawWrite {
    const GuestPages *pages;
    SparseOutput *output;
    const ImageProgress *progress;
    guint64 done;
    guint64 total;
} RawWrite;

static gboolean write_range(RawWrite *raw, const GuestRange *range, GError **errp)
{
    gsize size = guest_pages_get_size(raw->pages);
    guint64 first = range->offset / size;
    guint64 count = range->length / size;

    for (guint64 i = 0; i < count; i++) {
        const guint8 *data = guest_pages_get(raw->pages, range->block, first + i, NULL);
        if (i % STEP_PAGES == 0 &&
            !image_progress_step(raw->progress, raw->done, raw->total, errp)) {
            return FALSE;
        }
        if (!(data ? sparse_output_write(raw->output, data, size, errp)
                   : sparse_output_skip(raw->output, size, errp))) {
            return FALSE;
        }
        raw->done += size;
    }
    return TRUE;
}

gboolean guest_ranges_write(const GuestPages *pages, const GArray *ranges, SparseOutput *output,
                            const ImageProgress *progress, GError **errp)
{
    RawWrite raw = { pages, output, progress, 0, total_length(ranges) };

    for (guint i = 0; i < ranges->len; i++) {
        if (!write_range(&raw, &g_array_index(ranges, GuestRange, i), errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

gboolean raw_memory_write(const GuestPages *pages, const GArray *ranges, SparseOutput *output,
                          const ImageProgress *progress, GError **errp)
{
    RawWrite raw = { pages, output, progress, 0, total_length(ranges) };
    guint64 at = 0;

    for (guint i = 0; i < ranges->len; i++) {
        const GuestRange *range = &g_array_index(ranges, GuestRange, i);
        if (!sparse_output_skip(output, range->address - at, errp) ||
            !write_range(&raw, range, errp)) {
            return FALSE;
        }
        at = range->address + range->length;
    }
    return TRUE;
}
