/*
 * A multiplexer with a client outside, whose bytes pass through: the proxy's side of it. For
 * monitor/ only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <json-glib/json-glib.h>

#include "monitor/qmp-mux.h"

typedef struct QmpMuxOuter {
    int client; /* taken */
    /*
     * Whether somebody may want to answer this command of the outer client, in the multiplexer's
     * thread: it must not wait. FALSE: it passes at once. @fds (int, not taken) came beside it.
     */
    gboolean (*wants)(JsonObject *message, GArray *fds, gpointer user);
    /*
     * A command that was wanted, in the same thread: it must not wait either. All that the client
     * sent before has been answered. TRUE: the client waits for qmp_mux_answer(); FALSE: the
     * command goes to QEMU.
     */
    gboolean (*command)(JsonObject *message, gpointer user);
    gpointer user;
} QmpMuxOuter;

/*
 * Takes @qemu as qmp_mux_new() does, but leaves greeting and negotiation to the outer client, and
 * returns at once. The multiplexer ends when QEMU closes the connection, or when the outer client
 * has gone and no inner one is left.
 */
QmpMux *qmp_mux_new_outer(int qemu, const QmpMuxOuter *outer, GError **errp);

/*
 * Answers the command that was taken: @answer is what to send, NULL has the command itself go to
 * QEMU. Any thread.
 */
void qmp_mux_answer(QmpMux *mux, const char *answer);
/* Sends a message of ours to the outer client, between QEMU's. Any thread, in order. */
void qmp_mux_send(QmpMux *mux, const char *message);
/* Readable when the multiplexer has ended. */
int qmp_mux_get_end_fd(QmpMux *mux);

/* @node as QEMU prints it: with a space behind ':' and ','. The caller frees. */
char *qmp_print(JsonNode *node);
