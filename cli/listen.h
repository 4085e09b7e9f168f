/*
 * A listening unix socket under a name.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "util/error.h"

/*
 * Listens at @address: "PATH" or "unix:PATH", for the user alone, or takes "fd:N", a socket that
 * listens already. A socket at PATH that nobody serves any more is replaced; one that somebody
 * serves is SF_ERROR_BUSY. -1 and *errp on failure.
 */
int listen_open(const char *address, GError **errp);

/* Removes the name, if it still leads to @fd. */
void listen_remove(const char *address, int fd);
