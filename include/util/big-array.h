/*
 * Arrays as large as a guest has pages: memory is taken for the parts that are written to only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "util/error.h"

/* @count elements of @size bytes, all zero. NULL with SF_ERROR_FAILED; @count may be 0. */
void *big_array_new(guint64 count, gsize size, GError **errp);
/* The same numbers again. NULL is allowed. */
void big_array_free(void *array, guint64 count, gsize size);
