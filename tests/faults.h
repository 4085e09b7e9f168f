/*
 * For tests that switch faults on (docs/devel/testing.md): they are skipped, not lost, in a build
 * that has no switches.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

/* FALSE, after g_test_skip(), where STILLFRAME_FAULTS has no effect. */
static inline gboolean test_need_faults(void)
{
#ifdef CONFIG_FAULT_INJECTION
    return TRUE;
#else
    g_test_skip("built without -Dfault_injection=true");
    return FALSE;
#endif
}
