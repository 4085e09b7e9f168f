/*
 * Finds the end of a QMP message in what has arrived so far.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qmp-internal.h"

gsize qmp_framer_scan(QmpFramer *framer, const char *data, gsize length)
{
    for (; framer->scanned < length; framer->scanned++) {
        char c = data[framer->scanned];
        if (framer->in_string) {
            if (framer->escaped) {
                framer->escaped = FALSE;
            } else if (c == '\\') {
                framer->escaped = TRUE;
            } else if (c == '"') {
                framer->in_string = FALSE;
            }
        } else if (c == '"') {
            framer->in_string = TRUE;
        } else if (c == '{' || c == '[') {
            framer->depth++;
        } else if ((c == '}' || c == ']') && framer->depth > 0 && --framer->depth == 0) {
            return ++framer->scanned;
        }
    }
    return 0;
}
