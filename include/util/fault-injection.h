/*
 * Switches that force a fallback or an error, so that every one of them is reached in a test.
 * They exist only in builds configured with -Dfault_injection=true; in what users run each
 * condition is the constant FALSE and the compiler drops the branch.
 *
 * A test names the faults in the environment: STILLFRAME_FAULTS="no-wp-unpopulated,write-enospc=5".
 * Each name used in the code is listed in docs/devel/testing.md.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

#ifdef CONFIG_FAULT_INJECTION
/*
 * Whether the fault @name is switched on. With "name=N" it is FALSE for the first N - 1 calls and
 * TRUE from the Nth on. Thread-safe.
 */
gboolean fault_injected(const char *name);
/* The number behind "name=", or @otherwise where the fault is not switched on. Thread-safe. */
guint64 fault_value(const char *name, guint64 otherwise);
#else
#define fault_injected(name) (FALSE)
#define fault_value(name, otherwise) (otherwise)
#endif
