/*
 * From QEMU: answers to inner commands go to their clients, events to everybody, everything else to
 * the outer client. As long as no inner client is there, bytes pass through as they come.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "qmp-mux-impl.h"

JsonObject *mux_parse(const void *text, gsize length)
{
    g_autoptr(JsonParser) parser = json_parser_new();

    if (!json_parser_load_from_data(parser, text, (gssize)length, NULL)) {
        return NULL;
    }
    JsonNode *root = json_parser_get_root(parser);
    return root && JSON_NODE_HOLDS_OBJECT(root) ? json_node_dup_object(root) : NULL;
}

void mux_inner_send(MuxInner *inner, const char *text, gsize length)
{
    qmp_outbox_add(&inner->out, text, length, NULL);
    qmp_outbox_add(&inner->out, "\r\n", 2, NULL);
}

void mux_pump_inject(QmpMux *mux)
{
    while (mux->at_line && !g_queue_is_empty(&mux->inject)) {
        g_autofree char *text = g_queue_pop_head(&mux->inject);
        if (mux->client >= 0) {
            qmp_outbox_add(&mux->to_client, text, strlen(text), NULL);
            qmp_outbox_add(&mux->to_client, "\r\n", 2, NULL);
        }
    }
}

static void pass_to_client(QmpMux *mux, gsize length)
{
    if (length == 0) {
        return;
    }
    if (mux->client >= 0) {
        qmp_outbox_add(&mux->to_client, mux->from_qemu->data, length, NULL);
    }
    mux->at_line = mux->framer.depth == 0 && mux->from_qemu->data[length - 1] == '\n';
}

static void drop_input(QmpMux *mux, gsize length)
{
    g_byte_array_remove_range(mux->from_qemu, 0, (guint)length);
    mux->framer.scanned = 0;
}

static void answer_inner(QmpMux *mux, MuxPending *pending, JsonObject *message)
{
    if (pending->negotiation) {
        g_mutex_lock(&mux->lock);
        mux->negotiated = json_object_has_member(message, "return");
        g_cond_broadcast(&mux->started);
        g_mutex_unlock(&mux->lock);
    }
    if (pending->barrier) {
        mux_barrier_passed(mux);
    }
    if (!pending->inner) {
        return;
    }
    json_object_remove_member(message, "id");
    if (pending->id) {
        json_object_set_member(message, "id", json_node_copy(pending->id));
    }
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);
    json_node_set_object(node, message);
    g_autofree char *text = json_to_string(node, FALSE);
    mux_inner_send(pending->inner, text, strlen(text));
}

/* Whether the message is the answer to an inner command; then it has been delivered. */
static gboolean take_inner_answer(QmpMux *mux, const char *text, gsize length)
{
    if (!memmem(text, length, mux->prefix, strlen(mux->prefix))) {
        return FALSE;
    }
    g_autoptr(JsonObject) message = mux_parse(text, length);
    JsonNode *id = message ? json_object_get_member(message, "id") : NULL;
    const char *name = id && JSON_NODE_HOLDS_VALUE(id) ? json_node_get_string(id) : NULL;
    MuxPending *pending = name ? g_hash_table_lookup(mux->pending, name) : NULL;
    if (!pending) {
        return FALSE;
    }
    g_autofree char *key = g_strdup(name);
    answer_inner(mux, pending, message);
    g_hash_table_remove(mux->pending, key);
    return TRUE;
}

static void take_greeting(QmpMux *mux, const char *text, gsize length)
{
    mux->greeting = g_strndup(text, length);
    if (!mux->has_outer) {
        JsonObject *command = json_object_new();
        MuxPending *pending = g_new0(MuxPending, 1);
        pending->negotiation = TRUE;
        json_object_set_string_member(command, "execute", "qmp_capabilities");
        mux_send_inner_command(mux, command, pending, NULL);
        json_object_unref(command);
    }
}

/* An event, or an answer of the outer client's. */
static void look_at_message(QmpMux *mux, const char *text, gsize length)
{
    g_autoptr(JsonObject) message = mux_parse(text, length);

    if (message && json_object_has_member(message, "event")) {
        for (guint i = 0; i < mux->inner->len; i++) {
            mux_inner_send(mux->inner->pdata[i], text, length);
        }
    } else if (message && mux->negotiating) {
        mux->negotiating = FALSE;
        mux->negotiated = json_object_has_member(message, "return");
    }
}

/* The message that ends at @length. TRUE: it is none of the outer client's. */
static gboolean take_message(QmpMux *mux, gsize length)
{
    const char *text = (const char *)mux->from_qemu->data;

    if (!mux->greeting) {
        take_greeting(mux, text, length);
    } else if (g_hash_table_size(mux->pending) && take_inner_answer(mux, text, length)) {
        return TRUE;
    } else if (mux->inner->len || mux->negotiating) {
        look_at_message(mux, text, length);
    }
    return FALSE;
}

/* Whether a message must be looked at as a whole before its first byte may pass. */
static gboolean needs_whole(QmpMux *mux)
{
    return !mux->streaming && mux->from_qemu->len < MUX_WHOLE_MAX &&
           (!mux->greeting || mux->negotiating || mux->inner->len ||
            g_hash_table_size(mux->pending));
}

/* The line ends between messages. */
static gboolean take_space(QmpMux *mux)
{
    GByteArray *in = mux->from_qemu;
    guint space = 0;

    if (mux->framer.depth || mux->framer.in_string) {
        return FALSE;
    }
    while (space < in->len && g_ascii_isspace(in->data[space])) {
        space++;
    }
    if (space == 0) {
        return FALSE;
    }
    if (!mux->swallow) {
        pass_to_client(mux, space);
    }
    drop_input(mux, space);
    return TRUE;
}

/* One step through what has come; FALSE when more must come first. */
static gboolean take_some(QmpMux *mux)
{
    GByteArray *in = mux->from_qemu;

    if (in->len == 0) {
        return FALSE;
    }
    if (mux->framer.scanned == 0 && !mux->streaming && take_space(mux)) {
        return TRUE;
    }
    gsize end = qmp_framer_scan(&mux->framer, (const char *)in->data, in->len);
    if (end == 0 && needs_whole(mux)) {
        return FALSE;
    }
    gboolean whole = end > 0;
    if (whole) {
        mux->swallow = !mux->streaming && take_message(mux, end);
    }
    end = whole ? end : in->len;
    if (!(whole && mux->swallow)) {
        pass_to_client(mux, end);
        mux->at_line = FALSE;
    }
    mux->streaming = !whole;
    drop_input(mux, end);
    return TRUE;
}

void mux_read_qemu(QmpMux *mux)
{
    g_autoptr(GArray) fds = qmp_fds_new();
    gssize got = qmp_receive(mux->qemu, mux->from_qemu, MUX_READ_STEP, fds);

    mux->qemu_gone = got == 0;
    while (take_some(mux)) {
        mux_pump_inject(mux);
    }
}
