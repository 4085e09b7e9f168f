/*
 * Starting the engine's process, listening to it, ending it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migrate-engine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/autofd.h"

/* How long a cancelled engine may take: a destination may not let go. */
#define CANCEL_PATIENCE_MS 5000

struct MigrateEngine {
    pid_t pid;
    int control;
    GThread *thread;
    void (*message)(JsonObject *message, gpointer user);
    gpointer user;
    GMutex lock;
    gboolean reaped;        /* under lock: the pid may be somebody else's */
    gint64 cancelled_at_us; /* atomic by the lock; 0 = not */
};

gboolean engine_send(int socket, JsonObject *message)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);

    json_node_set_object(node, message);
    g_autofree char *text = json_to_string(node, FALSE);
    return TEMP_FAILURE_RETRY(send(socket, text, strlen(text), MSG_NOSIGNAL)) > 0;
}

JsonObject *engine_receive(int socket, int timeout_ms, gboolean *ended)
{
    struct pollfd readable = { .fd = socket, .events = POLLIN };
    g_autofree char *text = g_malloc(ENGINE_MESSAGE_MAX);

    *ended = FALSE;
    if (poll(&readable, 1, timeout_ms) <= 0) {
        return NULL;
    }
    ssize_t got = recv(socket, text, ENGINE_MESSAGE_MAX, MSG_DONTWAIT);
    if (got <= 0) {
        *ended = got == 0 || (errno != EAGAIN && errno != EINTR);
        return NULL;
    }
    g_autoptr(JsonParser) parser = json_parser_new();
    if (!json_parser_load_from_data(parser, text, got, NULL) ||
        !JSON_NODE_HOLDS_OBJECT(json_parser_get_root(parser))) {
        return NULL;
    }
    return json_node_dup_object(json_parser_get_root(parser));
}

static void add_file(posix_spawn_file_actions_t *actions, int *from, guint count)
{
    /* First out of the way of the targets, then onto them: dup2 clears close-on-exec. */
    for (guint i = 0; i < count; i++) {
        posix_spawn_file_actions_adddup2(actions, from[i], ENGINE_FD_CONTROL + (int)i);
    }
}

/* Copies above the numbers that the engine is to find them at. */
static gboolean lift_descriptors(const MigrateEngineOptions *options, int control, int lifted[4],
                                 GError **errp)
{
    sf_autofd null = open("/dev/null", O_RDWR | O_CLOEXEC);
    const int wanted[] = { control, options->monitor_fd, options->spare_fd,
                           options->destination_fd };

    for (guint i = 0; i < G_N_ELEMENTS(wanted); i++) {
        lifted[i] = fcntl(wanted[i] >= 0 ? wanted[i] : null, F_DUPFD_CLOEXEC, 16);
        if (lifted[i] < 0) {
            return sf_error_set_errno(errp, SF_ERROR_FAILED, errno,
                                      "cannot duplicate a descriptor for the engine");
        }
    }
    return TRUE;
}

static int spawn(int lifted[4], pid_t *pid)
{
    char *argv[] = { "stillframe", "engine", NULL };
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;

    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    add_file(&actions, lifted, 4);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    /* A session of its own: the terminal's signals are its owner's, who cancels it in order. */
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
    int err = posix_spawn(pid, "/proc/self/exe", &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return err;
}

static gboolean start_process(MigrateEngine *engine, const MigrateEngineOptions *options,
                              GError **errp)
{
    int ends[2];
    int lifted[4] = { -1, -1, -1, -1 };

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot make a socket pair");
    }
    engine->control = ends[0];
    sf_autofd theirs = ends[1];
    gboolean good = lift_descriptors(options, theirs, lifted, errp);
    int err = good ? spawn(lifted, &engine->pid) : 0;
    for (guint i = 0; i < G_N_ELEMENTS(lifted); i++) {
        sf_clear_fd(&lifted[i]);
    }
    if (err) {
        engine->pid = 0;
        return sf_error_set_errno(errp, SF_ERROR_FAILED, err, "cannot start the engine");
    }
    return good;
}

/* What is told when the process ended without a last word. */
static JsonObject *describe_death(int status)
{
    JsonObject *message = json_object_new();
    g_autofree char *text =
        WIFSIGNALED(status)
            ? g_strdup_printf("the snapshot engine was ended by signal %d (%s); the guest goes on",
                              WTERMSIG(status), g_strsignal(WTERMSIG(status)))
            : g_strdup_printf("the snapshot engine ended unexpectedly with status %d; the guest "
                              "goes on",
                              WEXITSTATUS(status));

    json_object_set_string_member(message, "error", text);
    return message;
}

/* Past its patience a cancelled engine is killed: the kernel releases the guest's memory then. */
static void kill_when_late(MigrateEngine *engine)
{
    g_mutex_lock(&engine->lock);
    if (engine->cancelled_at_us && g_get_monotonic_time() - engine->cancelled_at_us >
                                       CANCEL_PATIENCE_MS * G_TIME_SPAN_MILLISECOND) {
        kill(engine->pid, SIGKILL);
    }
    g_mutex_unlock(&engine->lock);
}

static int reap(MigrateEngine *engine)
{
    int status = 0;
    siginfo_t info;

    while (waitid(P_PID, (id_t)engine->pid, &info, WEXITED | WNOWAIT) < 0 && errno == EINTR) {
    }
    g_mutex_lock(&engine->lock);
    waitpid(engine->pid, &status, 0);
    engine->reaped = TRUE;
    g_mutex_unlock(&engine->lock);
    return status;
}

static gpointer listen_thread(gpointer data)
{
    MigrateEngine *engine = data;
    g_autoptr(JsonObject) last = NULL;
    gboolean ended = FALSE;

    while (!ended) {
        g_autoptr(JsonObject) message = engine_receive(engine->control, 200, &ended);
        kill_when_late(engine);
        if (!message) {
            continue;
        }
        if (json_object_has_member(message, "phase") ||
            json_object_has_member(message, "progress")) {
            engine->message(message, engine->user);
        } else {
            g_clear_pointer(&last, json_object_unref);
            last = g_steal_pointer(&message);
        }
    }
    int status = reap(engine);
    if (!last) {
        last = describe_death(status);
    }
    engine->message(last, engine->user);
    return NULL;
}

MigrateEngine *migrate_engine_start(const MigrateEngineOptions *options, GError **errp)
{
    MigrateEngine *engine = g_new0(MigrateEngine, 1);

    engine->control = -1;
    engine->message = options->message;
    engine->user = options->user;
    engine->reaped = TRUE;
    g_mutex_init(&engine->lock);
    if (!start_process(engine, options, errp)) {
        migrate_engine_free(engine);
        return NULL;
    }
    engine->reaped = FALSE;
    engine_send(engine->control, options->start);
    engine->thread = g_thread_new("sf-engine", listen_thread, engine);
    return engine;
}

void migrate_engine_cancel(MigrateEngine *engine)
{
    g_mutex_lock(&engine->lock);
    if (!engine->reaped && !engine->cancelled_at_us) {
        engine->cancelled_at_us = g_get_monotonic_time();
        kill(engine->pid, SIGTERM);
    }
    g_mutex_unlock(&engine->lock);
}

void migrate_engine_send(MigrateEngine *engine, JsonObject *message)
{
    engine_send(engine->control, message);
}

void migrate_engine_free(MigrateEngine *engine)
{
    if (engine) {
        if (engine->thread) {
            g_thread_join(engine->thread);
        }
        sf_clear_fd(&engine->control);
        g_mutex_clear(&engine->lock);
        g_free(engine);
    }
}
