/*
 * How guest-ram.c's second half, guest-read.c, is set up. Private to migration/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "guest-ram.h"

/* What the sweep copies in one go: small enough to stay in a core's second-level cache. */
#define SWEEP_PIECE (256ULL << 10)

/* Opens QEMU's page map and finds out how much of it this process may see. */
gboolean guest_read_open(GuestRam *ram, GError **errp);

/* Whether there is memory behind an address in the page tables of QEMU, or in our @own. */
gboolean guest_read_is_mapped(GuestRam *ram, gboolean own, guint64 address, gboolean *mapped,
                              GError **errp);

/*
 * Whether a page of a private mapping of a file is a copy of QEMU's own, present or swapped out,
 * and no more the file's.
 */
gboolean guest_read_is_copy(GuestRam *ram, GuestBlock *block, guint64 page, gboolean *copy,
                            GError **errp);
