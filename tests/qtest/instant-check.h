/*
 * Decides whether memory of the bare-metal guest (tests/guest/layout.h) is the memory of one
 * instant, and names the pages that are from before or after it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

#include "vm.h"

/* Guest-physical memory, as an image has it. */
typedef struct InstantMemory InstantMemory;

InstantMemory *instant_memory_new(void);
void instant_memory_free(InstantMemory *memory);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(InstantMemory, instant_memory_free)

/*
 * Says that guest-physical @address on, @length bytes, is the RAM block @block from @offset on.
 * @block is the name in the image, or the last part of it ("mem0" for "/objects/mem0").
 */
void instant_memory_map(InstantMemory *memory, guint64 address, guint64 length, const char *block,
                        guint64 offset);
/* Writes @length bytes at @address, within one page, and counts the page as present. */
void instant_memory_put(InstantMemory *memory, guint64 address, gconstpointer data, gsize length);
/* Fills it from the image @path, whose stream begins at @offset. */
gboolean instant_memory_load_image(InstantMemory *memory, const char *path, guint64 offset,
                                   GError **errp);
/* How many pages from @address on, @length bytes, are there once and hold nothing but @byte. */
guint64 instant_memory_count(InstantMemory *memory, guint64 address, guint64 length, guint8 byte);
/* Fills it from the running QEMU of @vm: no instant at all unless the guest stands still. */
void instant_memory_load_live(InstantMemory *memory, TestVm *vm);

typedef struct InstantResult {
    guint64 counter;  /* the instant: the number that was written last */
    guint64 pages;    /* looked at */
    guint64 early;    /* pages with content from before the instant */
    guint64 late;     /* ... from after it */
    guint64 torn;     /* parts from different times */
    guint64 missing;  /* not in the image */
    guint64 repeated; /* more than once in it: no fault, the last one counts */
    guint64 foreign;  /* words that the guest never wrote */
    GString *text;    /* what is wrong, with the first pages by address */
} InstantResult;

void instant_result_clear(InstantResult *result);

/* TRUE when all of it is from one instant. @result is filled in either case. */
gboolean instant_check(InstantMemory *memory, InstantResult *result);
/* The same, asserting, with the whole result as the message. Returns the instant. */
guint64 instant_check_assert(InstantMemory *memory);
/* Loads @path and asserts. @memory is mapped but still empty. */
guint64 instant_check_image(InstantMemory *memory, const char *path);
