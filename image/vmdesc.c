/*
 * Looking up fields in QEMU's description of device sections.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <json-glib/json-glib.h>
#include <string.h>

#include "image/vmdesc.h"

/* QEMU nests some ten levels; a parser that recurses must not be led deeper than its stack. */
#define DEPTH_MAX 64
/* No section of a device is near it. */
#define FIELD_END_MAX ((gint64)1 << 40)

struct VmDescription {
    JsonNode *root;
    JsonArray *devices; /* owned by root */
};

static gboolean depth_is_sane(const char *text, gsize length)
{
    gboolean quoted = FALSE;
    int depth = 0;

    for (gsize i = 0; i < length && depth <= DEPTH_MAX; i++) {
        if (quoted && text[i] == '\\') {
            i++;
        } else if (text[i] == '"') {
            quoted = !quoted;
        } else if (!quoted && (text[i] == '{' || text[i] == '[')) {
            depth++;
        } else if (!quoted && (text[i] == '}' || text[i] == ']')) {
            depth--;
        }
    }
    return depth <= DEPTH_MAX;
}

static JsonArray *get_array(JsonObject *object, const char *name)
{
    JsonNode *node = object ? json_object_get_member(object, name) : NULL;

    return node && JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node) : NULL;
}

static JsonObject *get_object(JsonArray *array, guint index)
{
    JsonNode *node = json_array_get_element(array, index);

    return JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

static const char *get_string(JsonObject *object, const char *name)
{
    JsonNode *node = json_object_get_member(object, name);

    return node && JSON_NODE_HOLDS_VALUE(node) ? json_node_get_string(node) : NULL;
}

static gint64 get_int(JsonObject *object, const char *name, gint64 otherwise)
{
    JsonNode *node = json_object_get_member(object, name);

    return node && JSON_NODE_HOLDS_VALUE(node) ? json_node_get_int(node) : otherwise;
}

VmDescription *vm_description_parse(const char *text, gsize length, GError **errp)
{
    g_autoptr(JsonParser) parser = json_parser_new();
    g_autoptr(GError) error = NULL;

    /* json-glib takes no text with NUL in it, and QEMU writes UTF-8. */
    if (!depth_is_sane(text, length) || !g_utf8_validate(text, (gssize)length, NULL) ||
        !json_parser_load_from_data(parser, text, (gssize)length, &error)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                    "the description of the devices is no JSON%s%s", error ? ": " : "",
                    error ? error->message : "");
        return NULL;
    }
    JsonNode *root = json_parser_get_root(parser);
    JsonArray *devices = root && JSON_NODE_HOLDS_OBJECT(root)
                             ? get_array(json_node_get_object(root), "devices")
                             : NULL;
    if (!devices) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                    "the description of the devices names no devices");
        return NULL;
    }
    VmDescription *description = g_new0(VmDescription, 1);
    description->root = json_node_ref(root);
    description->devices = devices;
    return description;
}

void vm_description_free(VmDescription *description)
{
    if (description) {
        json_node_unref(description->root);
        g_free(description);
    }
}

guint vm_description_count(const VmDescription *description)
{
    return json_array_get_length(description->devices);
}

static JsonArray *find_fields(const VmDescription *description, const char *section,
                              guint32 instance)
{
    for (guint i = 0; i < json_array_get_length(description->devices); i++) {
        JsonObject *device = get_object(description->devices, i);
        const char *name = device ? get_string(device, "name") : NULL;
        if (name && !strcmp(name, section) && get_int(device, "instance_id", -1) == instance) {
            return get_array(device, "fields");
        }
    }
    return NULL;
}

gboolean vm_description_find(const VmDescription *description, const char *section,
                             guint32 instance, const char *name, VmField *field)
{
    JsonArray *fields = find_fields(description, section, instance);
    gint64 at = 0;

    for (guint i = 0; fields && i < json_array_get_length(fields); i++) {
        JsonObject *entry = get_object(fields, i);
        const char *entry_name = entry ? get_string(entry, "name") : NULL;
        gint64 size = entry ? get_int(entry, "size", -1) : -1;
        gint64 count = entry ? get_int(entry, "array_len", 1) : -1;
        if (size < 0 || count < 0 || size > FIELD_END_MAX || count > FIELD_END_MAX ||
            (count && size > (FIELD_END_MAX - at) / count)) {
            return FALSE;
        }
        if (entry_name && !strcmp(entry_name, name)) {
            *field = (VmField){ (gsize)at, (gsize)size, (gsize)count };
            return TRUE;
        }
        at += size * count;
    }
    return FALSE;
}
