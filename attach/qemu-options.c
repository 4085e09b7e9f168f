/*
 * Takes QEMU's option arguments apart.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "attach/qemu-options.h"

#include <json-glib/json-glib.h>
#include <string.h>

/* Reads up to the next single comma, undoubling ",,", and moves *at behind that comma. */
static char *take_part(const char **at)
{
    GString *part = g_string_new(NULL);
    const char *c = *at;
    for (; *c; c++) {
        if (*c == ',' && c[1] == ',') {
            c++;
        } else if (*c == ',') {
            c++;
            break;
        }
        g_string_append_c(part, *c);
    }
    *at = c;
    return g_string_free(part, FALSE);
}

static void insert_flag(GHashTable *options, const char *flag)
{
    if (g_str_has_prefix(flag, "no")) {
        g_hash_table_insert(options, g_strdup(flag + 2), g_strdup("off"));
    } else {
        g_hash_table_insert(options, g_strdup(flag), g_strdup("on"));
    }
}

static void parse_text(GHashTable *options, const char *text, const char *implied_key)
{
    gboolean first = TRUE;
    while (*text) {
        g_autofree char *part = take_part(&text);
        char *equals = strchr(part, '=');
        if (equals) {
            g_hash_table_insert(options, g_strndup(part, (gsize)(equals - part)),
                                g_strdup(equals + 1));
        } else if (first && implied_key) {
            g_hash_table_insert(options, g_strdup(implied_key), g_strdup(part));
        } else {
            insert_flag(options, part);
        }
        first = FALSE;
    }
}

/* A scalar as QEMU's text form would have it. */
static char *scalar_to_text(JsonNode *node)
{
    switch (json_node_get_value_type(node)) {
    case G_TYPE_BOOLEAN:
        return g_strdup(json_node_get_boolean(node) ? "on" : "off");
    case G_TYPE_INT64:
        return g_strdup_printf("%" G_GINT64_FORMAT, json_node_get_int(node));
    case G_TYPE_STRING:
        return json_node_dup_string(node);
    default:
        return NULL;
    }
}

static void insert_object(GHashTable *options, JsonObject *object)
{
    g_autoptr(GList) names = json_object_get_members(object);
    for (GList *link = names; link; link = link->next) {
        JsonNode *node = json_object_get_member(object, link->data);
        char *text = JSON_NODE_HOLDS_VALUE(node) ? scalar_to_text(node) : NULL;
        if (text && g_hash_table_contains(options, link->data)) {
            g_free(text);
        } else if (text) {
            g_hash_table_insert(options, g_strdup(link->data), text);
        }
    }
    for (GList *link = names; link; link = link->next) {
        JsonNode *node = json_object_get_member(object, link->data);
        if (JSON_NODE_HOLDS_OBJECT(node)) {
            insert_object(options, json_node_get_object(node));
        }
    }
}

static void parse_json(GHashTable *options, const char *text)
{
    g_autoptr(JsonNode) root = json_from_string(text, NULL);
    if (root && JSON_NODE_HOLDS_OBJECT(root)) {
        insert_object(options, json_node_get_object(root));
    }
}

GHashTable *qemu_options_parse(const char *text, const char *implied_key)
{
    GHashTable *options = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    if (*text == '{') {
        parse_json(options, text);
    } else {
        parse_text(options, text, implied_key);
    }
    return options;
}

gboolean qemu_options_get_bool(GHashTable *options, const char *key)
{
    static const char *const words[] = { "on", "yes", "true", "y", NULL };
    const char *value = g_hash_table_lookup(options, key);
    return value && g_strv_contains(words, value);
}

guint64 qemu_options_parse_size(const char *text)
{
    static const char suffixes[] = "bkmgtpe";
    char *end;
    gdouble number = g_ascii_strtod(text, &end);
    int power = 2;
    if (*end) {
        const char *suffix = strchr(suffixes, g_ascii_tolower(*end));
        if (!suffix || end[1]) {
            return 0;
        }
        power = (int)(suffix - suffixes);
    }
    while (power-- > 0) {
        number *= 1024;
    }
    /* Also false for what is not a number. */
    return end != text && number >= 1 && number < 9e18 ? (guint64)number : 0;
}

GHashTable *qemu_options_parse_chardev(const char *text)
{
    GHashTable *options = qemu_options_parse(text, "short");
    const char *head = g_hash_table_lookup(options, "short");
    if (!head) {
        return options;
    }
    if (g_str_equal(head, "stdio")) {
        g_hash_table_insert(options, g_strdup("backend"), g_strdup(head));
    } else if (g_str_has_prefix(head, "unix:")) {
        g_hash_table_insert(options, g_strdup("path"), g_strdup(head + strlen("unix:")));
        g_hash_table_insert(options, g_strdup("backend"), g_strdup("socket"));
    } else if (g_str_has_prefix(head, "tcp:")) {
        head += strlen("tcp:");
        const char *colon = strrchr(head, ':');
        gsize length = colon ? (gsize)(colon - head) : 0;
        gboolean bracketed = length >= 2 && *head == '[' && head[length - 1] == ']';
        if (colon) {
            g_hash_table_insert(options, g_strdup("host"),
                                bracketed ? g_strndup(head + 1, length - 2)
                                          : g_strndup(head, length));
            g_hash_table_insert(options, g_strdup("port"), g_strdup(colon + 1));
            g_hash_table_insert(options, g_strdup("backend"), g_strdup("socket"));
        }
    }
    return options;
}
