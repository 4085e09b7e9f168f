/*
 * For tests of what an old kernel has not got.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>
#include <stdio.h>
#include <sys/utsname.h>

/* Whether the kernel is older than 6.4; otherwise FALSE, after g_test_skip(). */
static inline gboolean test_need_kernel_before_6_4(void)
{
    struct utsname name;
    guint major, minor;

    g_assert_no_errno(uname(&name));
    g_assert_cmpint(sscanf(name.release, "%u.%u", &major, &minor), ==, 2);
    if (major > 6 || (major == 6 && minor >= 4)) {
        g_test_skip("this kernel is not before 6.4");
        return FALSE;
    }
    return TRUE;
}
