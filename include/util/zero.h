/*
 * The test for zero pages.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

/* Whether all of @length bytes are zero. @data is 8-byte aligned, @length a multiple of 64. */
gboolean buffer_is_zero(const void *data, gsize length);
