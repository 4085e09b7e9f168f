/*
 * The pages of an image by their addresses: a table made in one walk, for those who need pages in
 * another order than the image has them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "image/guest-layout.h"
#include "image/progress.h"
#include "migration/image-reader.h"

typedef struct GuestPages GuestPages;

/*
 * Walks @reader, which must be mapped (image_reader_map()) and outlive the table. 8 bytes of memory
 * for each page that has been looked at. A page that comes twice counts as it came last, as a
 * loader has it.
 */
GuestPages *guest_pages_load(ImageReader *reader, const ImageProgress *progress, GError **errp);
void guest_pages_free(GuestPages *pages);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(GuestPages, guest_pages_free)

/*
 * Target page @page of block @block: its bytes, or NULL for zeros; *missing (may be NULL) is TRUE
 * where the image does not have it. Both in range.
 */
const guint8 *guest_pages_get(const GuestPages *pages, guint block, guint64 page,
                              gboolean *missing);
/*
 * For a second walk of the same reader: whether the record of @page with @data (NULL: zeros) is the
 * one that counts. TRUE once for each page, which is missing in the table from then on.
 */
gboolean guest_pages_take(GuestPages *pages, guint block, guint64 page, const guint8 *data);
/* Bytes of a target page. */
gsize guest_pages_get_size(const GuestPages *pages);

/*
 * Copies @length bytes of guest-physical memory at @address into @buffer. FALSE where some of it is
 * no RAM.
 */
gboolean guest_pages_read(const GuestPages *pages, const GArray *ranges, guint64 address,
                          void *buffer, gsize length);
