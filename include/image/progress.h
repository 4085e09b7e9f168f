/*
 * What long work on images tells, and how it is told to stop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "migration/image-reader.h"

typedef struct ImageProgress {
    const volatile int *cancel; /* not 0: stop; may be NULL */
    /* @done of @total bytes, @total 0 where unknown; may be NULL. Called often: be quick. */
    void (*show)(guint64 done, guint64 total, gpointer user);
    gpointer user;
} ImageProgress;

/* Shows how far the walk of @reader is. FALSE with SF_ERROR_CANCELLED where it is to stop. */
gboolean image_progress_walk(const ImageProgress *progress, ImageReader *reader, GError **errp);
/* The same for work that counts by itself. */
gboolean image_progress_step(const ImageProgress *progress, guint64 done, guint64 total,
                             GError **errp);
