/*
 * Traps the writes to a piece of this process's own memory, as the engine traps a guest's: protect,
 * take the fault, let the writer wait, release.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "check-memory.h"

typedef struct Trap Trap;

typedef enum {
    TRAP_FOR_KERNEL = 1 << 0, /* faults that happen in the kernel, as KVM's do, must be trapped */
    /*
     * They must not: the kernel answers them as it answered a fault's second try before 5.7, with
     * SIGBUS, which is EFAULT to whoever called KVM_RUN. For tests.
     */
    TRAP_REFUSES_KERNEL = 1 << 1,
} TrapFlags;

/*
 * Opens a userfaultfd for @memory, which must outlive the trap, registers it and starts the thread
 * that serves its faults. @features is what the kernel has, or is to be taken to have.
 * SF_ERROR_PERMISSION where TRAP_FOR_KERNEL is asked and not allowed to this user,
 * SF_ERROR_UNSUPPORTED where a feature is missing.
 */
Trap *trap_new(CheckMemory *memory, guint64 features, TrapFlags flags, GError **errp);
/*
 * Protects all of the memory. Writers may be running. Without WP_UNPOPULATED the holes of anonymous
 * memory are read first, as the engine does it.
 */
gboolean trap_arm(Trap *trap, GError **errp);
/*
 * How each fault is served from now on: the writer is woken @retries times while its page is still
 * protected, so that the kernel has to try the fault again, and then the release is @hold_us late.
 */
void trap_set_service(Trap *trap, guint retries, guint hold_us);
/* Pages released so far. Any thread. */
guint64 trap_get_releases(Trap *trap);
/* Tries of a fault so far that were answered with a wake alone. Any thread. */
guint64 trap_get_retries(Trap *trap);
/* What went wrong while faults were served; NULL = nothing. A constant. Any thread. */
const char *trap_get_problem(Trap *trap);
/* Ends the service and drops all protection. NULL is allowed. */
void trap_free(Trap *trap);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Trap, trap_free)
