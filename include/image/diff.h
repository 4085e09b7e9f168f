/*
 * What differs between two images.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "image/progress.h"

/* What a page is in the second image compared with the first. The order is that of importance. */
typedef enum {
    DIFF_ABSENT,  /* in neither */
    DIFF_SAME,    /* */
    DIFF_ONLY_A,  /* */
    DIFF_ONLY_B,  /* */
    DIFF_CHANGED, /* in both, not the same */
    DIFF_STATES,
} DiffState;

/* A block of the first image, or of the second where the first has none of that name. */
typedef struct DiffBlock {
    char *name;
    guint64 pages;               /* of the larger one */
    guint8 *states;              /* DiffState of each page */
    guint64 counts[DIFF_STATES]; /* */
} DiffBlock;

typedef struct DiffReport {
    guint64 page_size;
    GPtrArray *blocks;       /* DiffBlock, owning; those of the first image first */
    gboolean devices_differ; /* the device sections are not the same bytes */
} DiffReport;

void diff_report_clear(DiffReport *report);

/*
 * Walks both, each once. 16 bytes of memory for each page that the first one has. SF_ERROR_MISMATCH
 * where their pages are not of one size.
 */
gboolean image_diff(ImageReader *a, ImageReader *b, const ImageProgress *progress,
                    DiffReport *report, GError **errp);
