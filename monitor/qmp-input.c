/*
 * The client's side of QMP, cut as QEMU's JSON parser cuts it: strings in either quotes, braces and
 * brackets counted apart, and a lexical error brings it back to the start (the QMP specification
 * names that as the way to a known state). Where it stops counting, a message is judged.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qmp-input.h"

#include <string.h>

static gboolean is_structural(guint8 c)
{
    return c && strchr("{}[],:\"'", c) != NULL;
}

static gboolean is_space(guint8 c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* What may stand in a number or a keyword; which of them is whole, QEMU says. */
static gboolean is_word(guint8 c)
{
    return g_ascii_isdigit(c) || g_ascii_islower(c) || (c && strchr("+-.E", c));
}

/* Bytes that begin no UTF-8 sequence end a string as control characters do. */
static gboolean is_wrong_in_string(guint8 c)
{
    return c < 0x20 || c == 0xc0 || c == 0xc1 || c >= 0xf5;
}

static void reset(QmpInput *input)
{
    *input = (QmpInput){ .scanned = input->scanned };
}

gboolean qmp_input_is_inside(const QmpInput *input)
{
    return input->braces || input->brackets || input->quote;
}

/* FALSE at a lexical error. */
static gboolean take_in_string(QmpInput *input, guint8 c)
{
    if (is_wrong_in_string(c)) {
        return FALSE;
    }
    if (input->escaped) {
        input->escaped = FALSE;
    } else if (c == '\\') {
        input->escaped = TRUE;
    } else if (c == (guint8)input->quote) {
        input->quote = 0;
    }
    return TRUE;
}

static gboolean take_outside_string(QmpInput *input, guint8 c)
{
    input->braces += (c == '{') - (c == '}');
    input->brackets += (c == '[') - (c == ']');
    if (c == '"' || c == '\'') {
        input->quote = (char)c;
    }
    return is_structural(c) || is_space(c) || is_word(c);
}

/* Whether the parser would go on collecting after this byte. */
static gboolean is_collecting(const QmpInput *input)
{
    return input->quote || ((input->braces > 0 || input->brackets > 0) && input->braces >= 0 &&
                            input->brackets >= 0);
}

static QmpPiece end_piece(QmpInput *input, QmpPiece piece, gsize *length)
{
    *length = input->scanned;
    input->scanned = 0;
    return piece;
}

/* Up to the first byte that begins a message. */
static QmpPiece scan_fill(QmpInput *input, const char *data, gsize size, gsize *length)
{
    while (input->scanned < size) {
        guint8 c = (guint8)data[input->scanned];
        if (input->recovering && !is_space(c) && !is_structural(c)) {
            input->scanned++;
            continue;
        }
        input->recovering = FALSE;
        if (c == '{' || c == '[' || c == '"' || c == '\'') {
            break;
        }
        input->scanned++;
        input->recovering = !is_space(c) && !is_structural(c) && !is_word(c);
    }
    return end_piece(input, QMP_PIECE_FILL, length);
}

QmpPiece qmp_input_next(QmpInput *input, const char *data, gsize size, gsize *length)
{
    if (size > 0 && !qmp_input_is_inside(input) && input->scanned == 0 &&
        (input->recovering || !strchr("{[\"'", data[0]) || !data[0])) {
        return scan_fill(input, data, size, length);
    }
    while (input->scanned < size) {
        guint8 c = (guint8)data[input->scanned++];
        gboolean good = input->quote ? take_in_string(input, c) : take_outside_string(input, c);
        if (!good) {
            reset(input);
            input->recovering = TRUE;
            return end_piece(input, QMP_PIECE_FILL, length);
        }
        if (!is_collecting(input)) {
            reset(input);
            return end_piece(input, QMP_PIECE_MESSAGE, length);
        }
    }
    *length = size;
    return QMP_PIECE_NONE;
}

void qmp_input_drop(QmpInput *input)
{
    input->scanned = 0;
}
