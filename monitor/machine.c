/*
 * Typed questions about the machine: RAM blocks, type, target, run state.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "monitor/machine.h"

#include <string.h>

/* Runs @command and returns the string behind @member of the object it answers with. */
static char *query_string(QmpClient *qmp, const char *command, const char *member, JsonNode **whole,
                          GError **errp)
{
    g_autoptr(JsonNode) answer = qmp_client_execute(qmp, command, NULL, errp);
    if (!answer) {
        return NULL;
    }
    const char *text = NULL;
    if (JSON_NODE_HOLDS_OBJECT(answer)) {
        text =
            json_object_get_string_member_with_default(json_node_get_object(answer), member, NULL);
    }
    if (!text) {
        g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_PROTOCOL,
                    "QEMU's answer to \"%s\" has no \"%s\"", command, member);
        return NULL;
    }
    char *result = g_strdup(text);
    if (whole) {
        *whole = g_steal_pointer(&answer);
    }
    return result;
}

GPtrArray *machine_query_ram_blocks(QmpClient *qmp, GError **errp)
{
    g_autofree char *text = qmp_client_hmp(qmp, "info ramblock", errp);
    if (!text) {
        return NULL;
    }
    g_autoptr(GPtrArray) blocks = ram_blocks_parse(text, errp);
    if (blocks && blocks->len == 0) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "this QEMU has no RAM block that migrates; is it started with -machine none?");
        return NULL;
    }
    return g_steal_pointer(&blocks);
}

char *machine_query_type(QmpClient *qmp, GError **errp)
{
    JsonObject *arguments = json_object_new();
    json_object_set_string_member(arguments, "path", "/machine");
    json_object_set_string_member(arguments, "property", "type");
    g_autoptr(JsonNode) answer = qmp_client_execute(qmp, "qom-get", arguments, errp);
    if (!answer) {
        return NULL;
    }
    const char *type = JSON_NODE_HOLDS_VALUE(answer) ? json_node_get_string(answer) : NULL;
    /* QOM's class is the machine's name with this suffix (TYPE_MACHINE_SUFFIX in QEMU). */
    if (!type || !g_str_has_suffix(type, "-machine")) {
        g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_PROTOCOL,
                    "QEMU's machine has the type \"%s\", which does not end in \"-machine\"",
                    type ? type : "");
        return NULL;
    }
    return g_strndup(type, strlen(type) - strlen("-machine"));
}

char *machine_query_target(QmpClient *qmp, GError **errp)
{
    return query_string(qmp, "query-target", "arch", NULL, errp);
}

char *machine_query_status(QmpClient *qmp, gboolean *running, GError **errp)
{
    g_autoptr(JsonNode) whole = NULL;
    char *status = query_string(qmp, "query-status", "status", &whole, errp);
    if (status && running) {
        *running = json_object_get_boolean_member_with_default(json_node_get_object(whole),
                                                               "running", FALSE);
    }
    return status;
}
