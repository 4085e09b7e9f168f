/*
 * What a fuzzer and the program that replays its corpus share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

/* Each harness: one input. Returns 0. */
int LLVMFuzzerTestOneInput(const guint8 *data, gsize size);

/* A file (memory only) with @data, as a path that can be opened; the descriptor to be closed. */
int fuzz_file(const guint8 *data, gsize size, char path[32]);
