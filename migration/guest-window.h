/*
 * A window onto shared guest memory: our own mapping of its file, a region at a time, so that pages
 * go from the page cache to the destination without a copy in between. Looking through it never
 * fills a hole of the file. Private to migration/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "guest-ram.h"

typedef struct GuestWindow GuestWindow;

/*
 * NULL where this process gets no userfaultfd that sees the kernel's own faults: memory is then
 * read by guest_block_read(), which is slower and needs none.
 */
GuestWindow *guest_window_new(void);
void guest_window_free(GuestWindow *window);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(GuestWindow, guest_window_free)

/*
 * Opens it onto pages of a block and closes what was open before. FALSE where that cannot be, or
 * the block is not shared memory of normal pages; nothing is open then. @window may be NULL.
 */
gboolean guest_window_open(GuestWindow *window, GuestBlock *block, guint64 first, guint64 count);

/*
 * The bytes of a page that is open, or NULL. They are the guest's: they change when it writes.
 * @count pages from there on are made ready to be read.
 */
const guint8 *guest_window_look(GuestWindow *window, GuestBlock *block, guint64 first,
                                guint64 count);

/* How often a hole was met so far: what was read there was zero bytes of nobody. */
guint64 guest_window_get_holes(GuestWindow *window);
