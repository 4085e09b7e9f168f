/*
 * The multiplexer's life: its thread, its loop, and what other threads ask of it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "monitor/qmp-mux.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "qmp-mux-impl.h"
#include "monitor/qmp.h"
#include "util/autofd.h"

/* The negotiation is answered by QEMU's main loop, which may be at work. */
#define NEGOTIATION_TIMEOUT_MS QMP_TIMEOUT_MS

typedef enum { REQUEST_OPEN, REQUEST_ANSWER, REQUEST_SEND, REQUEST_QUIT } RequestKind;

typedef struct Request {
    RequestKind kind;
    int fd;
    char *text;
} Request;

static void request_free(gpointer data)
{
    Request *request = data;

    sf_clear_fd(&request->fd);
    g_free(request->text);
    g_free(request);
}

static void ask(QmpMux *mux, RequestKind kind, int fd, const char *text)
{
    Request *request = g_new0(Request, 1);

    request->kind = kind;
    request->fd = fd;
    request->text = g_strdup(text);
    g_async_queue_push(mux->requests, request);
    eventfd_write(mux->wake, 1);
}

static void inner_free(gpointer data)
{
    MuxInner *inner = data;

    sf_clear_fd(&inner->fd);
    g_byte_array_unref(inner->in);
    g_array_unref(inner->fds);
    qmp_outbox_clear(&inner->out);
    g_free(inner);
}

static void pending_free(gpointer data)
{
    MuxPending *pending = data;

    g_clear_pointer(&pending->id, json_node_unref);
    g_free(pending);
}

static void command_free(gpointer data)
{
    MuxCommand *command = data;

    g_clear_pointer(&command->fds, g_array_unref);
    g_free(command->text);
    g_free(command);
}

static void add_inner(QmpMux *mux, int fd)
{
    MuxInner *inner = g_new0(MuxInner, 1);

    inner->fd = fd;
    inner->in = g_byte_array_new();
    inner->fds = qmp_fds_new();
    mux_inner_send(inner, mux->greeting, strlen(mux->greeting));
    g_ptr_array_add(mux->inner, inner);
}

/* Answers that are still to come for it find nobody. */
static void remove_inner(QmpMux *mux, MuxInner *inner)
{
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, mux->pending);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        MuxPending *pending = value;
        if (pending->inner == inner) {
            pending->inner = NULL;
        }
    }
    g_ptr_array_remove(mux->inner, inner);
}

static void take_requests(QmpMux *mux)
{
    Request *request;
    eventfd_t ignored;

    eventfd_read(mux->wake, &ignored);
    while ((request = g_async_queue_try_pop(mux->requests))) {
        if (request->kind == REQUEST_OPEN && mux->greeting) {
            add_inner(mux, sf_steal_fd(&request->fd));
        } else if (request->kind == REQUEST_ANSWER) {
            mux_answer_held(mux, request->text);
        } else if (request->kind == REQUEST_SEND) {
            g_queue_push_tail(&mux->inject, g_steal_pointer(&request->text));
        } else if (request->kind == REQUEST_QUIT) {
            mux->quit = TRUE;
        }
        request_free(request);
    }
    mux_pump_inject(mux);
    mux_take_client(mux);
}

/* What the loop waits for. Order: wake, QEMU, the outer client, the inner ones. */
enum { POLL_WAKE, POLL_QEMU, POLL_CLIENT, POLL_INNER };

static short events_for(gboolean in, gboolean out)
{
    return (short)((in ? POLLIN : 0) | (out ? POLLOUT : 0));
}

static gboolean client_may_speak(const QmpMux *mux)
{
    return !mux->busy && !mux->client_eof && mux->to_qemu.bytes < MUX_OUT_MAX &&
           mux->to_client.bytes < MUX_OUT_MAX && mux->from_client->len < 2 * MUX_HOLD_MAX;
}

static GArray *collect_polls(QmpMux *mux)
{
    GArray *polls = g_array_new(FALSE, TRUE, sizeof(struct pollfd));
    gboolean hear_qemu =
        mux->to_client.bytes < MUX_OUT_MAX || mux->inner->len || g_hash_table_size(mux->pending);
    short client_events = events_for(client_may_speak(mux), mux->to_client.bytes > 0);
    struct pollfd fixed[] = {
        { .fd = mux->wake, .events = POLLIN },
        { .fd = mux->qemu, .events = events_for(hear_qemu, mux->to_qemu.bytes > 0) },
        /* A client that hung up would be reported all the time. */
        { .fd = client_events ? mux->client : -1, .events = client_events },
    };

    g_array_append_vals(polls, fixed, G_N_ELEMENTS(fixed));
    for (guint i = 0; i < mux->inner->len; i++) {
        MuxInner *inner = mux->inner->pdata[i];
        struct pollfd item = { .fd = inner->fd, .events = events_for(TRUE, inner->out.bytes > 0) };
        g_array_append_val(polls, item);
    }
    return polls;
}

static void flush_all(QmpMux *mux)
{
    mux->qemu_gone |= !qmp_outbox_flush(&mux->to_qemu, mux->qemu) && mux->from_qemu->len == 0 &&
                      recv(mux->qemu, &(char){ 0 }, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
    if (mux->client >= 0 && !qmp_outbox_flush(&mux->to_client, mux->client)) {
        mux_client_gone(mux);
    }
    for (guint i = mux->inner->len; i > 0; i--) {
        MuxInner *inner = mux->inner->pdata[i - 1];
        if (!qmp_outbox_flush(&inner->out, inner->fd) || inner->gone) {
            remove_inner(mux, inner);
        }
    }
}

static void serve(QmpMux *mux, const struct pollfd *polls, guint count)
{
    const short readable = POLLIN | POLLHUP | POLLERR;
    guint inner_count = count - POLL_INNER;

    /* Ours were asked for before what QEMU says now, and stand before it. */
    take_requests(mux);
    if (polls[POLL_QEMU].revents & readable) {
        mux_read_qemu(mux);
    }
    if (mux->client >= 0 && client_may_speak(mux) && polls[POLL_CLIENT].revents & readable) {
        mux_read_client(mux);
    }
    for (guint i = 0; i < inner_count; i++) {
        if (polls[POLL_INNER + i].revents & readable) {
            mux_read_inner(mux, mux->inner->pdata[i]);
        }
    }
    mux_take_client(mux);
    mux_pump_inject(mux);
    flush_all(mux);
}

/* The outer client has gone, and everything that it asked for is done. */
static void shut_when_done(QmpMux *mux)
{
    /* A message that its client will not finish need not be pressed into QEMU, which reads byte by
     * byte. */
    if (mux->client_eof && mux->mid_message && !mux->inner->len) {
        qmp_outbox_clear(&mux->to_qemu);
    }
    if (mux->client_eof && !mux->busy && !mux->inner->len && !mux->qemu_shut &&
        mux->to_qemu.bytes == 0 && g_hash_table_size(mux->pending) == 0) {
        mux->qemu_shut = TRUE;
        shutdown(mux->qemu, SHUT_WR);
    }
}

/* What QEMU said last still goes out; nobody is waited for long. */
static void say_goodbye(QmpMux *mux)
{
    struct pollfd writable = { .fd = mux->client, .events = POLLOUT };

    mux->at_line = TRUE;
    mux_pump_inject(mux);
    while (mux->client >= 0 && mux->to_client.bytes && poll(&writable, 1, 1000) > 0 &&
           qmp_outbox_flush(&mux->to_client, mux->client)) {
    }
    sf_clear_fd(&mux->client);
    g_ptr_array_set_size(mux->inner, 0);
    sf_clear_fd(&mux->qemu);
    g_mutex_lock(&mux->lock);
    g_cond_broadcast(&mux->started);
    g_mutex_unlock(&mux->lock);
    eventfd_write(mux->end, 1);
}

static gpointer mux_thread(gpointer data)
{
    QmpMux *mux = data;

    while (!mux->quit && !mux->qemu_gone) {
        g_autoptr(GArray) polls = collect_polls(mux);
        struct pollfd *list = (struct pollfd *)(void *)polls->data;
        if (poll(list, polls->len, -1) < 0 && errno != EINTR) {
            break;
        }
        serve(mux, list, polls->len);
        shut_when_done(mux);
    }
    say_goodbye(mux);
    return NULL;
}

static QmpMux *mux_alloc(int qemu)
{
    QmpMux *mux = g_new0(QmpMux, 1);
    g_autofree char *uuid = g_uuid_string_random();

    mux->requests = g_async_queue_new_full(request_free);
    mux->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    mux->end = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    mux->qemu = qemu;
    mux->client = -1;
    mux->at_line = TRUE;
    mux->prefix = g_strdup_printf("stillframe-%s-", uuid);
    mux->from_qemu = g_byte_array_new();
    mux->from_client = g_byte_array_new();
    mux->held_bytes = g_byte_array_new();
    mux->client_fds = qmp_fds_new();
    mux->pending = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, pending_free);
    mux->inner = g_ptr_array_new_with_free_func(inner_free);
    g_mutex_init(&mux->lock);
    g_cond_init(&mux->started);
    return mux;
}

static gboolean mux_start(QmpMux *mux, GError **errp)
{
    g_autoptr(GError) error = NULL;

    if (mux->wake < 0 || mux->end < 0) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot make an eventfd");
    }
    mux->thread = g_thread_try_new("qmp-mux", mux_thread, mux, &error);
    if (!mux->thread) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FAILED, "cannot start a thread: %s", error->message);
    }
    return mux->thread != NULL;
}

/* Until QEMU has taken qmp_capabilities. */
static gboolean wait_negotiated(QmpMux *mux, guint greeting_timeout_ms, GError **errp)
{
    gint64 now = g_get_monotonic_time();
    struct pollfd readable = { .fd = mux->qemu, .events = POLLIN };

    if (poll(&readable, 1, (int)greeting_timeout_ms) == 0) {
        if (!qmp_connection_is_busy(mux->qemu, errp)) {
            g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_SILENT,
                        "QEMU's monitor sends no greeting: QEMU may be stopped by a signal or a "
                        "debugger, or its main loop hangs");
        }
        return FALSE;
    }
    if (!mux_start(mux, errp)) {
        return FALSE;
    }
    gint64 deadline = now + NEGOTIATION_TIMEOUT_MS * G_TIME_SPAN_MILLISECOND;
    g_mutex_lock(&mux->lock);
    while (!mux->negotiated && mux->qemu >= 0 &&
           g_cond_wait_until(&mux->started, &mux->lock, deadline)) {
    }
    gboolean good = mux->negotiated;
    g_mutex_unlock(&mux->lock);
    if (!good) {
        g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_PROTOCOL,
                    "what answers is not QMP, or QEMU ended: name the socket given to QEMU by "
                    "-qmp, or by -mon with mode=control");
    }
    return good;
}

QmpMux *qmp_mux_new(int qemu, guint greeting_timeout_ms, GError **errp)
{
    g_autoptr(QmpMux) mux = mux_alloc(qemu);

    return wait_negotiated(mux, greeting_timeout_ms, errp) ? g_steal_pointer(&mux) : NULL;
}

QmpMux *qmp_mux_open_address(const char *address, guint greeting_timeout_ms, GError **errp)
{
    int fd = qmp_connect(address, greeting_timeout_ms, errp);
    QmpMux *mux = fd < 0 ? NULL : qmp_mux_new(fd, greeting_timeout_ms, errp);

    if (!mux) {
        g_prefix_error(errp, "monitor %s: ", address);
    }
    return mux;
}

QmpMux *qmp_mux_new_outer(int qemu, const QmpMuxOuter *outer, GError **errp)
{
    g_autoptr(QmpMux) mux = mux_alloc(qemu);

    mux->has_outer = TRUE;
    mux->outer = *outer;
    mux->client = outer->client;
    return mux_start(mux, errp) ? g_steal_pointer(&mux) : NULL;
}

int qmp_mux_open(QmpMux *mux, GError **errp)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot make a socket pair");
        return -1;
    }
    ask(mux, REQUEST_OPEN, ends[0], NULL);
    return ends[1];
}

int qmp_mux_get_qemu_fd(QmpMux *mux)
{
    return mux->qemu;
}

void qmp_mux_answer(QmpMux *mux, const char *answer)
{
    ask(mux, REQUEST_ANSWER, -1, answer);
}

void qmp_mux_send(QmpMux *mux, const char *message)
{
    ask(mux, REQUEST_SEND, -1, message);
}

int qmp_mux_get_end_fd(QmpMux *mux)
{
    return mux->end;
}

void qmp_mux_free(QmpMux *mux)
{
    if (!mux) {
        return;
    }
    if (mux->thread) {
        ask(mux, REQUEST_QUIT, -1, NULL);
        g_thread_join(mux->thread);
    }
    sf_clear_fd(&mux->qemu);
    sf_clear_fd(&mux->client);
    sf_clear_fd(&mux->wake);
    sf_clear_fd(&mux->end);
    g_async_queue_unref(mux->requests);
    g_hash_table_unref(mux->pending);
    g_ptr_array_unref(mux->inner);
    g_byte_array_unref(mux->from_qemu);
    g_byte_array_unref(mux->from_client);
    g_byte_array_unref(mux->held_bytes);
    g_array_unref(mux->client_fds);
    qmp_outbox_clear(&mux->to_qemu);
    qmp_outbox_clear(&mux->to_client);
    g_queue_clear_full(&mux->inject, g_free);
    g_queue_clear_full(&mux->waiting, command_free);
    g_clear_pointer(&mux->held, json_object_unref);
    g_free(mux->greeting);
    g_free(mux->prefix);
    g_mutex_clear(&mux->lock);
    g_cond_clear(&mux->started);
    g_free(mux);
}
