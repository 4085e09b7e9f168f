/*
 * Progress and cancelling of long work on images.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "image/progress.h"

gboolean image_progress_step(const ImageProgress *progress, guint64 done, guint64 total,
                             GError **errp)
{
    if (progress->cancel && *progress->cancel) {
        g_set_error(errp, SF_ERROR, SF_ERROR_CANCELLED, "cancelled");
        return FALSE;
    }
    if (progress->show) {
        progress->show(done, total, progress->user);
    }
    return TRUE;
}

gboolean image_progress_walk(const ImageProgress *progress, ImageReader *reader, GError **errp)
{
    guint64 done, total;

    image_reader_get_progress(reader, &done, &total);
    return image_progress_step(progress, done, total, errp);
}
