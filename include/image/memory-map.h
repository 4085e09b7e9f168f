/*
 * A picture of guest memory: what each part of it is, at a glance.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "image/canvas.h"
#include "image/diff.h"

/* What a page is; where one dot stands for several, the last of these counts. */
typedef enum {
    MAP_ABSENT,  /* not in the image */
    MAP_ZERO,    /* zeros */
    MAP_DATA,    /* content; it is not known who saved it */
    MAP_SWEEP,   /* saved by the sweep */
    MAP_FAULT,   /* saved because the guest wrote to it */
    MAP_HOT,     /* in a part that the guest wrote to more than to most others */
    MAP_CHANGED, /* not as in the parent */
    MAP_STATES,
} MapState;

typedef struct MemoryMapReport {
    guint64 counts[MAP_STATES]; /* pages */
    guint width;                /* of the picture, pixels */
    guint height;
} MemoryMapReport;

/*
 * The picture of @reader's memory. @parent may be NULL: then pages that the image itself says are
 * not the parent's count as changed.
 */
Canvas *memory_map_draw(ImageReader *reader, ImageReader *parent, const ImageProgress *progress,
                        MemoryMapReport *report, GError **errp);
