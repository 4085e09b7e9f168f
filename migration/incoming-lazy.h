/*
 * A restore whose guest runs before its memory is read. Private to incoming*.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "attach/guardian.h"
#include "guest-ram.h"
#include "incoming-impl.h"
#include "lazy-service.h"
#include "lazy-supervisor.h"

typedef struct LazyRestore {
    ImagePlaces *places;
    Guardian *guardian;
    LazySupervisor *supervisor;
    GuestRam *ram;
    LazyRecord *record;
    LazyService *service;
    pid_t pid;
    int uffd;
    int pidfd;
} LazyRestore;

void lazy_restore_init(LazyRestore *lazy);
/* Whatever it has; QEMU keeps its own copy of the userfaultfd. */
void lazy_restore_clear(LazyRestore *lazy);

/* Where the pages are; may take one walk over the image, with progress. */
gboolean lazy_restore_index(LazyRestore *lazy, const IncomingOptions *options, ImageReader *reader,
                            const volatile int *cancel, GError **errp);
/*
 * Takes the memory of the waiting QEMU over: from here on nobody sees a page of it that the image
 * has not filled. Its guardian is forked here, so no thread may be there yet. SF_ERROR_UNSUPPORTED,
 * SF_ERROR_PERMISSION where that cannot be done; then QEMU is as it was.
 */
gboolean lazy_restore_attach(LazyRestore *lazy, const IncomingOptions *options,
                             const IncomingQemu *qemu, ImageReader *reader, GError **errp);
/* A file with the stream of all that is not to come later; the caller's. -1 with *errp. */
int lazy_restore_make_stream(LazyRestore *lazy, ImageReader *reader, guint64 *length,
                             GError **errp);
/*
 * Until everything is there, and what was ours is out of QEMU again. @qmp may be NULL. FALSE with
 * *waiting: QEMU is left as it is, and another server may go on.
 */
gboolean lazy_restore_serve(LazyRestore *lazy, const IncomingOptions *options, QmpClient *qmp,
                            const volatile int *cancel, IncomingReport *report, gboolean *waiting,
                            GError **errp);
