/*
 * Where RAM lies in the guest's physical address space.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "monitor/qmp.h"

/* A piece of one memory region. */
typedef struct MemoryPiece {
    char *region; /* QEMU's name of it; the RAM block's is this, or a device's path, '/' and this */
    guint64 address;
    guint64 length;
    guint64 offset; /* in the region */
} MemoryPiece;

void memory_piece_free(MemoryPiece *piece);

/*
 * Takes RAM and ROM of the address space "memory" out of the text of "info mtree -f", of any QEMU
 * from 7.2 on. Array of MemoryPiece, owning, by ascending address; lines that say nothing about
 * RAM, or make no sense, are left out.
 */
GPtrArray *memory_map_parse(const char *text);
/* Asks for it. */
GPtrArray *machine_query_memory_map(QmpClient *qmp, GError **errp);
/* Whether a RAM block of this name is of that region. */
gboolean memory_piece_is_of_block(const MemoryPiece *piece, const char *block);
