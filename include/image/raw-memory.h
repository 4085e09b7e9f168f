/*
 * Guest memory as plain bytes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "image/guest-pages.h"
#include "image/sparse-output.h"

/* RAM range behind range, without gaps. Pages that are zero or missing become holes. */
gboolean guest_ranges_write(const GuestPages *pages, const GArray *ranges, SparseOutput *output,
                            const ImageProgress *progress, GError **errp);

/* RAM with each byte at its guest-physical address; what is no RAM becomes a hole. */
gboolean raw_memory_write(const GuestPages *pages, const GArray *ranges, SparseOutput *output,
                          const ImageProgress *progress, GError **errp);
