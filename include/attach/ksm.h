/*
 * Keeping the kernel's page merging (KSM) off for a while. A page that ksmd merges loses its
 * userfaultfd write protection: its new entry is made from nothing but the mapping's own rights
 * (replace_page() in mm/ksm.c, seen on Linux 6.18), and the next write to it is not reported.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>
#include <sys/types.h>

#include "util/error.h"

typedef struct KsmHold KsmHold;

/*
 * Sees to it that KSM merges no page from now on. What is merged stays so. Where it runs,
 * /sys/kernel/mm/ksm/run is set to 0, and a small process, forked here, sets it to 1 again when the
 * hold ends or the caller is gone, unless another process still has such a hold. To be called
 * before any thread is created. *errp with NULL: KSM runs, may merge pages of @pid, and may not be
 * switched off by us (SF_ERROR_PERMISSION, with the remedy).
 */
KsmHold *ksm_hold_new(pid_t pid, GError **errp);

/* FALSE, with the reason, when KSM has run since ksm_hold_new() after all. */
gboolean ksm_hold_check(KsmHold *hold, GError **errp);

/* Ends it, and returns when KSM has been set back. NULL is allowed. */
void ksm_hold_free(KsmHold *hold);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(KsmHold, ksm_hold_free)
