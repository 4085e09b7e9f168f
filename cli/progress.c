/*
 * The progress bar.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BAR_WIDTH 24
#define WIDTH_DEFAULT 80

struct ProgressBar {
    gboolean shown;
    gboolean drawn;
    gint64 drawn_us;
};

ProgressBar *progress_bar_new(void)
{
    ProgressBar *bar = g_new0(ProgressBar, 1);
    const char *term = g_getenv("TERM");
    bar->shown = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
    return bar;
}

gboolean progress_bar_is_due(ProgressBar *bar, gint64 every_us)
{
    return bar->shown && g_get_monotonic_time() - bar->drawn_us >= every_us;
}

static int terminal_width(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col
                                                                       : WIDTH_DEFAULT;
}

void progress_bar_update(ProgressBar *bar, double share, const char *text)
{
    if (!bar->shown) {
        return;
    }
    char cells[BAR_WIDTH + 1];
    int filled = (int)(CLAMP(share, 0.0, 1.0) * BAR_WIDTH);
    memset(cells, '#', (gsize)filled);
    memset(cells + filled, '.', (gsize)(BAR_WIDTH - filled));
    cells[BAR_WIDTH] = '\0';
    /* "\r" goes back, "\033[K" wipes what a longer line left; one column stays free of wrapping. */
    int room = MAX(terminal_width() - BAR_WIDTH - 9, 0);
    fprintf(stderr, "\r[%s] %3d%% %.*s\033[K", cells, (int)(CLAMP(share, 0.0, 1.0) * 100), room,
            text);
    fflush(stderr);
    bar->drawn = TRUE;
    bar->drawn_us = g_get_monotonic_time();
}

void progress_bar_finish(ProgressBar *bar)
{
    if (bar->drawn) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
        bar->drawn = FALSE;
    }
}

void progress_bar_free(ProgressBar *bar)
{
    if (bar) {
        progress_bar_finish(bar);
        g_free(bar);
    }
}
