/*
 * A progress bar on a terminal; silent anywhere else.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

typedef struct ProgressBar ProgressBar;

/* Shows itself only when standard error is a terminal. */
ProgressBar *progress_bar_new(void);
/* Whether the last drawing is @every_us microseconds ago; FALSE where nothing is shown. */
gboolean progress_bar_is_due(ProgressBar *bar, gint64 every_us);
/* Draws @share (0 to 1; cut to that) and @text over the last line. Cheap where nothing is shown. */
void progress_bar_update(ProgressBar *bar, double share, const char *text);
/* Wipes the line, so that what follows begins at its left edge. May be called twice. */
void progress_bar_finish(ProgressBar *bar);
/* Finishes and frees. NULL is allowed. */
void progress_bar_free(ProgressBar *bar);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ProgressBar, progress_bar_free)
