/*
 * What "info migrate" and its like print, from QMP's answers, laid out as each QEMU does it. The
 * layouts were taken from the output of QEMU 7.2 and 10.0; the versions in between differ in which
 * members QMP's answer has, and each line here depends on its member.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "hmp-internal.h"

typedef enum LineKind {
    LINE_NUMBER,
    LINE_KIB,     /* bytes, shown in units of 1024 */
    LINE_DECIMAL, /* two places */
} LineKind;

/* One line "LABEL: VALUE[UNIT]", printed where the answer has the member. */
typedef struct InfoLine {
    const char *member;
    const char *label;
    const char *unit;
    LineKind kind;
    gboolean hide_zero;
} InfoLine;

static const InfoLine time_lines[] = {
    { "expected-downtime", "expected downtime", " ms" },
    { "downtime", "downtime", " ms" },
    { "setup-time", "setup", " ms" },
    { NULL },
};

static const InfoLine ram_lines[] = {
    { "transferred", "transferred ram", " kbytes", LINE_KIB },
    { "mbps", "throughput", " mbps", LINE_DECIMAL },
    { "remaining", "remaining ram", " kbytes", LINE_KIB },
    { "total", "total ram", " kbytes", LINE_KIB },
    { "duplicate", "duplicate", " pages" },
    { "skipped", "skipped", " pages" },
    { "normal", "normal", " pages" },
    { "normal-bytes", "normal bytes", " kbytes", LINE_KIB },
    { "dirty-sync-count", "dirty sync count", "" },
    { "page-size", "page size", " kbytes", LINE_KIB },
    { "multifd-bytes", "multifd bytes", " kbytes", LINE_KIB },
    { "pages-per-second", "pages-per-second", "" },
    { "dirty-pages-rate", "dirty pages rate", " pages", .hide_zero = TRUE },
    { "postcopy-requests", "postcopy request count", "", .hide_zero = TRUE },
    { "precopy-bytes", "precopy ram", " kbytes", LINE_KIB, .hide_zero = TRUE },
    { "downtime-bytes", "downtime ram", " kbytes", LINE_KIB, .hide_zero = TRUE },
    { "postcopy-bytes", "postcopy ram", " kbytes", LINE_KIB, .hide_zero = TRUE },
    { "dirty-sync-missed-zero-copy", "Zero-copy-send fallbacks happened", " times",
      .hide_zero = TRUE },
    { NULL },
};

static const InfoLine xbzrle_lines[] = {
    { "cache-size", "cache size", " bytes" },
    { "bytes", "xbzrle transferred", " kbytes", LINE_KIB },
    { "pages", "xbzrle pages", " pages" },
    { "cache-miss", "xbzrle cache miss", " pages" },
    { "cache-miss-rate", "xbzrle cache miss rate", "", LINE_DECIMAL },
    { "encoding-rate", "xbzrle encoding rate", "", LINE_DECIMAL },
    { "overflow", "xbzrle overflow", "" },
    { NULL },
};

static JsonObject *get_object(JsonObject *object, const char *name)
{
    JsonNode *node = json_object_get_member(object, name);
    return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

static void add_line(GString *text, const InfoLine *line, JsonObject *object)
{
    gint64 number = json_object_get_int_member_with_default(object, line->member, 0);
    if (line->hide_zero && number == 0) {
        return;
    }
    g_string_append_printf(text, "%s: ", line->label);
    if (line->kind == LINE_DECIMAL) {
        g_string_append_printf(text, "%0.2f",
                               json_object_get_double_member_with_default(object, line->member, 0));
    } else {
        g_string_append_printf(text, "%" G_GUINT64_FORMAT,
                               (guint64)number >> (line->kind == LINE_KIB ? 10 : 0));
    }
    g_string_append_printf(text, "%s\r\n", line->unit);
}

static void add_lines(GString *text, const InfoLine *lines, JsonObject *object)
{
    for (; object && lines->member; lines++) {
        if (json_object_has_member(object, lines->member)) {
            add_line(text, lines, object);
        }
    }
}

char *hmp_info_capabilities(JsonNode *capabilities)
{
    g_autoptr(GString) text = g_string_new(NULL);
    JsonArray *array =
        JSON_NODE_HOLDS_ARRAY(capabilities) ? json_node_get_array(capabilities) : NULL;
    for (guint i = 0; array && i < json_array_get_length(array); i++) {
        JsonObject *each = json_array_get_object_element(array, i);
        g_string_append_printf(
            text, "%s: %s\r\n", json_object_get_string_member_with_default(each, "capability", "?"),
            json_object_get_boolean_member_with_default(each, "state", FALSE) ? "on" : "off");
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}

/* The line of one of our parameters, or NULL where @parameters does not tell it. */
static char *format_parameter(const char *name, JsonObject *parameters)
{
    if (!json_object_has_member(parameters, name)) {
        return NULL;
    }
    if (g_str_equal(name, "direct-io")) {
        gboolean on = json_object_get_boolean_member_with_default(parameters, name, FALSE);
        return g_strdup_printf("%s: %s", name, on ? "on" : "off");
    }
    gint64 number = json_object_get_int_member_with_default(parameters, name, 0);
    return g_strdup_printf("%s: %" G_GINT64_FORMAT "%s", name, number,
                           g_str_equal(name, "max-bandwidth") ? " bytes/second" : "");
}

/* Replaces the line of @name in @lines; puts it last where there is none. */
static void put_parameter(GPtrArray *lines, const char *name, JsonObject *parameters)
{
    char *line = format_parameter(name, parameters);
    g_autofree char *prefix = g_strconcat(name, ": ", NULL);
    for (guint i = 0; line && i < lines->len; i++) {
        if (g_str_has_prefix(lines->pdata[i], prefix)) {
            g_free(lines->pdata[i]);
            lines->pdata[i] = g_steal_pointer(&line);
        }
    }
    if (line) {
        g_ptr_array_add(lines, line);
    }
}

char *hmp_info_parameters(const char *qemu_text, JsonNode *parameters)
{
    static const char *const names[] = { "max-bandwidth", "multifd-channels", "direct-io" };
    if (!JSON_NODE_HOLDS_OBJECT(parameters)) {
        return g_strdup(qemu_text);
    }
    g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func(g_free);
    g_auto(GStrv) split = g_strsplit(qemu_text, "\r\n", -1);
    for (char **line = split; *line; line++) {
        if (**line) {
            g_ptr_array_add(lines, g_strdup(*line));
        }
    }
    for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
        put_parameter(lines, names[i], json_node_get_object(parameters));
    }
    g_ptr_array_add(lines, g_strdup(""));
    g_ptr_array_add(lines, NULL);
    return g_strjoinv("\r\n", (char **)lines->pdata);
}

/* Members of a migration by QEMU itself whose lines are QEMU's alone. */
static gboolean is_qemus_own(JsonObject *info)
{
    static const char *const members[] = { "disk",
                                           "compression",
                                           "vfio",
                                           "socket-address",
                                           "cpu-throttle-percentage",
                                           "postcopy-blocktime",
                                           "postcopy-vcpu-blocktime",
                                           "postcopy-latency",
                                           "dirty-limit-throttle-time-per-round",
                                           "dirty-limit-ring-full-time" };
    for (guint i = 0; i < G_N_ELEMENTS(members); i++) {
        if (json_object_has_member(info, members[i])) {
            return TRUE;
        }
    }
    return FALSE;
}

/* The block that begins with "globals:": lines "name-of-a-property: value". */
static void add_globals(GString *text, const char *qemu_text)
{
    static const char head[] = "globals:\r\n";
    if (!g_str_has_prefix(qemu_text, head)) {
        return;
    }
    const char *end = qemu_text + strlen(head);
    for (;;) {
        gsize name = strspn(end, "abcdefghijklmnopqrstuvwxyz-");
        const char *next = strstr(end, "\r\n");
        if (name == 0 || end[name] != ':' || !next || g_str_has_prefix(end, "downtime:")) {
            break;
        }
        end = next + 2;
    }
    g_string_append_len(text, qemu_text, end - qemu_text);
}

static void add_blocked_reasons(GString *text, JsonObject *info)
{
    JsonNode *node = json_object_get_member(info, "blocked-reasons");
    if (!node || !JSON_NODE_HOLDS_ARRAY(node)) {
        return;
    }
    JsonArray *reasons = json_node_get_array(node);
    g_string_append(text, "Outgoing migration blocked:\r\n");
    for (guint i = 0; i < json_array_get_length(reasons); i++) {
        g_string_append_printf(text, "  %s\r\n", json_array_get_string_element(reasons, i));
    }
}

static void add_status(GString *text, JsonObject *info)
{
    const char *status = json_object_get_string_member_with_default(info, "status", NULL);
    const char *error = json_object_get_string_member_with_default(info, "error-desc", NULL);
    if (!status) {
        return;
    }
    g_string_append_printf(text, "Migration status: %s", status);
    if (error && g_str_equal(status, "failed")) {
        g_string_append_printf(text, " (%s)", error);
    }
    g_string_append_printf(text, "\r\ntotal time: %" G_GINT64_FORMAT " ms\r\n",
                           json_object_get_int_member_with_default(info, "total-time", 0));
    add_lines(text, time_lines, info);
}

char *hmp_info_migrate(const char *qemu_text, JsonNode *node, guint version)
{
    JsonObject *info = JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
    if (!info || is_qemus_own(info)) {
        return g_strdup(qemu_text);
    }
    g_autoptr(GString) text = g_string_new(NULL);
    add_globals(text, qemu_text);
    add_blocked_reasons(text, info);
    add_status(text, info);
    add_lines(text, ram_lines, get_object(info, "ram"));
    add_lines(text, xbzrle_lines, get_object(info, "xbzrle-cache"));
    return g_string_free(g_steal_pointer(&text), FALSE);
}
