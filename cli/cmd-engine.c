/*
 * stillframe engine: one snapshot for a migrate front (the proxy, the console), in a process of its
 * own. Not for people: it is started with its descriptors, see monitor/migrate-engine.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cancel.h"
#include "commands.h"
#include "migration/snapshot.h"
#include "monitor/migrate-engine.h"

/* How long the front may take to tell its client of a phase, such as "active" before STOP. */
#define ACK_TIMEOUT_MS 1000
#define START_TIMEOUT_MS 10000

typedef struct Engine {
    guint64 max_bandwidth;
} Engine;

/* Messages of the front; its end is the snapshot's. */
static void listen_to_front(Engine *engine, int timeout_ms)
{
    gboolean ended = FALSE;
    JsonObject *message;

    while ((message = engine_receive(ENGINE_FD_CONTROL, timeout_ms, &ended))) {
        gboolean ack = json_object_has_member(message, "ack");
        if (json_object_has_member(message, "max-bandwidth")) {
            gint64 limit = json_object_get_int_member(message, "max-bandwidth");
            engine->max_bandwidth = (guint64)MAX(limit, 0);
        }
        json_object_unref(message);
        if (ack && timeout_ms) {
            return;
        }
    }
    if (ended) {
        raise(SIGTERM); /* whose handler asks the snapshot to end */
        signal(SIGTERM, SIG_IGN);
    }
}

static void on_phase(SnapshotPhase phase, gpointer user)
{
    g_autoptr(JsonObject) message = json_object_new();

    json_object_set_int_member(message, "phase", phase);
    engine_send(ENGINE_FD_CONTROL, message);
    listen_to_front(user, ACK_TIMEOUT_MS);
}

static void on_progress(const SnapshotProgress *progress, gpointer user)
{
    g_autoptr(JsonObject) message = json_object_new();
    JsonObject *numbers = json_object_new();

    json_object_set_int_member(numbers, "saved", (gint64)progress->saved_bytes);
    json_object_set_int_member(numbers, "zero", (gint64)progress->zero_bytes);
    json_object_set_int_member(numbers, "total", (gint64)progress->total_bytes);
    json_object_set_int_member(numbers, "written", (gint64)progress->written_bytes);
    json_object_set_int_member(numbers, "faults", (gint64)progress->faults);
    json_object_set_int_member(numbers, "buffer-used", (gint64)progress->buffer_used);
    json_object_set_object_member(message, "progress", numbers);
    engine_send(ENGINE_FD_CONTROL, message);
    listen_to_front(user, 0);
}

static void send_end(const SnapshotReport *report, const GError *error)
{
    g_autoptr(JsonObject) message = json_object_new();

    if (error) {
        json_object_set_string_member(message, "error", error->message);
    } else {
        json_object_set_member(message, "report", snapshot_report_to_json(report));
    }
    engine_send(ENGINE_FD_CONTROL, message);
}

static Destination *take_destination(JsonObject *start, GError **errp)
{
    const char *text = json_object_get_string_member_with_default(start, "destination", "");
    Destination *destination = destination_parse(text, errp);

    if (destination && destination->kind == DEST_FD) {
        destination->fd = ENGINE_FD_DESTINATION;
    }
    return destination;
}

static gboolean run(JsonObject *start, SnapshotReport *report, GError **errp)
{
    Engine engine = { .max_bandwidth = (guint64)MAX(
                          json_object_get_int_member_with_default(start, "max-bandwidth", 0), 0) };
    struct stat spare;
    g_autoptr(Destination) destination = take_destination(start, errp);

    if (!destination) {
        return FALSE;
    }
    gboolean mapped = json_object_get_boolean_member_with_default(start, "mapped-ram", FALSE);
    gboolean has_spare = fstat(ENGINE_FD_SPARE, &spare) == 0 && S_ISSOCK(spare.st_mode);
    SnapshotOptions options = {
        .pid = (pid_t)json_object_get_int_member_with_default(start, "pid", 0),
        .qmp_fd = ENGINE_FD_MONITOR,
        .spare_fd = has_spare ? ENGINE_FD_SPARE : 0,
        .destination = destination,
        .format = mapped ? IMAGE_FORMAT_MAPPED_RAM : IMAGE_FORMAT_STREAM,
        .sync = TRUE,
        .max_buffer = SNAPSHOT_MAX_BUFFER_DEFAULT,
        .progress = on_progress,
        .enter_phase = on_phase,
        .progress_user = &engine,
        .max_bandwidth = &engine.max_bandwidth,
    };
    return snapshot_run(&options, cancel_on_signals(), report, errp);
}

int cmd_engine(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    gboolean ended = FALSE;
    SnapshotReport report = { 0 };

    g_autoptr(JsonObject) start = engine_receive(ENGINE_FD_CONTROL, START_TIMEOUT_MS, &ended);
    if (!start) {
        command_usage_error(&error, "this command is started by the others only");
        return command_fail(error);
    }
    for (int fd = ENGINE_FD_CONTROL; fd <= ENGINE_FD_DESTINATION; fd++) {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    gboolean good = run(start, &report, &error);
    send_end(&report, error);
    snapshot_report_clear(&report);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
