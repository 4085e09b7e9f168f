/*
 * The multiplexer's insides, shared by its three files: qmp-mux.c (life, requests, the loop),
 * qmp-mux-client.c (towards QEMU) and qmp-mux-qemu.c (from QEMU).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "qmp-input.h"
#include "qmp-internal.h"
#include "qmp-mux-outer.h"
#include "qmp-outbox.h"

/* A message of the outer client is looked at up to this size; what is longer just passes. */
#define MUX_HOLD_MAX (256 * 1024)
#define MUX_READ_STEP (64 * 1024)
/* What may wait for a peer that does not read, before we stop reading for it. */
#define MUX_OUT_MAX (1024 * 1024)
/* QEMU's answers to inner commands are never longer. */
#define MUX_WHOLE_MAX (64 * 1024 * 1024)

/* An inner client. */
typedef struct MuxInner {
    int fd;
    GByteArray *in;
    GArray *fds;
    QmpInput input;
    QmpOutbox out;
    gboolean gone;
} MuxInner;

/* An inner command that QEMU has not answered. */
typedef struct MuxPending {
    MuxInner *inner; /* NULL: our own, or its client has gone */
    JsonNode *id;    /* the client's, NULL for none */
    gboolean barrier;
    gboolean negotiation;
} MuxPending;

struct QmpMux {
    GThread *thread;
    GAsyncQueue *requests;
    int wake; /* eventfd */
    int end;  /* eventfd */
    gboolean quit;

    int qemu;
    gboolean qemu_shut; /* we send nothing more */
    gboolean qemu_gone;
    GByteArray *from_qemu;
    QmpFramer framer;
    gboolean streaming; /* the first part of this message has been passed on already */
    gboolean swallow;   /* the line end of a message that was not the outer client's */
    gboolean at_line;   /* the outer client has got whole lines so far */
    QmpOutbox to_qemu;
    gboolean mid_message; /* the last byte for QEMU is in the middle of an outer message */
    GQueue waiting;       /* inner commands (MuxCommand) that wait for its end */

    char *greeting; /* NULL until it has come */
    gboolean negotiated;
    gboolean negotiating; /* the outer client has sent qmp_capabilities */
    char *prefix;         /* of the ids of inner commands: nobody can guess it */
    guint64 serial;
    GHashTable *pending; /* id -> MuxPending */
    GPtrArray *inner;    /* MuxInner */

    gboolean has_outer;
    QmpMuxOuter outer;
    int client; /* -1: gone */
    gboolean client_eof;
    GByteArray *from_client;
    GArray *client_fds; /* not passed on yet */
    QmpInput input;
    QmpOutbox to_client;
    GQueue inject;         /* char *: ours, for the next line begin */
    gboolean client_dirty; /* QEMU may owe the client an answer */
    gboolean busy;         /* a command was taken, and is not answered */
    JsonObject *held;      /* that command */
    GByteArray *held_bytes;

    GMutex lock; /* for the start only */
    GCond started;
};

typedef struct MuxCommand {
    char *text;
    GArray *fds;
} MuxCommand;

/* ---- qmp-mux-client.c ---- */
void mux_read_client(QmpMux *mux);
void mux_take_client(QmpMux *mux);
void mux_client_gone(QmpMux *mux);
void mux_answer_held(QmpMux *mux, const char *answer);
void mux_barrier_passed(QmpMux *mux);
void mux_read_inner(QmpMux *mux, MuxInner *inner);
void mux_send_inner_command(QmpMux *mux, JsonObject *command, MuxPending *pending, GArray *fds);
void mux_pump_waiting(QmpMux *mux);

/* ---- qmp-mux-qemu.c ---- */
void mux_read_qemu(QmpMux *mux);
void mux_pump_inject(QmpMux *mux);
void mux_inner_send(MuxInner *inner, const char *text, gsize length);
/* A parsed message, or NULL. */
JsonObject *mux_parse(const void *text, gsize length);
