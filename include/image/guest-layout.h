/*
 * Where RAM lies for the guest: which guest-physical addresses are which part of which RAM block.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "migration/image-writer.h"

typedef struct GuestRange {
    guint64 address; /* guest-physical */
    guint64 length;  /* bytes */
    guint block;     /* index in the head */
    guint64 offset;  /* in the block */
} GuestRange;

/*
 * The ranges of an x86 machine, ascending: GArray of GuestRange. The sizes below and above the PCI
 * hole are those that QEMU tells the firmware in the CMOS, which the device sections @devices hold;
 * where there is no clock (microvm may have none), those of the machine type. DIMMs that were
 * plugged in are not told and not among them. SF_ERROR_UNSUPPORTED where the blocks do not add up
 * or the machine is another.
 */
GArray *guest_layout_x86(const ImageHead *head, const guint8 *devices, gsize length, GError **errp);

/* The range with @address, or NULL. */
const GuestRange *guest_layout_find(const GArray *ranges, guint64 address);
