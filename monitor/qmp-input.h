/*
 * Cuts what a QMP client sends into the pieces in which QEMU's parser sees it: whole messages, and
 * everything else (space, garbage), which is passed on at once. For monitor/ and its tests only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

typedef enum {
    QMP_PIECE_NONE,    /* the beginning of a message: its end has not arrived */
    QMP_PIECE_MESSAGE, /* a whole object or array, as the parser counts brackets; it may be wrong */
    QMP_PIECE_FILL,    /* not the beginning of a message */
} QmpPiece;

/* Starts zeroed. */
typedef struct QmpInput {
    gsize scanned; /* of the data given */
    int braces;
    int brackets;
    char quote; /* in a string that ends with it; 0 = in none */
    gboolean escaped;
    gboolean recovering; /* behind a lexical error, until a character that begins a token */
} QmpInput;

/*
 * The first piece of @data. *length is its length; for NONE it is @length. The caller takes the
 * piece away and calls again; NONE it keeps, and calls again with more behind it.
 */
QmpPiece qmp_input_next(QmpInput *input, const char *data, gsize size, gsize *length);

/* The caller has taken away what it was given for NONE: the scan goes on in the middle. */
void qmp_input_drop(QmpInput *input);

/* Whether the scan stands inside a message. */
gboolean qmp_input_is_inside(const QmpInput *input);
