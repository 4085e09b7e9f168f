/*
 * What the parts of the judge share: instant-check.c (the vCPUs' pages), instant-smp.c (what they
 * saw of each other), instant-dma.c (what devices wrote). Private to them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "instant-check.h"
#include "tests/guest/layout.h"

typedef struct Judge {
    InstantMemory *memory;
    InstantResult *result;
    struct guest_state state[GUEST_MAX_CPUS];
    guint64 cpus;
    guint lines; /* complaints; the text has the first */
} Judge;

/* Anything that is wrong: the image is not one instant then. */
void judge_complain(Judge *judge, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* The page at @address; NULL, complaining, where it is missing. */
const guint64 *judge_get_page(Judge *judge, guint64 address);
/* Counts and complains: a page has number @found in place of @expected, all of it, or parts. */
void judge_wrong_page(Judge *judge, guint64 address, guint64 expected, guint64 found,
                      gboolean torn);

/* Nothing may be seen before it happened. After the vCPUs' pages were judged. */
void judge_what_was_seen(Judge *judge);
/* What the devices wrote; does nothing where the guest runs none. */
void judge_dma(Judge *judge);
