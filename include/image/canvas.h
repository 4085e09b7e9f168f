/*
 * A small picture: coloured cells, text in a font of 5 by 7 dots, written as PNG.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "migration/channel.h"

typedef struct Canvas Canvas;

#define CANVAS_GLYPH_WIDTH 6  /* of a character with the gap behind it, pixels */
#define CANVAS_GLYPH_HEIGHT 9 /* of a line of text */

/* All of colour @background (0xRRGGBB). */
Canvas *canvas_new(guint width, guint height, guint32 background);
void canvas_free(Canvas *canvas);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Canvas, canvas_free)

/* What is outside of the canvas is left out. */
void canvas_fill(Canvas *canvas, guint x, guint y, guint width, guint height, guint32 colour);
/* ASCII; other characters and those without a glyph are blank. Each dot is @scale pixels wide. */
void canvas_text(Canvas *canvas, guint x, guint y, guint scale, guint32 colour, const char *text);

/* Writes a PNG file. */
gboolean canvas_write(Canvas *canvas, Channel *channel, GError **errp);
