/*
 * The clock of the engine's figures.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>
#include <time.h>

/* Nanoseconds of CLOCK_MONOTONIC; no system call (vDSO). */
static inline guint64 clock_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (guint64)now.tv_sec * 1000000000ULL + (guint64)now.tv_nsec;
}
