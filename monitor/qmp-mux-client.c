/*
 * Towards QEMU. The outer client's messages pass as they are, but a command that somebody in
 * Stillframe may want to answer waits until QEMU has answered everything before it (QMP answers in
 * order). Inner commands get ids of ours, and never stand inside an outer message.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include <sys/socket.h>

#include "qmp-mux-impl.h"
#include "util/autofd.h"

static void send_to_qemu(QmpMux *mux, const void *data, gsize length, GArray *fds)
{
    if (length > 0 && !mux->qemu_shut) {
        qmp_outbox_add(&mux->to_qemu, data, length, fds);
    } else if (fds) {
        g_array_unref(fds);
    }
}

/* Descriptors stay with QEMU's connection until a command takes them, so they may go early. */
static void pass_to_qemu(QmpMux *mux, const void *data, gsize length)
{
    GArray *fds = mux->client_fds;

    if (length == 0) {
        return;
    }
    mux->client_fds = qmp_fds_new();
    mux->client_dirty = TRUE;
    send_to_qemu(mux, data, length, fds);
}

/* ---- Inner commands ---- */

void mux_pump_waiting(QmpMux *mux)
{
    MuxCommand *command;

    while (!mux->mid_message && (command = g_queue_pop_head(&mux->waiting))) {
        send_to_qemu(mux, command->text, strlen(command->text), command->fds);
        g_free(command->text);
        g_free(command);
    }
}

void mux_send_inner_command(QmpMux *mux, JsonObject *command, MuxPending *pending, GArray *fds)
{
    MuxCommand *out = g_new0(MuxCommand, 1);
    char *id = g_strdup_printf("%s%" G_GUINT64_FORMAT, mux->prefix, ++mux->serial);
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);

    json_object_set_string_member(command, "id", id);
    json_node_set_object(node, command);
    g_autofree char *text = json_to_string(node, FALSE);
    out->text = g_strconcat(text, "\n", NULL);
    out->fds = fds;
    g_hash_table_insert(mux->pending, id, pending);
    g_queue_push_tail(&mux->waiting, out);
    mux_pump_waiting(mux);
}

/* An inner client may negotiate as often as it likes: QEMU has done so once. */
static void answer_negotiation(MuxInner *inner, JsonObject *command)
{
    JsonNode *id = json_object_get_member(command, "id");
    g_autofree char *id_text = id ? json_to_string(id, FALSE) : NULL;
    g_autofree char *text = id ? g_strdup_printf("{\"return\": {}, \"id\": %s}", id_text)
                               : g_strdup("{\"return\": {}}");

    mux_inner_send(inner, text, strlen(text));
}

static void take_inner_message(QmpMux *mux, MuxInner *inner, const char *text, gsize length)
{
    g_autoptr(JsonObject) command = mux_parse(text, length);
    const char *name =
        command ? json_object_get_string_member_with_default(command, "execute", NULL) : NULL;

    if (g_strcmp0(name, "qmp_capabilities") == 0) {
        answer_negotiation(inner, command);
    } else if (name) {
        MuxPending *pending = g_new0(MuxPending, 1);
        JsonNode *id = json_object_get_member(command, "id");
        GArray *fds = inner->fds;
        inner->fds = qmp_fds_new();
        pending->inner = inner;
        pending->id = id ? json_node_copy(id) : NULL;
        mux_send_inner_command(mux, command, pending, fds);
    }
}

void mux_read_inner(QmpMux *mux, MuxInner *inner)
{
    gsize length;
    QmpPiece piece;

    inner->gone = qmp_receive(inner->fd, inner->in, MUX_READ_STEP, inner->fds) == 0;
    while (inner->in->len && (piece = qmp_input_next(&inner->input, (const char *)inner->in->data,
                                                     inner->in->len, &length)) != QMP_PIECE_NONE) {
        if (piece == QMP_PIECE_MESSAGE) {
            take_inner_message(mux, inner, (const char *)inner->in->data, length);
        }
        g_byte_array_remove_range(inner->in, 0, (guint)length);
    }
}

/* ---- The outer client ---- */

/* QEMU refuses what is nested deeper; our parser would go as deep as it is led. */
#define BRACKETS_MAX 1024

static gboolean is_bushy(const char *text, gsize length)
{
    guint brackets = 0;

    for (gsize i = 0; i < length; i++) {
        brackets += text[i] == '{' || text[i] == '[';
    }
    return brackets > BRACKETS_MAX;
}

/* Words without which no message can be of interest; "\u" may spell any of them. */
static gboolean may_be_wanted(const char *text, gsize length)
{
    static const char *const words[] = { "migrat", "human-monitor-command", "getfd",
                                         "qmp_capabilities", "\\u" };

    for (guint i = 0; i < G_N_ELEMENTS(words); i++) {
        if (memmem(text, length, words[i], strlen(words[i]))) {
            return !is_bushy(text, length);
        }
    }
    return FALSE;
}

static void pass_held(QmpMux *mux)
{
    pass_to_qemu(mux, mux->held_bytes->data, mux->held_bytes->len);
    g_byte_array_set_size(mux->held_bytes, 0);
    g_clear_pointer(&mux->held, json_object_unref);
    mux->busy = FALSE;
}

void mux_barrier_passed(QmpMux *mux)
{
    mux->client_dirty = FALSE;
    if (!mux->outer.command(mux->held, mux->outer.user)) {
        pass_held(mux);
    }
}

/* The answer to a command behind those of the client tells that they have been answered. */
static void send_barrier(QmpMux *mux)
{
    JsonObject *command = json_object_new();
    MuxPending *pending = g_new0(MuxPending, 1);

    pending->barrier = TRUE;
    json_object_set_string_member(command, "execute", "query-name");
    mux_send_inner_command(mux, command, pending, NULL);
    json_object_unref(command);
}

/* TRUE: the message is held back, and the client waits. */
static gboolean hold(QmpMux *mux, const char *text, gsize length)
{
    g_autoptr(JsonObject) message = mux_parse(text, length);
    const char *name =
        message ? json_object_get_string_member_with_default(message, "execute", NULL) : NULL;

    if (!name) {
        return FALSE;
    }
    if (!mux->negotiated) {
        mux->negotiating |= strcmp(name, "qmp_capabilities") == 0;
        return FALSE;
    }
    if (!mux->outer.wants(message, mux->client_fds, mux->outer.user)) {
        return FALSE;
    }
    mux->held = g_steal_pointer(&message);
    g_byte_array_append(mux->held_bytes, (const guint8 *)text, (guint)length);
    mux->busy = TRUE;
    if (mux->client_dirty) {
        send_barrier(mux);
    } else {
        mux_barrier_passed(mux);
    }
    return TRUE;
}

void mux_answer_held(QmpMux *mux, const char *answer)
{
    if (!mux->busy) {
        return;
    }
    if (!answer) {
        pass_held(mux);
        return;
    }
    g_queue_push_tail(&mux->inject, g_strdup(answer));
    g_byte_array_set_size(mux->held_bytes, 0);
    g_clear_pointer(&mux->held, json_object_unref);
    mux->busy = FALSE;
}

/*
 * The beginning of a message waits for its end up to some size, then it passes in parts. Not while
 * an inner client may have something urgent to say, such as "cont".
 */
static gboolean take_beginning(QmpMux *mux, gsize length)
{
    if (!mux->mid_message && (length < MUX_HOLD_MAX || mux->inner->len)) {
        return FALSE;
    }
    mux->mid_message = TRUE;
    pass_to_qemu(mux, mux->from_client->data, length);
    g_byte_array_set_size(mux->from_client, 0);
    qmp_input_drop(&mux->input);
    return FALSE;
}

/* One piece; FALSE when more must come first. */
static gboolean take_piece(QmpMux *mux)
{
    GByteArray *in = mux->from_client;
    gsize length;

    QmpPiece piece = qmp_input_next(&mux->input, (const char *)in->data, in->len, &length);
    if (piece == QMP_PIECE_NONE) {
        return take_beginning(mux, length);
    }
    const char *text = (const char *)in->data;
    gboolean interesting = piece == QMP_PIECE_MESSAGE && !mux->mid_message && mux->greeting &&
                           length <= MUX_HOLD_MAX && may_be_wanted(text, length);
    if (!interesting || !hold(mux, text, length)) {
        pass_to_qemu(mux, text, length);
    }
    mux->mid_message = FALSE;
    g_byte_array_remove_range(in, 0, (guint)length);
    mux_pump_waiting(mux);
    return TRUE;
}

void mux_take_client(QmpMux *mux)
{
    while (!mux->busy && mux->from_client->len && take_piece(mux)) {
    }
}

void mux_client_gone(QmpMux *mux)
{
    sf_clear_fd(&mux->client);
    mux->client_eof = TRUE;
    qmp_outbox_clear(&mux->to_client);
}

void mux_read_client(QmpMux *mux)
{
    if (qmp_receive(mux->client, mux->from_client, MUX_READ_STEP, mux->client_fds) == 0) {
        mux->client_eof = TRUE;
    }
    mux_take_client(mux);
}
