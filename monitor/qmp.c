/*
 * The QMP client: a blocking socket, poll() with a deadline, one message at a time. Callers are the
 * engine and the command line; nothing here knows about snapshots.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "monitor/qmp.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "qmp-internal.h"
#include "util/autofd.h"

/* A single message above this is no QMP any more (query-qmp-schema answers with 0.2 MiB). */
#define MESSAGE_MAX (64 * 1024 * 1024)
#define READ_STEP (64 * 1024)
/*
 * The greeting comes from QEMU's monitor thread, the answer to the first command from its main
 * loop, which may be at work: it gets so many times longer.
 */
#define NEGOTIATION_FACTOR (QMP_TIMEOUT_MS / QMP_GREETING_TIMEOUT_MS)
/* Nobody may ever ask for them: the oldest go. */
#define EVENTS_MAX 256

struct QmpClient {
    int fd;
    guint version;
    guint patience_ms; /* how long an answer may take */
    gboolean is_unix;
    gint64 last_id;
    GByteArray *input; /* received and not yet taken */
    QmpFramer framer;  /* where the message at the head of input ends */
    GQueue events;     /* JsonObject */
};

static gint64 deadline_after(guint timeout_ms)
{
    return g_get_monotonic_time() + (gint64)timeout_ms * 1000;
}

/* Waits for @events. 1 = ready, 0 = too late, -1 = errno. */
static int wait_ready(QmpClient *client, short events, gint64 deadline)
{
    for (;;) {
        gint64 left_us = MAX(deadline - g_get_monotonic_time(), 0);
        struct pollfd poller = { .fd = client->fd, .events = events };
        int ready = poll(&poller, 1, (int)((left_us + 999) / 1000));
        if (ready >= 0 || errno != EINTR) {
            return ready;
        }
        if (left_us == 0) {
            return 0;
        }
    }
}

static gboolean set_silent(GError **errp, const char *what)
{
    g_set_error(
        errp, SF_ERROR, SF_ERROR_MONITOR_SILENT,
        "QEMU's monitor does not answer (%s): QEMU may be stopped by a signal or a debugger, "
        "or its main loop hangs",
        what);
    return FALSE;
}

static gboolean set_closed(GError **errp)
{
    g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_CLOSED,
                "the connection to QEMU's monitor ended: QEMU has exited or closed it");
    return FALSE;
}

/* One wait and one read. */
static gboolean receive_some(QmpClient *client, gint64 deadline, const char *what, GError **errp)
{
    int ready = wait_ready(client, POLLIN, deadline);
    if (ready == 0) {
        return set_silent(errp, what);
    }
    guint before = client->input->len;
    if (before > MESSAGE_MAX) {
        g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_PROTOCOL,
                    "QEMU's monitor sent a message of more than %d MiB", MESSAGE_MAX >> 20);
        return FALSE;
    }
    g_byte_array_set_size(client->input, before + READ_STEP);
    ssize_t got = recv(client->fd, client->input->data + before, READ_STEP, MSG_DONTWAIT);
    int err = errno;
    g_byte_array_set_size(client->input, before + (guint)MAX(got, 0));
    if (got > 0 || (got < 0 && (err == EAGAIN || err == EINTR))) {
        return TRUE;
    }
    if (got == 0 || err == ECONNRESET) {
        return set_closed(errp);
    }
    return sf_error_set_errno(errp, SF_ERROR_MONITOR_CLOSED, err,
                              "cannot read from QEMU's monitor");
}

static gboolean set_protocol_error(GError **errp, const char *text, gsize length)
{
    g_autofree char *head = g_strndup(text, MIN(length, 60));
    g_autofree char *shown = g_strescape(head, NULL);
    if (strstr(head, "(qemu)") || (g_str_has_prefix(head, "QEMU ") && strstr(head, " monitor"))) {
        g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_PROTOCOL,
                    "this is QEMU's human monitor (HMP), not QMP: name the socket given to QEMU by "
                    "-qmp, or by -mon with mode=control");
    } else {
        g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_PROTOCOL,
                    "what answers is not QMP: it says \"%s\"", shown);
    }
    return FALSE;
}

static JsonObject *parse_message(const char *text, gsize length, GError **errp)
{
    g_autoptr(JsonParser) parser = json_parser_new_immutable();
    g_autoptr(GError) error = NULL;
    if (!json_parser_load_from_data(parser, text, (gssize)length, &error) ||
        !JSON_NODE_HOLDS_OBJECT(json_parser_get_root(parser))) {
        set_protocol_error(errp, text, length);
        return NULL;
    }
    return json_object_ref(json_node_get_object(json_parser_get_root(parser)));
}

/* Drops what stands between messages (line ends). */
static void skip_space(GByteArray *input)
{
    guint space = 0;
    while (space < input->len && g_ascii_isspace(input->data[space])) {
        space++;
    }
    if (space > 0) {
        g_byte_array_remove_range(input, 0, space);
    }
}

/* The next message of any kind, owned by the caller. @what is for the error only. */
static JsonObject *receive_message(QmpClient *client, gint64 deadline, const char *what,
                                   GError **errp)
{
    GByteArray *input = client->input;
    for (;;) {
        if (client->framer.scanned == 0) {
            skip_space(input);
        }
        if (input->len > 0 && input->data[0] != '{') {
            set_protocol_error(errp, (const char *)input->data, input->len);
            return NULL;
        }
        gsize length = qmp_framer_scan(&client->framer, (const char *)input->data, input->len);
        if (length > 0) {
            JsonObject *message = parse_message((const char *)input->data, length, errp);
            g_byte_array_remove_range(input, 0, (guint)length);
            client->framer = (QmpFramer){ 0 };
            return message;
        }
        if (!receive_some(client, deadline, what, errp)) {
            return NULL;
        }
    }
}

static void keep_event(QmpClient *client, JsonObject *event)
{
    if (g_queue_get_length(&client->events) >= EVENTS_MAX) {
        json_object_unref(g_queue_pop_head(&client->events));
    }
    g_queue_push_tail(&client->events, json_object_ref(event));
}

static char *compose_command(QmpClient *client, const char *command, JsonObject *arguments,
                             gsize *length)
{
    g_autoptr(JsonNode) root = json_node_new(JSON_NODE_OBJECT);
    JsonObject *message = json_object_new();
    json_object_set_string_member(message, "execute", command);
    if (arguments) {
        json_object_set_object_member(message, "arguments", arguments);
    }
    json_object_set_int_member(message, "id", ++client->last_id);
    json_node_take_object(root, message);
    g_autofree char *text = json_to_string(root, FALSE);
    *length = strlen(text) + 1;
    return g_strconcat(text, "\n", NULL);
}

/* Sends all of it; @fd (-1 for none) goes with the first byte. */
static gboolean send_all(QmpClient *client, const char *text, gsize length, int fd, GError **errp)
{
    gint64 deadline = deadline_after(QMP_TIMEOUT_MS);
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = { 0 };

    for (gsize done = 0; done < length;) {
        struct iovec iov = { .iov_base = (char *)text + done, .iov_len = length - done };
        struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
        if (fd >= 0 && done == 0) {
            message.msg_control = control.bytes;
            message.msg_controllen = sizeof(control.bytes);
            struct cmsghdr *header = CMSG_FIRSTHDR(&message);
            header->cmsg_level = SOL_SOCKET;
            header->cmsg_type = SCM_RIGHTS;
            header->cmsg_len = CMSG_LEN(sizeof(int));
            memcpy(CMSG_DATA(header), &fd, sizeof(int));
        }
        ssize_t sent = sendmsg(client->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0) {
            done += (gsize)sent;
        } else if (errno == EAGAIN) {
            if (wait_ready(client, POLLOUT, deadline) == 0) {
                return set_silent(errp, "it takes no command");
            }
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return set_closed(errp);
        } else if (errno != EINTR) {
            return sf_error_set_errno(errp, SF_ERROR_MONITOR_CLOSED, errno,
                                      "cannot write to QEMU's monitor");
        }
    }
    return TRUE;
}

/* Whether @message answers our last command; a late answer to one that timed out does not. */
static gboolean message_is_answer(QmpClient *client, JsonObject *message)
{
    if (!json_object_has_member(message, "id")) {
        /* QEMU answers without an id when it could not read as far as the id. */
        return json_object_has_member(message, "error");
    }
    JsonNode *id = json_object_get_member(message, "id");
    return JSON_NODE_HOLDS_VALUE(id) && json_node_get_value_type(id) == G_TYPE_INT64 &&
           json_node_get_int(id) == client->last_id;
}

/* The member behind "return", or QEMU's own error. */
static JsonNode *take_answer(JsonObject *message, const char *command, GError **errp)
{
    if (json_object_has_member(message, "return")) {
        return json_node_copy(json_object_get_member(message, "return"));
    }
    const char *text = NULL;
    JsonNode *error = json_object_get_member(message, "error");
    if (error && JSON_NODE_HOLDS_OBJECT(error)) {
        text =
            json_object_get_string_member_with_default(json_node_get_object(error), "desc", NULL);
    }
    if (text) {
        g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_COMMAND, "QEMU refused \"%s\": %s", command,
                    text);
    } else {
        g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_PROTOCOL,
                    "QEMU's answer to \"%s\" has neither a result nor an error", command);
    }
    return NULL;
}

static JsonNode *execute(QmpClient *client, const char *command, JsonObject *arguments, int fd,
                         guint timeout_ms, GError **errp)
{
    gsize length;
    g_autofree char *text = compose_command(client, command, arguments, &length);
    if (!send_all(client, text, length, fd, errp)) {
        return NULL;
    }
    gint64 deadline = deadline_after(timeout_ms);
    for (;;) {
        g_autoptr(JsonObject) message = receive_message(client, deadline, command, errp);
        if (!message) {
            return NULL;
        }
        if (json_object_has_member(message, "event")) {
            keep_event(client, message);
        } else if (message_is_answer(client, message)) {
            return take_answer(message, command, errp);
        }
    }
}

/* Reads major, minor and micro from {"QMP": {"version": {"qemu": {...}}}}. */
static gboolean take_greeting(QmpClient *client, JsonObject *greeting, GError **errp)
{
    static const char *const path[] = { "QMP", "version", "qemu" };
    static const char *const parts[] = { "major", "minor", "micro" };
    JsonObject *object = greeting;
    for (guint i = 0; i < G_N_ELEMENTS(path) && object; i++) {
        JsonNode *node = json_object_get_member(object, path[i]);
        object = node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
    }
    guint version = 0;
    for (guint i = 0; i < G_N_ELEMENTS(parts) && object; i++) {
        gint64 number = json_object_get_int_member_with_default(object, parts[i], -1);
        if (number < 0 || number > 99) {
            object = NULL;
        }
        version = version * 100 + (guint)MAX(number, 0);
    }
    if (!object) {
        g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_PROTOCOL,
                    "what answers is not QMP: its first message is no QMP greeting with a version");
        return FALSE;
    }
    client->version = version;
    return TRUE;
}

static gboolean negotiate(QmpClient *client, guint greeting_timeout_ms, GError **errp)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonObject) greeting =
        receive_message(client, deadline_after(greeting_timeout_ms), "no greeting", &error);
    if (!greeting) {
        if (g_error_matches(error, SF_ERROR, SF_ERROR_MONITOR_SILENT) &&
            qmp_connection_is_busy(client->fd, errp)) {
            return FALSE;
        }
        g_propagate_error(errp, g_steal_pointer(&error));
        return FALSE;
    }
    if (!take_greeting(client, greeting, errp)) {
        return FALSE;
    }
    g_autoptr(JsonNode) done = execute(client, "qmp_capabilities", NULL, -1,
                                       greeting_timeout_ms * NEGOTIATION_FACTOR, errp);
    return done != NULL;
}

QmpClient *qmp_client_new_from_fd(int fd, guint greeting_timeout_ms, GError **errp)
{
    g_autoptr(QmpClient) client = g_new0(QmpClient, 1);
    client->fd = fd;
    client->patience_ms = QMP_TIMEOUT_MS;
    client->input = g_byte_array_new();
    g_queue_init(&client->events);

    int family = AF_UNSPEC;
    socklen_t length = sizeof(family);
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length) < 0) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "descriptor %d is no socket", fd);
        return NULL;
    }
    client->is_unix = family == AF_UNIX;
    if (!negotiate(client, greeting_timeout_ms, errp)) {
        return NULL;
    }
    return g_steal_pointer(&client);
}

QmpClient *qmp_client_open(const char *address, guint greeting_timeout_ms, GError **errp)
{
    int fd = qmp_connect(address, greeting_timeout_ms, errp);
    QmpClient *client = fd < 0 ? NULL : qmp_client_new_from_fd(fd, greeting_timeout_ms, errp);
    if (!client) {
        g_prefix_error(errp, "monitor %s: ", address);
    }
    return client;
}

void qmp_client_free(QmpClient *client)
{
    if (client) {
        sf_clear_fd(&client->fd);
        g_byte_array_unref(client->input);
        g_queue_clear_full(&client->events, (GDestroyNotify)json_object_unref);
        g_free(client);
    }
}

int qmp_client_get_fd(QmpClient *client)
{
    return client->fd;
}

guint qmp_client_get_version(QmpClient *client)
{
    return client->version;
}

void qmp_client_set_patience(QmpClient *client, guint timeout_ms)
{
    client->patience_ms = timeout_ms;
}

gboolean qmp_client_can_send_fd(QmpClient *client)
{
    return client->is_unix;
}

JsonNode *qmp_client_execute(QmpClient *client, const char *command, JsonObject *arguments,
                             GError **errp)
{
    return execute(client, command, arguments, -1, client->patience_ms, errp);
}

JsonNode *qmp_client_execute_with_fd(QmpClient *client, const char *command, JsonObject *arguments,
                                     int fd, GError **errp)
{
    if (!client->is_unix) {
        g_clear_pointer(&arguments, json_object_unref);
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "a descriptor can be handed to QEMU over a unix socket only, and this monitor "
                    "is reached by TCP");
        return NULL;
    }
    return execute(client, command, arguments, fd, client->patience_ms, errp);
}

char *qmp_client_hmp(QmpClient *client, const char *line, GError **errp)
{
    JsonObject *arguments = json_object_new();
    json_object_set_string_member(arguments, "command-line", line);
    g_autoptr(JsonNode) answer =
        qmp_client_execute(client, "human-monitor-command", arguments, errp);
    if (!answer) {
        g_prefix_error(errp, "HMP \"%s\": ", line);
        return NULL;
    }
    char *text = JSON_NODE_HOLDS_VALUE(answer) ? json_node_dup_string(answer) : NULL;
    if (!text) {
        g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_PROTOCOL,
                    "QEMU's answer to the HMP line \"%s\" is no text", line);
    }
    return text;
}

gboolean qmp_client_add_fd(QmpClient *client, int fd, gint64 *fdset, int *remote_fd, GError **errp)
{
    g_autoptr(JsonNode) answer = qmp_client_execute_with_fd(client, "add-fd", NULL, fd, errp);
    if (!answer) {
        return FALSE;
    }
    gint64 set = -1;
    gint64 number = -1;
    if (JSON_NODE_HOLDS_OBJECT(answer)) {
        JsonObject *object = json_node_get_object(answer);
        set = json_object_get_int_member_with_default(object, "fdset-id", -1);
        number = json_object_get_int_member_with_default(object, "fd", -1);
    }
    if (set < 0 || number < 0 || number > G_MAXINT) {
        g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_PROTOCOL,
                    "QEMU's answer to \"add-fd\" names no descriptor");
        return FALSE;
    }
    if (fdset) {
        *fdset = set;
    }
    if (remote_fd) {
        *remote_fd = (int)number;
    }
    return TRUE;
}

gboolean qmp_client_remove_fdset(QmpClient *client, gint64 fdset, GError **errp)
{
    JsonObject *arguments = json_object_new();
    json_object_set_int_member(arguments, "fdset-id", fdset);
    g_autoptr(JsonNode) answer = qmp_client_execute(client, "remove-fd", arguments, errp);
    return answer != NULL;
}

/* Takes the oldest queued event of that name; its data, or NULL. */
static JsonNode *take_event(QmpClient *client, const char *name)
{
    for (GList *link = client->events.head; link; link = link->next) {
        JsonObject *event = link->data;
        if (g_strcmp0(json_object_get_string_member_with_default(event, "event", NULL), name)) {
            continue;
        }
        JsonNode *data = json_object_get_member(event, "data");
        JsonNode *result = data ? json_node_copy(data) : json_node_new(JSON_NODE_OBJECT);
        if (!data) {
            json_node_take_object(result, json_object_new());
        }
        g_queue_delete_link(&client->events, link);
        json_object_unref(event);
        return result;
    }
    return NULL;
}

JsonNode *qmp_client_wait_event(QmpClient *client, const char *name, guint timeout_ms,
                                GError **errp)
{
    gint64 deadline = deadline_after(timeout_ms);
    for (;;) {
        JsonNode *data = take_event(client, name);
        if (data) {
            return data;
        }
        g_autoptr(JsonObject) message = receive_message(client, deadline, name, errp);
        if (!message) {
            return NULL;
        }
        if (json_object_has_member(message, "event")) {
            keep_event(client, message);
        }
    }
}
