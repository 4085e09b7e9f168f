/*
 * The test for zero pages: most pages with content show it in their first bytes, so the loop leaves
 * early, and its body is simple enough for the compiler to vectorise.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/zero.h"

gboolean buffer_is_zero(const void *data, gsize length)
{
    const guint64 *word = data;

    for (gsize i = 0; i < length / sizeof(*word); i += 8) {
        guint64 any = word[i] | word[i + 1] | word[i + 2] | word[i + 3] | word[i + 4] |
                      word[i + 5] | word[i + 6] | word[i + 7];
        if (any) {
            return FALSE;
        }
    }
    return TRUE;
}
