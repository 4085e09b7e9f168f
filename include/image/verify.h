/*
 * Whether an image is what was written: its structure, and each page against its hash.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "image/progress.h"

/* A page that is not as the index has it. */
typedef struct VerifyBadPage {
    guint block;
    guint64 page;
    const char *why; /* static */
} VerifyBadPage;

typedef struct VerifyReport {
    gboolean by_hash;       /* there is an index; otherwise only the structure was looked at */
    guint64 pages;          /* that the image has */
    guint64 bad_pages;      /* all of them */
    GArray *bad;            /* VerifyBadPage, the first VERIFY_BAD_MAX, by block and page */
    gboolean devices_wrong; /* the device sections are not those of the index */
    double seconds;
} VerifyReport;

#define VERIFY_BAD_MAX 1000

void verify_report_clear(VerifyReport *report);

/*
 * Walks @reader and hashes its pages in @threads threads (0: one for each processor). FALSE, with
 * *errp, where the structure is broken or it was cancelled; TRUE with bad_pages or devices_wrong
 * where it is whole but not as it was written.
 */
gboolean image_verify(ImageReader *reader, guint threads, const ImageProgress *progress,
                      VerifyReport *report, GError **errp);
