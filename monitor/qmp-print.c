/*
 * JSON in QEMU's hand.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qmp-mux-outer.h"

static void print_node(GString *text, JsonNode *node);

static void print_string(GString *text, const char *value)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_VALUE);
    json_node_set_string(node, value);
    g_autofree char *quoted = json_to_string(node, FALSE);

    g_string_append(text, quoted);
}

static void print_object(GString *text, JsonObject *object)
{
    JsonObjectIter iter;
    const char *name;
    JsonNode *member;
    gboolean first = TRUE;

    g_string_append_c(text, '{');
    json_object_iter_init_ordered(&iter, object);
    while (json_object_iter_next_ordered(&iter, &name, &member)) {
        g_string_append(text, first ? "" : ", ");
        first = FALSE;
        print_string(text, name);
        g_string_append(text, ": ");
        print_node(text, member);
    }
    g_string_append_c(text, '}');
}

static void print_node(GString *text, JsonNode *node)
{
    if (JSON_NODE_HOLDS_OBJECT(node)) {
        print_object(text, json_node_get_object(node));
    } else if (JSON_NODE_HOLDS_ARRAY(node)) {
        JsonArray *array = json_node_get_array(node);
        g_string_append_c(text, '[');
        for (guint i = 0; i < json_array_get_length(array); i++) {
            g_string_append(text, i ? ", " : "");
            print_node(text, json_array_get_element(array, i));
        }
        g_string_append_c(text, ']');
    } else {
        g_autofree char *value = json_to_string(node, FALSE);
        g_string_append(text, value);
    }
}

char *qmp_print(JsonNode *node)
{
    GString *text = g_string_new(NULL);

    print_node(text, node);
    return g_string_free(text, FALSE);
}
