/*
 * The proxy: one client after the other, each on a connection to QEMU of its own, with the migrate
 * front beside it. Three threads: the multiplexer's passes bytes, the one of the commands runs what
 * the front answers, and the caller's waits for clients and for QEMU's end.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "monitor/qmp-proxy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "attach/qemu-process.h"
#include "migrate-front-impl.h"
#include "monitor/hmp-migrate.h"
#include "monitor/migrate-front.h"
#include "qmp-internal.h"
#include "qmp-mux-outer.h"
#include "qmp-proxy-fds.h"
#include "util/autofd.h"

/* How often *cancel is looked at, which a signal may set. */
#define LOOK_MS 200
/* QEMU listens again a moment after a client has gone. */
#define CONNECT_TIMEOUT_MS 10000

typedef struct Proxy {
    const QmpProxyOptions *options;
    const volatile int *cancel;
    pid_t pid;
    int pidfd; /* readable when QEMU has ended; -1 where the process is not known */
    MigrateFront *front;
    QmpProxyFds *fds; /* what QEMU has under a name */
    GMutex lock;
    QmpMux *mux; /* under the lock: the client's that is served; NULL between clients */
    GThread *worker;
    GAsyncQueue *commands; /* JsonObject; the thread ends at one without members */
} Proxy;

/* ---- What the front asks of us ---- */

static int open_monitor(gpointer user, GError **errp)
{
    Proxy *proxy = user;
    int fd = -1;

    g_mutex_lock(&proxy->lock);
    if (proxy->mux) {
        fd = qmp_mux_open(proxy->mux, errp);
    } else {
        g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_CLOSED, "the client has gone");
    }
    g_mutex_unlock(&proxy->lock);
    return fd;
}

static int get_qemu_fd(gpointer user)
{
    Proxy *proxy = user;

    g_mutex_lock(&proxy->lock);
    int fd = proxy->mux ? qmp_mux_get_qemu_fd(proxy->mux) : -1;
    g_mutex_unlock(&proxy->lock);
    return fd;
}

static int take_fd(const char *name, gpointer user, GError **errp)
{
    Proxy *proxy = user;

    return qmp_proxy_fds_take(proxy->fds, proxy->pid, name, errp);
}

static JsonObject *make_timestamp(void)
{
    gint64 now = g_get_real_time();
    JsonObject *stamp = json_object_new();

    json_object_set_int_member(stamp, "seconds", now / G_USEC_PER_SEC);
    json_object_set_int_member(stamp, "microseconds", now % G_USEC_PER_SEC);
    return stamp;
}

static void send_object(Proxy *proxy, JsonObject *object, void (*send)(QmpMux *, const char *))
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);

    json_node_set_object(node, object);
    g_autofree char *text = qmp_print(node);
    g_mutex_lock(&proxy->lock);
    if (proxy->mux) {
        send(proxy->mux, text);
    }
    g_mutex_unlock(&proxy->lock);
}

static void on_event(const char *name, JsonObject *data, gpointer user)
{
    g_autoptr(JsonObject) event = json_object_new();

    json_object_set_object_member(event, "timestamp", make_timestamp());
    json_object_set_string_member(event, "event", name);
    json_object_set_object_member(event, "data", json_object_ref(data));
    send_object(user, event, qmp_mux_send);
}

/* ---- The commands' thread ---- */

static JsonNode *execute_for_hmp(gpointer user, const char *command, JsonObject *arguments,
                                 GError **errp)
{
    Proxy *proxy = user;

    return migrate_front_execute(proxy->front, command, arguments, errp);
}

static JsonNode *run_line(Proxy *proxy, JsonObject *arguments, GError **errp)
{
    const char *line = json_object_get_string_member(arguments, "command-line");
    char *text = hmp_migrate_run(line, migrate_front_get_version(proxy->front), execute_for_hmp,
                                 proxy, NULL, errp);
    JsonNode *answer = text ? json_node_new(JSON_NODE_VALUE) : NULL;

    if (answer) {
        json_node_set_string(answer, text);
    }
    g_free(text);
    return answer;
}

static JsonObject *arguments_of(JsonObject *message)
{
    JsonNode *node = json_object_get_member(message, "arguments");

    return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

static void send_answer(Proxy *proxy, JsonObject *message, JsonNode *answer, const GError *error)
{
    g_autoptr(JsonObject) reply = json_object_new();
    JsonNode *id = json_object_get_member(message, "id");

    if (answer) {
        json_object_set_member(reply, "return", json_node_ref(answer));
    } else {
        JsonObject *body = json_object_new();
        json_object_set_string_member(body, "class", "GenericError");
        json_object_set_string_member(body, "desc", error->message);
        json_object_set_object_member(reply, "error", body);
    }
    if (id) {
        json_object_set_member(reply, "id", json_node_copy(id));
    }
    send_object(proxy, reply, qmp_mux_answer);
}

static void pass_on(Proxy *proxy)
{
    g_mutex_lock(&proxy->lock);
    if (proxy->mux) {
        qmp_mux_answer(proxy->mux, NULL);
    }
    g_mutex_unlock(&proxy->lock);
}

static void run_command(Proxy *proxy, JsonObject *message)
{
    const char *name = json_object_get_string_member(message, "execute");
    JsonObject *arguments = arguments_of(message);
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) answer = NULL;

    if (!strcmp(name, "human-monitor-command")) {
        const char *line = json_object_get_string_member(arguments, "command-line");
        if (!migrate_front_answers_line(proxy->front, line)) {
            pass_on(proxy);
            return;
        }
        answer = run_line(proxy, arguments, &error);
    } else if (migrate_front_answers(proxy->front, name, arguments)) {
        answer = migrate_front_execute(proxy->front, name, arguments, &error);
    } else {
        pass_on(proxy);
        return;
    }
    send_answer(proxy, message, answer, error);
}

static gpointer worker_thread(gpointer data)
{
    Proxy *proxy = data;

    for (;;) {
        g_autoptr(JsonObject) message = g_async_queue_pop(proxy->commands);
        if (json_object_get_size(message) == 0) {
            return NULL;
        }
        run_command(proxy, message);
    }
}

/* ---- The multiplexer's thread ---- */

/* QEMU itself has something to say about members that it does not know. */
static gboolean is_plain_command(JsonObject *message)
{
    JsonNode *arguments = json_object_get_member(message, "arguments");
    guint known = 1u + (arguments != NULL) + json_object_has_member(message, "id");

    return json_object_get_size(message) == known &&
           (!arguments || JSON_NODE_HOLDS_OBJECT(arguments));
}

static gboolean is_plain_line(JsonObject *message)
{
    JsonObject *arguments = arguments_of(message);
    JsonNode *line = arguments ? json_object_get_member(arguments, "command-line") : NULL;

    return line && json_object_get_size(arguments) == 1 && JSON_NODE_HOLDS_VALUE(line) &&
           json_node_get_value_type(line) == G_TYPE_STRING &&
           hmp_migrate_owns_line(json_node_get_string(line));
}

/* What is known to be QEMU's need not wait for anything. */
static gboolean wants_command(JsonObject *message, GArray *fds, gpointer user)
{
    Proxy *proxy = user;
    const char *name = json_object_get_string_member(message, "execute");

    if (!is_plain_command(message)) {
        return FALSE;
    }
    if (!strcmp(name, "getfd")) {
        qmp_proxy_fds_note(proxy->fds, arguments_of(message), fds);
        return FALSE;
    }
    if (!strcmp(name, "human-monitor-command")) {
        return is_plain_line(message);
    }
    return migrate_front_may_answer(proxy->front, name, arguments_of(message));
}

static gboolean on_command(JsonObject *message, gpointer user)
{
    Proxy *proxy = user;

    g_async_queue_push(proxy->commands, json_object_ref(message));
    return TRUE;
}

/* ---- Clients, one after the other ---- */

static gboolean qemu_has_ended(const Proxy *proxy)
{
    struct pollfd ended = { .fd = proxy->pidfd, .events = POLLIN };

    return proxy->pidfd >= 0 && poll(&ended, 1, 0) > 0;
}

/* Until the client or QEMU has gone, and nothing of the engine needs the connection. */
static void wait_for_end(Proxy *proxy, QmpMux *mux)
{
    struct pollfd ended = { .fd = qmp_mux_get_end_fd(mux), .events = POLLIN };

    while (!*proxy->cancel && poll(&ended, 1, LOOK_MS) <= 0) {
    }
}

static void set_mux(Proxy *proxy, QmpMux *mux)
{
    g_mutex_lock(&proxy->lock);
    proxy->mux = mux;
    g_mutex_unlock(&proxy->lock);
}

static void serve_client(Proxy *proxy, int client)
{
    g_autoptr(GError) error = NULL;
    int qemu = qmp_connect(proxy->options->qmp, CONNECT_TIMEOUT_MS, &error);

    if (qemu < 0) {
        close(client);
        if (!qemu_has_ended(proxy)) {
            g_printerr("stillframe: a client was sent away: monitor %s: %s\n", proxy->options->qmp,
                       error->message);
        }
        return;
    }
    QmpMuxOuter outer = {
        .client = client, .wants = wants_command, .command = on_command, .user = proxy
    };
    QmpMux *mux = qmp_mux_new_outer(qemu, &outer, &error);
    if (!mux) {
        g_printerr("stillframe: %s\n", error->message);
        return;
    }
    set_mux(proxy, mux);
    wait_for_end(proxy, mux);
    set_mux(proxy, NULL);
    qmp_mux_free(mux);
}

/* FALSE when it is over. */
static gboolean serve_next(Proxy *proxy)
{
    struct pollfd polls[] = { { .fd = proxy->options->listen_fd, .events = POLLIN },
                              { .fd = proxy->pidfd, .events = POLLIN } };
    int ready = poll(polls, G_N_ELEMENTS(polls), LOOK_MS);

    if (*proxy->cancel || (ready > 0 && polls[1].revents)) {
        return FALSE;
    }
    if (ready > 0 && polls[0].revents) {
        int client = accept4(proxy->options->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (client >= 0) {
            serve_client(proxy, client);
        } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
            g_usleep(LOOK_MS * 1000); /* out of descriptors: the next may be luckier */
        }
    }
    return TRUE;
}

/* Whether there is a QMP monitor, and whose: the connection is closed again. */
static gboolean look_at_qemu(Proxy *proxy, GError **errp)
{
    g_autoptr(QmpClient) qmp = qmp_client_open(proxy->options->qmp, QMP_GREETING_TIMEOUT_MS, errp);

    if (!qmp) {
        return FALSE;
    }
    proxy->pid = proxy->options->pid ? proxy->options->pid
                                     : MAX(qemu_process_of_socket(qmp_client_get_fd(qmp), NULL), 0);
    proxy->pidfd = proxy->pid ? (int)syscall(SYS_pidfd_open, proxy->pid, 0) : -1;
    return TRUE;
}

static void end_worker(Proxy *proxy)
{
    g_async_queue_push(proxy->commands, json_object_new());
    g_thread_join(proxy->worker);
}

gboolean qmp_proxy_run(const QmpProxyOptions *options, const volatile int *cancel, GError **errp)
{
    Proxy proxy = { .options = options, .cancel = cancel, .pidfd = -1 };
    const MigrateFrontOps ops = { .open_monitor = open_monitor,
                                  .get_qemu_fd = get_qemu_fd,
                                  .take_fd = take_fd,
                                  .event = on_event };

    if (!look_at_qemu(&proxy, errp)) {
        return FALSE;
    }
    g_mutex_init(&proxy.lock);
    proxy.fds = qmp_proxy_fds_new();
    proxy.commands = g_async_queue_new_full((GDestroyNotify)json_object_unref);
    proxy.front = migrate_front_new(proxy.pid, &ops, &proxy);
    proxy.worker = g_thread_new("sf-commands", worker_thread, &proxy);
    if (options->ready) {
        options->ready(proxy.pid, options->ready_user);
    }
    while (serve_next(&proxy)) {
    }
    end_worker(&proxy);
    migrate_front_free(proxy.front);
    if (qemu_has_ended(&proxy)) {
        migrate_settings_forget();
    }
    g_async_queue_unref(proxy.commands);
    qmp_proxy_fds_free(proxy.fds);
    g_mutex_clear(&proxy.lock);
    sf_clear_fd(&proxy.pidfd);
    return TRUE;
}
