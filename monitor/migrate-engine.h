/*
 * The engine as a process of its own, "stillframe engine": what the migrate front and that process
 * say to each other, and the front's side of it. Messages are JSON objects, one a packet.
 *
 *   front:   {"pid", "destination", "max-bandwidth", "writers", "mapped-ram", "direct-io"} first,
 *            {"ack": true} after each phase, {"max-bandwidth": N} at any time
 *   engine:  {"phase": N} when one begins, {"progress": {...}} ten times a second, at the end
 *            {"report": {...}} or {"error": "text"}
 *
 * The end of the socket tells the engine to cancel; SIGTERM does, too. For monitor/ and cli/ only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <json-glib/json-glib.h>
#include <sys/types.h>

#include "util/error.h"

/* The descriptors that the engine finds open, besides the standard ones. */
enum {
    ENGINE_FD_CONTROL = 3,
    ENGINE_FD_MONITOR,
    ENGINE_FD_SPARE, /* /dev/null where there is none */
    ENGINE_FD_DESTINATION,
};

#define ENGINE_MESSAGE_MAX (1024 * 1024)

/* FALSE when the other side has gone. */
gboolean engine_send(int socket, JsonObject *message);
/* The next message, waiting at most @timeout_ms (-1 for ever); NULL at the end or time-out. */
JsonObject *engine_receive(int socket, int timeout_ms, gboolean *ended);

typedef struct MigrateEngine MigrateEngine;

typedef struct MigrateEngineOptions {
    JsonObject *start;  /* the first message; not taken */
    int monitor_fd;     /* none of these is taken */
    int spare_fd;       /* -1 for none */
    int destination_fd; /* -1 for none */
    /* From a thread of the engine's; the last call has neither a phase nor progress. */
    void (*message)(JsonObject *message, gpointer user);
    gpointer user;
} MigrateEngineOptions;

/* Starts it. */
MigrateEngine *migrate_engine_start(const MigrateEngineOptions *options, GError **errp);
/* Asks it to cancel; after some seconds it is ended. Any thread. */
void migrate_engine_cancel(MigrateEngine *engine);
void migrate_engine_send(MigrateEngine *engine, JsonObject *message);
/* Waits for its end; not from message(). NULL is allowed. */
void migrate_engine_free(MigrateEngine *engine);
