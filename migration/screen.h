/*
 * The guest's screen for the index. Private to migration/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "monitor/qmp.h"

/*
 * Has QEMU write what its first console shows into a memory file; -1 where there is none, or it
 * cannot be had. QEMU writes it uncompressed, which holds its main loop for a millisecond or so.
 */
int screen_capture(QmpClient *qmp, gboolean running);
/* The same as a PNG file; the caller frees. NULL where it is no picture. */
guint8 *screen_to_png(int fd, gsize *length);
/* A PNG file of a binary PPM with 8 bits a colour; the caller frees. NULL where it is none. */
guint8 *screen_ppm_to_png(const guint8 *ppm, gsize size, gsize *length);
