/*
 * One background snapshot as QEMU shows its own: statuses, events, and what query-migrate answers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "migrate-front-impl.h"
#include "migration/snapshot.h"
#include "util/autofd.h"

/* How long "migrate" waits for what can be refused at once; QEMU's main loop would stand still. */
#define BEGIN_WAIT_MS 5000
/* QEMU's default; its own background snapshot does not begin with it either. */
#define MAX_BANDWIDTH_DEFAULT (128 * 1024 * 1024LL)

static const char *const status_names[] = {
    [MIGRATE_NONE] = "none",           [MIGRATE_SETUP] = "setup",
    [MIGRATE_ACTIVE] = "active",       [MIGRATE_CANCELLING] = "cancelling",
    [MIGRATE_CANCELLED] = "cancelled", [MIGRATE_COMPLETED] = "completed",
    [MIGRATE_FAILED] = "failed",
};

gboolean migrate_run_is_running(const MigrateRun *run)
{
    return run->status == MIGRATE_SETUP || run->status == MIGRATE_ACTIVE ||
           run->status == MIGRATE_CANCELLING;
}

void migrate_run_clear(MigrateRun *run)
{
    g_free(run->error);
    g_clear_pointer(&run->report, json_object_unref);
    *run = (MigrateRun){ 0 };
}

/* Under the lock, so that events go out in the order of the statuses. */
static void set_status(MigrateFront *front, MigrateStatus status)
{
    front->run.status = status;
    if (front->events && front->ops.event) {
        g_autoptr(JsonObject) data = json_object_new();
        json_object_set_string_member(data, "status", status_names[status]);
        front->ops.event("MIGRATION", data, front->user);
    }
}

static gint64 ms_between(gint64 from_us, gint64 to_us)
{
    return MAX(to_us - from_us, 0) / G_TIME_SPAN_MILLISECOND;
}

/* ---- What the engine says ---- */

static void take_phase(MigrateFront *front, int phase)
{
    MigrateRun *run = &front->run;

    run->phase = phase;
    run->begun |= phase >= SNAPSHOT_PHASE_ARM;
    if (phase == SNAPSHOT_PHASE_FREEZE) {
        run->setup_us = g_get_monotonic_time() - run->began_us;
        if (run->status == MIGRATE_SETUP) {
            set_status(front, MIGRATE_ACTIVE);
        }
    }
    /* Now, and not before, the engine may go on: "active" stands before QEMU's STOP. */
    g_autoptr(JsonObject) ack = json_object_new();
    json_object_set_boolean_member(ack, "ack", TRUE);
    if (front->engine) {
        migrate_engine_send(front->engine, ack);
    }
}

static guint64 number(JsonObject *object, const char *name)
{
    return (guint64)MAX(json_object_get_int_member_with_default(object, name, 0), 0);
}

static void take_progress(MigrateRun *run, JsonObject *progress)
{
    run->progress = (MigrateProgress){
        .saved = number(progress, "saved"),
        .zero = number(progress, "zero"),
        .total = number(progress, "total"),
        .written = number(progress, "written"),
        .faults = number(progress, "faults"),
        .buffer_used = number(progress, "buffer-used"),
    };
}

static void take_end(MigrateFront *front, JsonObject *message)
{
    MigrateRun *run = &front->run;

    run->total_us = g_get_monotonic_time() - run->began_us;
    run->ended = TRUE;
    if (json_object_has_member(message, "report")) {
        run->report = json_object_ref(json_object_get_object_member(message, "report"));
        set_status(front, MIGRATE_COMPLETED);
        return;
    }
    if (run->cancelled) {
        set_status(front, MIGRATE_CANCELLED);
        return;
    }
    run->error = g_strdup(
        json_object_get_string_member_with_default(message, "error", "the snapshot failed"));
    set_status(front, MIGRATE_FAILED);
}

static void on_message(JsonObject *message, gpointer user)
{
    MigrateFront *front = user;

    g_mutex_lock(&front->lock);
    if (json_object_has_member(message, "phase")) {
        take_phase(front, (int)json_object_get_int_member(message, "phase"));
    } else if (json_object_has_member(message, "progress")) {
        take_progress(&front->run, json_object_get_object_member(message, "progress"));
    } else {
        take_end(front, message);
    }
    g_cond_broadcast(&front->changed);
    g_mutex_unlock(&front->lock);
}

/* ---- migrate ---- */

gint64 migrate_run_bandwidth(MigrateFront *front, JsonObject *parameters)
{
    gint64 limit = json_object_get_int_member_with_default(parameters, "max-bandwidth", 0);

    /* Above the largest signed number QEMU's JSON is a double, or negative: no limit. */
    if (limit <= 0 || limit == G_MAXINT64 ||
        (limit == MAX_BANDWIDTH_DEFAULT && !front->settings.bandwidth_chosen)) {
        return 0;
    }
    return limit;
}

static gboolean refuse_now(MigrateFront *front, QmpClient *qmp, GError **errp)
{
    g_autoptr(JsonNode) answer = migrate_front_ask(qmp, "query-status", NULL, errp);

    if (!answer || !JSON_NODE_HOLDS_OBJECT(answer)) {
        return TRUE;
    }
    const char *status =
        json_object_get_string_member_with_default(json_node_get_object(answer), "status", "");
    const char *text = NULL;
    g_mutex_lock(&front->lock);
    if (migrate_run_is_running(&front->run)) {
        text = "There's a migration process in progress";
    } else if (!strcmp(status, "inmigrate")) {
        text = "Guest is waiting for an incoming migration";
    } else if (!strcmp(status, "postmigrate")) {
        text = "Can't migrate the vm that was paused due to previous migration";
    }
    g_mutex_unlock(&front->lock);
    if (text) {
        g_set_error_literal(errp, SF_ERROR, SF_ERROR_MONITOR_COMMAND, text);
    }
    return text != NULL;
}

/* From here on query-migrate is ours. FALSE where an answer of QEMU is missing. */
static gboolean begin(MigrateFront *front, QmpClient *qmp, JsonObject *start, GError **errp)
{
    g_autoptr(JsonNode) capabilities =
        migrate_front_ask(qmp, "query-migrate-capabilities", NULL, errp);
    g_autoptr(JsonNode) parameters =
        capabilities ? migrate_front_ask(qmp, "query-migrate-parameters", NULL, errp) : NULL;

    if (!parameters || !JSON_NODE_HOLDS_OBJECT(parameters)) {
        return FALSE;
    }
    JsonObject *numbers = json_node_get_object(parameters);
    migrate_engine_free(front->engine); /* the last one's thread has ended */
    g_mutex_lock(&front->lock);
    front->engine = NULL;
    const MigrateSettings *settings = &front->settings;
    json_object_set_int_member(start, "pid", front->pid);
    json_object_set_int_member(start, "max-bandwidth", migrate_run_bandwidth(front, numbers));
    json_object_set_int_member(
        start, "writers", json_object_get_int_member_with_default(numbers, "multifd-channels", 2));
    json_object_set_boolean_member(start, "mapped-ram",
                                   settings->mapped_ram ||
                                       migrate_capability_is_on(capabilities, "mapped-ram"));
    json_object_set_boolean_member(
        start, "direct-io",
        settings->direct_io ||
            json_object_get_boolean_member_with_default(numbers, "direct-io", FALSE));
    migrate_run_clear(&front->run);
    front->run.began_us = g_get_monotonic_time();
    front->run.downtime_limit =
        json_object_get_int_member_with_default(numbers, "downtime-limit", 300);
    front->ours = TRUE;
    front->events = migrate_capability_is_on(capabilities, "events");
    set_status(front, MIGRATE_SETUP);
    g_mutex_unlock(&front->lock);
    return TRUE;
}

static gboolean start_engine(MigrateFront *front, QmpClient *qmp, const char *uri,
                             JsonObject *start, GError **errp)
{
    g_auto(MigrateTarget) target = { .fd = -1 };

    if (!migrate_target_open(front, qmp, uri, &target, errp)) {
        return FALSE;
    }
    json_object_set_string_member(start, "destination", target.uri);
    sf_autofd monitor = front->ops.open_monitor(front->user, errp);
    if (monitor < 0) {
        return FALSE;
    }
    MigrateEngineOptions options = {
        .start = start,
        .monitor_fd = monitor,
        .spare_fd = front->ops.get_qemu_fd ? front->ops.get_qemu_fd(front->user) : -1,
        .destination_fd = target.fd,
        .message = on_message,
        .user = front,
    };
    /* Its first words wait for the lock, and so for the engine to be known. */
    g_mutex_lock(&front->lock);
    front->engine = migrate_engine_start(&options, errp);
    g_mutex_unlock(&front->lock);
    return front->engine != NULL;
}

static JsonNode *fail_at_once(MigrateFront *front, GError *error, GError **errp)
{
    g_mutex_lock(&front->lock);
    front->run.error = g_strdup(error->message);
    front->run.ended = TRUE;
    set_status(front, MIGRATE_FAILED);
    g_mutex_unlock(&front->lock);
    g_propagate_error(errp, error);
    return NULL;
}

/* Most refusals come before the guest's memory is armed: those are the command's own error. */
static gboolean wait_begun(MigrateFront *front, GError **errp)
{
    gint64 deadline = g_get_monotonic_time() + BEGIN_WAIT_MS * G_TIME_SPAN_MILLISECOND;

    g_mutex_lock(&front->lock);
    while (!front->run.begun && !front->run.ended &&
           g_cond_wait_until(&front->changed, &front->lock, deadline)) {
    }
    gboolean failed = !front->run.begun && front->run.status == MIGRATE_FAILED;
    if (failed) {
        g_set_error_literal(errp, SF_ERROR, SF_ERROR_MONITOR_COMMAND, front->run.error);
    }
    g_mutex_unlock(&front->lock);
    return !failed;
}

static JsonNode *empty_object(void)
{
    JsonNode *node = json_node_new(JSON_NODE_OBJECT);

    json_node_take_object(node, json_object_new());
    return node;
}

JsonNode *migrate_run_start(MigrateFront *front, QmpClient *qmp, JsonObject *arguments,
                            GError **errp)
{
    g_autoptr(JsonObject) start = json_object_new();
    GError *error = NULL;

    g_autofree char *uri = migrate_target_check(front->version, arguments, errp);
    if (!uri || refuse_now(front, qmp, errp) || !begin(front, qmp, start, errp)) {
        return NULL;
    }
    if (!start_engine(front, qmp, uri, start, &error)) {
        return fail_at_once(front, error, errp);
    }
    return wait_begun(front, errp) ? empty_object() : NULL;
}

JsonNode *migrate_run_cancel(MigrateFront *front)
{
    g_mutex_lock(&front->lock);
    if (migrate_run_is_running(&front->run)) {
        front->run.cancelled = TRUE;
        set_status(front, MIGRATE_CANCELLING);
        if (front->engine) {
            migrate_engine_cancel(front->engine);
        }
    }
    g_mutex_unlock(&front->lock);
    return empty_object();
}

/* ---- query-migrate ---- */

/* The final numbers, in the words of the progress. */
static MigrateProgress final_progress(const MigrateRun *run)
{
    MigrateProgress progress = run->progress;

    if (run->report) {
        JsonObject *pages = json_object_get_object_member(run->report, "pages");
        progress.total = number(run->report, "ram-bytes");
        progress.saved = progress.total;
        progress.zero = number(pages, "zero") * number(pages, "size");
        progress.written = number(run->report, "bytes-written");
    }
    return progress;
}

static JsonObject *describe_ram(const MigrateFront *front, gint64 elapsed_ms)
{
    const MigrateRun *run = &front->run;
    MigrateProgress progress = final_progress(run);
    guint64 normal = progress.saved - MIN(progress.zero, progress.saved);
    JsonObject *ram = json_object_new();
    double seconds = (double)MAX(elapsed_ms, 1) / 1000;

    json_object_set_int_member(ram, "total", (gint64)progress.total);
    json_object_set_int_member(ram, "postcopy-requests", 0);
    json_object_set_int_member(ram, "dirty-sync-count", 0);
    json_object_set_int_member(ram, "multifd-bytes", 0);
    json_object_set_int_member(ram, "pages-per-second",
                               (gint64)((double)(progress.saved / 4096) / seconds));
    json_object_set_int_member(ram, "downtime-bytes", 0);
    json_object_set_int_member(ram, "page-size", 4096);
    json_object_set_int_member(ram, "remaining",
                               (gint64)(progress.total - MIN(progress.saved, progress.total)));
    json_object_set_int_member(ram, "postcopy-bytes", 0);
    json_object_set_double_member(ram, "mbps", (double)progress.written * 8 / 1e6 / seconds);
    json_object_set_int_member(ram, "transferred", (gint64)progress.written);
    json_object_set_int_member(ram, "dirty-sync-missed-zero-copy", 0);
    json_object_set_int_member(ram, "precopy-bytes", (gint64)progress.written);
    json_object_set_int_member(ram, "duplicate", (gint64)(progress.zero / 4096));
    json_object_set_int_member(ram, "dirty-pages-rate", 0);
    if (front->version < QEMU_HAS_SKIPPED_UNTIL) {
        json_object_set_int_member(ram, "skipped", 0);
    }
    json_object_set_int_member(ram, "normal-bytes", (gint64)normal);
    json_object_set_int_member(ram, "normal", (gint64)(normal / 4096));
    return ram;
}

static gint64 downtime_ms(const MigrateRun *run)
{
    JsonObject *downtime = json_object_get_object_member(run->report, "downtime-ms");

    return (gint64)(json_object_get_double_member(downtime, "total") + 0.5);
}

static JsonObject *describe_own(const MigrateRun *run)
{
    static const char *const phases[] = { "attach", "arm", "freeze", "sweep", "finish" };

    if (run->report) {
        return json_object_ref(run->report);
    }
    JsonObject *own = json_object_new();
    json_object_set_string_member(own, "phase",
                                  phases[CLAMP(run->phase, 0, (int)G_N_ELEMENTS(phases) - 1)]);
    json_object_set_int_member(own, "faults", (gint64)run->progress.faults);
    json_object_set_int_member(own, "buffer-used", (gint64)run->progress.buffer_used);
    return own;
}

/* Members by status, as QEMU has them. Under the lock. */
static void describe_run(const MigrateFront *front, JsonObject *info)
{
    const MigrateRun *run = &front->run;
    gboolean moving = run->status == MIGRATE_ACTIVE || run->status == MIGRATE_CANCELLING;
    gboolean completed = run->status == MIGRATE_COMPLETED;
    gint64 elapsed = completed ? ms_between(0, run->total_us)
                               : ms_between(run->began_us, g_get_monotonic_time());

    json_object_set_string_member(info, "status", status_names[run->status]);
    if (run->status == MIGRATE_FAILED) {
        json_object_set_string_member(info, "error-desc", run->error);
    }
    if (moving || completed) {
        json_object_set_int_member(info, "setup-time", ms_between(0, run->setup_us));
        json_object_set_int_member(info, "total-time", elapsed);
        json_object_set_object_member(info, "ram", describe_ram(front, elapsed));
    }
    if (moving) {
        json_object_set_int_member(info, "expected-downtime", run->downtime_limit);
    }
    if (completed) {
        json_object_set_int_member(info, "downtime", downtime_ms(run));
    }
    if (migrate_run_is_running(run) || completed) {
        json_object_set_object_member(info, MIGRATE_FRONT_OWN_MEMBER, describe_own(run));
    }
}

JsonNode *migrate_run_query(MigrateFront *front, QmpClient *qmp, GError **errp)
{
    g_autoptr(JsonNode) theirs = migrate_front_ask(qmp, "query-migrate", NULL, errp);

    if (!theirs) {
        return NULL;
    }
    JsonNode *answer = empty_object();
    JsonObject *info = json_node_get_object(answer);
    g_mutex_lock(&front->lock);
    describe_run(front, info);
    g_mutex_unlock(&front->lock);
    JsonObject *own = JSON_NODE_HOLDS_OBJECT(theirs) ? json_node_get_object(theirs) : NULL;
    if (own && json_object_has_member(own, "blocked-reasons")) {
        json_object_set_member(info, "blocked-reasons",
                               json_node_copy(json_object_get_member(own, "blocked-reasons")));
    }
    return answer;
}
