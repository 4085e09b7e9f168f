/*
 * Decides whether memory of the bare-metal guest (tests/guest/layout.h) is the memory of one
 * instant, and names the pages that are from before or after it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "instant-memory.h"

typedef struct InstantResult {
    guint64 counter;  /* the instant: the number that the first vCPU wrote last */
    guint64 cpus;     /* that write */
    guint64 requests; /* that devices are done with */
    guint64 pages;    /* looked at */
    guint64 early;    /* pages with content from before the instant */
    guint64 late;     /* ... from after it */
    guint64 torn;     /* parts from different times */
    guint64 missing;  /* not in the image */
    guint64 repeated; /* more than once in it: no fault, the last one counts */
    guint64 foreign;  /* words that the guest never wrote */
    guint64 effects;  /* things seen before they happened: by another vCPU, by a device */
    GString *text;    /* what is wrong, with the first pages by address */
} InstantResult;

void instant_result_clear(InstantResult *result);

/* TRUE when all of it is from one instant. @result is filled in either case. */
gboolean instant_check(InstantMemory *memory, InstantResult *result);
/* The same, asserting, with the whole result as the message. Returns the instant. */
guint64 instant_check_assert(InstantMemory *memory);
/* Loads @path and asserts. @memory is mapped but still empty. */
guint64 instant_check_image(InstantMemory *memory, const char *path);
