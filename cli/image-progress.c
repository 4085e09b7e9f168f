/*
 * The progress bar of work on images.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "image-progress.h"

#define REDRAW_US (50 * 1000)

static void show(guint64 done, guint64 total, gpointer user)
{
    ProgressBar *bar = user;

    if (!progress_bar_is_due(bar, REDRAW_US)) {
        return;
    }
    g_autofree char *done_text = g_format_size_full(done, G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *total_text = g_format_size_full(total, G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *text =
        total ? g_strdup_printf("%s of %s", done_text, total_text) : g_strdup(done_text);
    progress_bar_update(bar, total ? (double)done / (double)total : 0, text);
}

ProgressBar *image_progress_show(ImageProgress *progress)
{
    ProgressBar *bar = progress_bar_new();

    progress->show = show;
    progress->user = bar;
    return bar;
}
