/*
 * Fuzzes what cuts QMP messages out of a stream of bytes: our side as a client, and the proxy's as
 * a server. Where the pieces of data end must make no difference.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "../../monitor/qmp-input.h"
#include "../../monitor/qmp-internal.h"
#include "fuzz.h"

/* The length of the first message when the data comes in pieces of @step. */
static gsize frame(const char *data, gsize size, gsize step)
{
    QmpFramer framer = { 0 };
    gsize found = 0;

    for (gsize there = MIN(step, size);; there = MIN(there + step, size)) {
        found = qmp_framer_scan(&framer, data, there);
        g_assert_cmpuint(found, <=, there);
        if (found || there == size) {
            return found;
        }
    }
}

/* All pieces, which are the whole data again. */
static void cut(const char *data, gsize size)
{
    QmpInput input = { 0 };
    gsize at = 0;
    guint idle = 0;

    while (at < size) {
        gsize length = 0;
        QmpPiece piece = qmp_input_next(&input, data + at, size - at, &length);
        /* Where it recovers it may take one look more. */
        idle = length ? 0 : idle + 1;
        g_assert_cmpuint(idle, <=, 1);
        g_assert_cmpuint(length, <=, size - at);
        if (piece == QMP_PIECE_NONE) {
            g_assert_cmpuint(length, ==, size - at);
            qmp_input_drop(&input);
        }
        at += length;
    }
}

int LLVMFuzzerTestOneInput(const guint8 *data, gsize size)
{
    /* A copy that ends where the data ends, for the sanitizer. */
    g_autofree char *text = g_memdup2(data, size);

    if (!size) {
        return 0;
    }
    gsize whole = frame(text, size, size);
    g_assert_cmpuint(frame(text, size, 1), ==, whole);
    g_assert_cmpuint(frame(text, size, 7), ==, whole);
    cut(text, size);
    return 0;
}
