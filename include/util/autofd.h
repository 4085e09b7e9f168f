/*
 * A file descriptor that closes itself at the end of its scope. GLib has g_autofd only since
 * 2.76 and Debian 12 ships 2.74.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>
#include <unistd.h>

static inline void sf_clear_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

/* Takes the descriptor out of an sf_autofd variable: the caller owns the result. */
static inline int sf_steal_fd(int *fd)
{
    int stolen = *fd;
    *fd = -1;
    return stolen;
}

#define sf_autofd __attribute__((cleanup(sf_clear_fd))) int
