/*
 * Cells, text, PNG.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <png.h>
#include <string.h>

#include "image/canvas.h"

#define GLYPH_COLUMNS 5
#define GLYPH_ROWS 7

struct Canvas {
    guint width;
    guint height;
    guint8 *pixels; /* red, green, blue */
};

/* Five columns each, the lowest bit on top. */
typedef struct Glyph {
    char character;
    guint8 columns[GLYPH_COLUMNS];
} Glyph;

static const Glyph glyphs[] = {
    { '0', { 0x3e, 0x51, 0x49, 0x45, 0x3e } }, { '1', { 0x00, 0x42, 0x7f, 0x40, 0x00 } },
    { '2', { 0x42, 0x61, 0x51, 0x49, 0x46 } }, { '3', { 0x21, 0x41, 0x45, 0x4b, 0x31 } },
    { '4', { 0x18, 0x14, 0x12, 0x7f, 0x10 } }, { '5', { 0x27, 0x45, 0x45, 0x45, 0x39 } },
    { '6', { 0x3c, 0x4a, 0x49, 0x49, 0x30 } }, { '7', { 0x01, 0x71, 0x09, 0x05, 0x03 } },
    { '8', { 0x36, 0x49, 0x49, 0x49, 0x36 } }, { '9', { 0x06, 0x49, 0x49, 0x29, 0x1e } },
    { 'a', { 0x20, 0x54, 0x54, 0x54, 0x78 } }, { 'b', { 0x7f, 0x48, 0x44, 0x44, 0x38 } },
    { 'c', { 0x38, 0x44, 0x44, 0x44, 0x28 } }, { 'd', { 0x38, 0x44, 0x44, 0x48, 0x7f } },
    { 'e', { 0x38, 0x54, 0x54, 0x54, 0x18 } }, { 'f', { 0x08, 0x7e, 0x09, 0x01, 0x02 } },
    { 'g', { 0x08, 0x54, 0x54, 0x54, 0x3c } }, { 'h', { 0x7f, 0x08, 0x04, 0x04, 0x78 } },
    { 'i', { 0x00, 0x44, 0x7d, 0x40, 0x00 } }, { 'j', { 0x20, 0x40, 0x44, 0x3d, 0x00 } },
    { 'k', { 0x7f, 0x10, 0x28, 0x44, 0x00 } }, { 'l', { 0x00, 0x41, 0x7f, 0x40, 0x00 } },
    { 'm', { 0x7c, 0x04, 0x18, 0x04, 0x78 } }, { 'n', { 0x7c, 0x08, 0x04, 0x04, 0x78 } },
    { 'o', { 0x38, 0x44, 0x44, 0x44, 0x38 } }, { 'p', { 0x7c, 0x14, 0x14, 0x14, 0x08 } },
    { 'q', { 0x08, 0x14, 0x14, 0x14, 0x7c } }, { 'r', { 0x7c, 0x08, 0x04, 0x04, 0x08 } },
    { 's', { 0x48, 0x54, 0x54, 0x54, 0x20 } }, { 't', { 0x04, 0x3f, 0x44, 0x40, 0x20 } },
    { 'u', { 0x3c, 0x40, 0x40, 0x20, 0x7c } }, { 'v', { 0x1c, 0x20, 0x40, 0x20, 0x1c } },
    { 'w', { 0x3c, 0x40, 0x30, 0x40, 0x3c } }, { 'x', { 0x44, 0x28, 0x10, 0x28, 0x44 } },
    { 'y', { 0x0c, 0x50, 0x50, 0x50, 0x3c } }, { 'z', { 0x44, 0x64, 0x54, 0x4c, 0x44 } },
    { 'K', { 0x7f, 0x08, 0x14, 0x22, 0x41 } }, { 'M', { 0x7f, 0x02, 0x0c, 0x02, 0x7f } },
    { 'G', { 0x3e, 0x41, 0x49, 0x49, 0x7a } }, { 'T', { 0x01, 0x01, 0x7f, 0x01, 0x01 } },
    { 'B', { 0x7f, 0x49, 0x49, 0x49, 0x36 } }, { 'R', { 0x7f, 0x09, 0x19, 0x29, 0x46 } },
    { 'A', { 0x7e, 0x11, 0x11, 0x11, 0x7e } }, { ':', { 0x00, 0x36, 0x36, 0x00, 0x00 } },
    { '.', { 0x00, 0x60, 0x60, 0x00, 0x00 } }, { ',', { 0x00, 0x50, 0x30, 0x00, 0x00 } },
    { '/', { 0x20, 0x10, 0x08, 0x04, 0x02 } }, { '-', { 0x08, 0x08, 0x08, 0x08, 0x08 } },
    { '_', { 0x40, 0x40, 0x40, 0x40, 0x40 } }, { '=', { 0x14, 0x14, 0x14, 0x14, 0x14 } },
    { '@', { 0x3e, 0x41, 0x5d, 0x55, 0x1e } }, { '%', { 0x23, 0x13, 0x08, 0x64, 0x62 } },
};

Canvas *canvas_new(guint width, guint height, guint32 background)
{
    Canvas *canvas = g_new0(Canvas, 1);

    canvas->width = width;
    canvas->height = height;
    canvas->pixels = g_malloc_n((gsize)width * height, 3);
    canvas_fill(canvas, 0, 0, width, height, background);
    return canvas;
}

void canvas_free(Canvas *canvas)
{
    if (canvas) {
        g_free(canvas->pixels);
        g_free(canvas);
    }
}

void canvas_fill(Canvas *canvas, guint x, guint y, guint width, guint height, guint32 colour)
{
    const guint8 bytes[3] = { (guint8)(colour >> 16), (guint8)(colour >> 8), (guint8)colour };

    for (guint row = y; row < canvas->height && row - y < height; row++) {
        for (guint column = x; column < canvas->width && column - x < width; column++) {
            memcpy(canvas->pixels + ((gsize)row * canvas->width + column) * 3, bytes, 3);
        }
    }
}

static const Glyph *find_glyph(char character)
{
    for (guint i = 0; i < G_N_ELEMENTS(glyphs); i++) {
        if (glyphs[i].character == character) {
            return &glyphs[i];
        }
    }
    /* The font has few capitals. */
    char small = g_ascii_tolower(character);
    return small != character ? find_glyph(small) : NULL;
}

void canvas_text(Canvas *canvas, guint x, guint y, guint scale, guint32 colour, const char *text)
{
    for (; *text; text++, x += CANVAS_GLYPH_WIDTH * scale) {
        const Glyph *glyph = find_glyph(*text);
        for (guint i = 0; glyph && i < GLYPH_COLUMNS * GLYPH_ROWS; i++) {
            guint column = i / GLYPH_ROWS;
            guint row = i % GLYPH_ROWS;
            if (glyph->columns[column] >> row & 1) {
                canvas_fill(canvas, x + column * scale, y + row * scale, scale, scale, colour);
            }
        }
    }
}

gboolean canvas_write(Canvas *canvas, Channel *channel, GError **errp)
{
    png_image image = { .version = PNG_IMAGE_VERSION,
                        .width = canvas->width,
                        .height = canvas->height,
                        .format = PNG_FORMAT_RGB };
    png_alloc_size_t size = 0;
    g_autofree void *bytes = NULL;

    if (png_image_write_get_memory_size(image, size, 0, canvas->pixels, 0, NULL)) {
        bytes = g_malloc(size);
    }
    if (!bytes || !png_image_write_to_memory(&image, bytes, &size, 0, canvas->pixels, 0, NULL)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FAILED, "cannot make a PNG: %s", image.message);
        return FALSE;
    }
    struct iovec iov = { bytes, size };
    return channel_writev(channel, &iov, 1, errp);
}
