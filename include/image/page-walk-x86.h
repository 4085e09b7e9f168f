/*
 * Which virtual addresses an x86-64 guest has mapped: a walk over its page tables.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "image/cpu-x86.h"
#include "image/guest-pages.h"

/* A stretch of virtual addresses that is one stretch of RAM. */
typedef struct VirtualRange {
    guint64 address; /* virtual, canonical */
    guint64 physical;
    guint64 length;
} VirtualRange;

/*
 * The kernel's half of the address space (of a guest that has none: the other half), as the
 * processor sees it that has most of it mapped: GArray of VirtualRange, ascending, of RAM in
 * @ranges only. Empty where no processor has 64-bit paging on. At most @most ranges; tables are
 * the guest's, so loops and nonsense in them are no error.
 */
GArray *x86_walk_pages(const GuestPages *pages, const GArray *ranges, const GArray *cpus,
                       guint most);
