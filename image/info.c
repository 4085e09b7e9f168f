/*
 * Collecting what an image tells of itself.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "image/info.h"
#include "migration/device-state.h"

/* Pages of one block that the image has. */
typedef struct BlockCount {
    guint64 data;
    guint64 zero;
} BlockCount;

typedef struct Count {
    ImageReader *reader;
    const ImageProgress *progress;
    BlockCount *blocks;
} Count;

static gboolean count_run(guint block, guint64 offset, const void *data, guint64 length,
                          gpointer user, GError **errp)
{
    Count *count = user;
    guint bits = image_reader_get_head(count->reader)->target_page_bits;

    *(data ? &count->blocks[block].data : &count->blocks[block].zero) += length >> bits;
    return image_progress_walk(count->progress, count->reader, errp);
}

static void set_string(JsonObject *object, const char *name, const char *text)
{
    /* JSON is UTF-8; command lines and names in foreign files need not be. */
    if (text) {
        g_autofree char *valid = g_utf8_make_valid(text, -1);
        json_object_set_string_member(object, name, valid);
    }
}

static void add_blocks(JsonObject *object, const ImageHead *head, const BlockCount *counts)
{
    JsonArray *array = json_array_new();

    for (guint i = 0; i < head->blocks->len; i++) {
        const ImageBlock *block = g_ptr_array_index(head->blocks, i);
        JsonObject *entry = json_object_new();
        set_string(entry, "name", block->name);
        json_object_set_int_member(entry, "bytes", (gint64)block->used_length);
        json_object_set_int_member(entry, "data-pages", (gint64)counts[i].data);
        json_object_set_int_member(entry, "zero-pages", (gint64)counts[i].zero);
        json_array_add_object_element(array, entry);
    }
    json_object_set_array_member(object, "blocks", array);
}

static void add_sections(JsonObject *object, const guint8 *data, gsize length)
{
    g_autoptr(GPtrArray) sections = device_state_list(data, length, NULL);
    g_autofree char *state = device_state_get_run_state(data, length);
    JsonArray *array = json_array_new();
    gint64 processors = 0;

    for (guint i = 0; sections && i < sections->len; i++) {
        const DeviceSection *section = g_ptr_array_index(sections, i);
        JsonObject *entry = json_object_new();
        set_string(entry, "section", section->name);
        json_object_set_int_member(entry, "instance", section->instance_id);
        json_object_set_int_member(entry, "version", section->version_id);
        json_object_set_int_member(entry, "length", (gint64)section->length);
        json_array_add_object_element(array, entry);
        processors += !strcmp(section->name, "cpu_common");
    }
    set_string(object, "run-state", state);
    json_object_set_int_member(object, "processors", processors);
    json_object_set_int_member(object, "device-bytes", (gint64)length);
    json_object_set_array_member(object, "devices", array);
}

static void add_strings(JsonObject *object, const char *name, const char *const *strings)
{
    JsonArray *array = json_array_new();

    for (guint i = 0; strings && strings[i]; i++) {
        g_autofree char *valid = g_utf8_make_valid(strings[i], -1);
        json_array_add_string_element(array, valid);
    }
    json_object_set_array_member(object, name, array);
}

static char *hex(const guint8 *bytes, gsize length)
{
    GString *text = g_string_new(NULL);

    for (gsize i = 0; i < length; i++) {
        g_string_append_printf(text, "%02x", bytes[i]);
    }
    return g_string_free(text, FALSE);
}

static void add_parent(JsonObject *object, const IndexParent *parent)
{
    if (parent) {
        g_autofree char *uuid = hex(parent->uuid, sizeof(parent->uuid));
        set_string(object, "parent", parent->path);
        set_string(object, "parent-uuid", uuid);
        json_object_set_boolean_member(object, "parent-needed", parent->needed);
    }
}

/* When the snapshot was; NULL where it cannot be said. */
static char *format_time(gint64 us)
{
    g_autoptr(GDateTime) time = g_date_time_new_from_unix_utc(us / G_USEC_PER_SEC);

    return time && us ? g_date_time_format_iso8601(time) : NULL;
}

static void add_statistics(JsonObject *object, const char *text)
{
    g_autoptr(JsonNode) node = text ? json_from_string(text, NULL) : NULL;

    if (node && JSON_NODE_HOLDS_OBJECT(node)) {
        json_object_set_object_member(object, "statistics", json_node_dup_object(node));
    }
}

static void add_index(JsonObject *object, const ImageIndex *index)
{
    g_autofree char *uuid = hex(index->uuid, sizeof(index->uuid));
    g_autofree char *created = format_time(index->created_us);

    set_string(object, "uuid", uuid);
    set_string(object, "created", created);
    set_string(object, "label", index->label);
    set_string(object, "target", index->target);
    set_string(object, "qemu-version", index->qemu_version);
    set_string(object, "host-kernel", index->host_kernel);
    set_string(object, "writer", index->writer);
    add_strings(object, "command-line", (const char *const *)index->command_line);
    json_object_set_int_member(object, "screen-bytes", (gint64)index->screen_length);
    add_parent(object, index->parent);
    add_statistics(object, index->statistics);
}

/* The domain's name, which stands between the first <name> and its end. */
static void add_libvirt(JsonObject *object, ImageSource *source)
{
    const guint8 *data;
    const LibvirtHeader *header = image_source_get_libvirt(source, &data);

    if (!header) {
        return;
    }
    g_autofree char *xml = libvirt_header_get_xml(header, data);
    const char *start = xml ? strstr(xml, "<name>") : NULL;
    const char *end = start ? strstr(start, "</name>") : NULL;
    if (end) {
        start += strlen("<name>");
        g_autofree char *name = g_strndup(start, (gsize)(end - start));
        set_string(object, "domain", name);
    }
    json_object_set_boolean_member(object, "libvirt", TRUE);
}

static void add_head(JsonObject *object, ImageReader *reader, const char *path)
{
    const ImageHead *head = image_reader_get_head(reader);
    ImageSource *source = image_reader_get_source(reader);
    const guint8 *uuid = image_reader_get_uuid(reader);
    g_autofree char *uuid_text = uuid ? hex(uuid, 16) : NULL;

    set_string(object, "image", path);
    json_object_set_string_member(object, "kind", image_kind_name(image_reader_get_kind(reader)));
    json_object_set_string_member(object, "compression",
                                  image_compression_name(image_source_get_compression(source)));
    json_object_set_int_member(object, "file-bytes", (gint64)image_source_get_file_size(source));
    set_string(object, "machine", head->machine_type);
    set_string(object, "machine-uuid", uuid_text);
    json_object_set_int_member(object, "page-bytes", (gint64)1 << head->target_page_bits);
    add_libvirt(object, source);
}

static gboolean add_rest(JsonObject *object, Count *count, GError **errp)
{
    ImageReader *reader = count->reader;
    const guint8 *data;
    gsize length;
    g_autoptr(GError) error = NULL;
    const ImageIndex *index = image_reader_find_index(reader, &error);

    if (error) {
        g_propagate_error(errp, g_steal_pointer(&error));
        return FALSE;
    }
    if (!image_reader_get_device_state(reader, &data, &length, errp)) {
        return FALSE;
    }
    add_blocks(object, image_reader_get_head(reader), count->blocks);
    add_sections(object, data, length);
    json_object_set_boolean_member(object, "described",
                                   image_reader_get_description(reader, &length) && length > 64);
    json_object_set_boolean_member(object, "index", index != NULL);
    if (index) {
        add_index(object, index);
    }
    return TRUE;
}

JsonObject *image_info(ImageReader *reader, const char *path, const ImageProgress *progress,
                       GError **errp)
{
    g_autoptr(JsonObject) object = json_object_new();
    g_autofree BlockCount *blocks =
        g_new0(BlockCount, image_reader_get_head(reader)->blocks->len + 1);
    Count count = { reader, progress, blocks };

    /* Finds out the size of pages where the stream does not tell it; a pipe can be read only once.
     */
    if (image_reader_is_mapped(reader) && !image_reader_foreach_page(reader, NULL, NULL, errp)) {
        return NULL;
    }
    add_head(object, reader, path);
    if (!image_reader_foreach_page(reader, count_run, &count, errp) ||
        !add_rest(object, &count, errp)) {
        return NULL;
    }
    return g_steal_pointer(&object);
}
