/*
 * Guest-physical memory as an image has it, and the device sections beside it: what the judge
 * (instant-check.h) looks at.
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
/* Puts other bytes there, within one page, which is not counted again. */
void instant_memory_replace(InstantMemory *memory, guint64 address, gconstpointer data,
                            gsize length);
/* Fills it from the image @path, whose stream begins at @offset. */
gboolean instant_memory_load_image(InstantMemory *memory, const char *path, guint64 offset,
                                   GError **errp);
/* How many pages from @address on, @length bytes, are there and hold nothing but @byte, in their
 * last record. */
guint64 instant_memory_count(InstantMemory *memory, guint64 address, guint64 length, guint8 byte);
/* Fills it from the running QEMU of @vm: no instant at all unless the guest stands still. */
void instant_memory_load_live(InstantMemory *memory, TestVm *vm);

/* The page's words, or NULL where nothing put it; *times: how often it was put. */
const guint64 *instant_memory_get_page(InstantMemory *memory, guint64 address, guint *times);
/* Copies @length bytes from @address on; FALSE where a page of them is missing. */
gboolean instant_memory_read(InstantMemory *memory, guint64 address, gpointer to, gsize length);

/* Adds bytes to the device sections; the image's come by instant_memory_load_image(). */
void instant_memory_put_device_state(InstantMemory *memory, gconstpointer data, gsize length);
/* How often the device sections hold @pattern; what stands behind the last place, owned by it. */
guint instant_memory_find_device_state(InstantMemory *memory, gconstpointer pattern, gsize length,
                                       const guint8 **behind, gsize *left);
