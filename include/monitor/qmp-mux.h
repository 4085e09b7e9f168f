/*
 * One connection to QEMU's monitor shared by several QMP clients inside Stillframe (QEMU itself
 * serves one at a time), and optionally by one client outside, whose bytes pass through untouched.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

#include "util/error.h"

typedef struct QmpMux QmpMux;

/*
 * Takes over @qemu, a connected socket on which nothing has been read or written yet, reads the
 * greeting, negotiates (no out-of-band commands), and serves the clients from a thread of its own.
 * @qemu is closed on failure too. Errors as those of qmp_client_new_from_fd().
 */
QmpMux *qmp_mux_new(int qemu, guint greeting_timeout_ms, GError **errp);

/* Connects to @address first ("PATH", "unix:PATH" or "tcp:HOST:PORT"). */
QmpMux *qmp_mux_open_address(const char *address, guint greeting_timeout_ms, GError **errp);

/*
 * A new client: a unix stream socket, for qmp_client_new_from_fd(). It gets the greeting, all of
 * QEMU's events from now on, and the answers to its own commands; descriptors beside its commands
 * reach QEMU. Owned by the caller; closing it ends the client. Any thread.
 */
int qmp_mux_open(QmpMux *mux, GError **errp);

/* The connection itself, owned by @mux. */
int qmp_mux_get_qemu_fd(QmpMux *mux);

/* Closes everything. Clients see the end of their connection. NULL is allowed. */
void qmp_mux_free(QmpMux *mux);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(QmpMux, qmp_mux_free)
