/*
 * Device sections of a migration stream. Their bodies are known to QEMU alone and carry no length,
 * so a section's end is found by its footer, which repeats the section's id.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "migration/device-state.h"
#include "stream-format.h"

#define FRAME_HEAD 8 /* magic, version */
/* Behind the name in a header: instance and version. */
#define HEADER_TAIL 8
/* No device of QEMU is near it; a larger number means that this is not a header. */
#define SECTION_VERSION_MAX 0xffffU

gsize device_section_header_length(const DeviceSection *section)
{
    return 6 + strlen(section->name) + HEADER_TAIL;
}

gsize device_section_body_length(const DeviceSection *section)
{
    return section->length - device_section_header_length(section) - STREAM_FOOTER_BYTES;
}

const DeviceSection *device_section_find(const GPtrArray *list, const char *name, guint32 instance)
{
    for (guint i = 0; i < list->len; i++) {
        const DeviceSection *section = g_ptr_array_index(list, i);
        if (section->instance_id == instance && !strcmp(section->name, name)) {
            return section;
        }
    }
    return NULL;
}

void device_section_free(DeviceSection *section)
{
    if (section) {
        g_free(section->name);
        g_free(section);
    }
}

static guint32 read_u32(const guint8 *at)
{
    guint32 value;

    memcpy(&value, at, sizeof(value));
    return GUINT32_FROM_BE(value);
}

gboolean device_state_unframe(const guint8 *data, gsize size, gsize *start, gsize *length,
                              GError **errp)
{
    if (size < FRAME_HEAD + 1 || read_u32(data) != STREAM_MAGIC ||
        read_u32(data + 4) != STREAM_VERSION) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                    "QEMU's device state does not begin like a migration stream of version 3");
        return FALSE;
    }
    if (data[size - 1] != STREAM_EOF) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT, "QEMU's device state is cut off");
        return FALSE;
    }
    *start = FRAME_HEAD;
    *length = size - FRAME_HEAD - 1;
    return TRUE;
}

/* What stands in a header; the name is not terminated. */
typedef struct Header {
    guint32 id;
    const guint8 *name;
    guint8 name_length;
    guint32 instance_id;
    guint32 version_id;
    gsize length; /* of the header */
} Header;

/* FALSE where no header of a device section can stand at @at. */
static gboolean read_header(const guint8 *data, gsize length, gsize at, Header *header)
{
    const guint8 *p = data + at;
    gsize left = length - at;

    if (left < 6 || p[0] != STREAM_SECTION_FULL || p[5] == 0 ||
        left < 6 + (gsize)p[5] + HEADER_TAIL) {
        return FALSE;
    }
    *header = (Header){ .id = read_u32(p + 1), .name = p + 6, .name_length = p[5] };
    for (guint i = 0; i < header->name_length; i++) {
        if (!g_ascii_isprint((gchar)header->name[i])) {
            return FALSE;
        }
    }
    p += 6 + header->name_length;
    header->instance_id = read_u32(p);
    header->version_id = read_u32(p + 4);
    header->length = 6 + (gsize)header->name_length + HEADER_TAIL;
    return header->version_id <= SECTION_VERSION_MAX;
}

/* Behind the sections in a whole stream: EOF, then nothing or the description in JSON. */
static gboolean stream_ends(const guint8 *data, gsize length, gsize at)
{
    const guint8 *p = data + at;
    gsize left = length - at;

    return left >= 1 && p[0] == STREAM_EOF &&
           (left == 1 || (left >= 7 && p[1] == STREAM_VMDESCRIPTION &&
                          read_u32(p + 2) <= left - 6 && p[6] == '{'));
}

typedef struct Scan {
    const guint8 *data;
    gsize length;
    gboolean whole_stream; /* the sections end before EOF, not at the end of the data */
    GHashTable *ids;       /* seen: two sections never share one */
} Scan;

static gboolean sections_end(const Scan *scan, gsize at)
{
    return scan->whole_stream ? stream_ends(scan->data, scan->length, at) : at == scan->length;
}

static gboolean section_follows(const Scan *scan, gsize at)
{
    Header next;

    return read_header(scan->data, scan->length, at, &next) &&
           !g_hash_table_contains(scan->ids, GUINT_TO_POINTER(next.id));
}

/* The position behind the footer of the section @id whose body begins at @at; 0 for none. */
static gsize find_end(const Scan *scan, gsize at, guint32 id)
{
    guint8 footer[STREAM_FOOTER_BYTES] = { STREAM_SECTION_FOOTER };
    guint32 big_endian = GUINT32_TO_BE(id);

    memcpy(footer + 1, &big_endian, sizeof(big_endian));
    while (at < scan->length) {
        const guint8 *found =
            memmem(scan->data + at, scan->length - at, footer, STREAM_FOOTER_BYTES);
        if (!found) {
            return 0;
        }
        gsize end = (gsize)(found - scan->data) + STREAM_FOOTER_BYTES;
        if (sections_end(scan, end) || section_follows(scan, end)) {
            return end;
        }
        at = (gsize)(found - scan->data) + 1;
    }
    return 0;
}

static GPtrArray *scan_sections(Scan *scan, gsize *end, GError **errp)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func((GDestroyNotify)device_section_free);
    gsize at = 0;

    while (!sections_end(scan, at)) {
        Header header;
        if (!section_follows(scan, at) || !read_header(scan->data, scan->length, at, &header)) {
            g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                        "no device section begins at byte %zu of the device state", at);
            return NULL;
        }
        g_hash_table_add(scan->ids, GUINT_TO_POINTER(header.id));
        DeviceSection *section = g_new0(DeviceSection, 1);
        section->name = g_strndup((const char *)header.name, header.name_length);
        section->instance_id = header.instance_id;
        section->version_id = header.version_id;
        section->offset = at;
        g_ptr_array_add(list, section);
        gsize next = find_end(scan, at + header.length, header.id);
        if (!next) {
            g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                        "device section \"%s\" at byte %zu of the device state has no end; was it "
                        "cut off, or made by a machine type older than 2.4?",
                        section->name, at);
            return NULL;
        }
        section->length = next - at;
        at = next;
    }
    *end = at;
    return g_steal_pointer(&list);
}

static GPtrArray *list_sections(const guint8 *data, gsize length, gboolean whole_stream, gsize *end,
                                GError **errp)
{
    g_autoptr(GHashTable) ids = g_hash_table_new(NULL, NULL);
    Scan scan = { data, length, whole_stream, ids };

    return scan_sections(&scan, end, errp);
}

GPtrArray *device_state_list(const guint8 *data, gsize length, GError **errp)
{
    gsize end;

    return list_sections(data, length, FALSE, &end, errp);
}

GPtrArray *device_state_list_in_stream(const guint8 *data, gsize length, gsize *end, GError **errp)
{
    return list_sections(data, length, TRUE, end, errp);
}

/* The offset of globalstate's body, 0 where there is none or where it is not as it should be. */
static gsize find_run_state(const guint8 *data, gsize length)
{
    g_autoptr(GPtrArray) list = device_state_list(data, length, NULL);

    const DeviceSection *section =
        list ? device_section_find(list, STREAM_GLOBALSTATE_NAME, 0) : NULL;

    return section && device_section_body_length(section) >= 4 + STREAM_GLOBALSTATE_BUFFER
               ? section->offset + device_section_header_length(section)
               : 0;
}

gboolean device_state_set_run_state(guint8 *data, gsize length, const char *state, GError **errp)
{
    gsize body = find_run_state(data, length);
    gsize size = strlen(state) + 1;

    if (!body) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                    "the device state has no usable section \"" STREAM_GLOBALSTATE_NAME "\"");
        return FALSE;
    }
    if (size > STREAM_GLOBALSTATE_STATE) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT, "the run state \"%s\" is too long", state);
        return FALSE;
    }
    guint32 size_word = GUINT32_TO_BE((guint32)size);
    memcpy(data + body, &size_word, sizeof(size_word));
    memset(data + body + 4, 0, STREAM_GLOBALSTATE_STATE);
    memcpy(data + body + 4, state, size);
    return TRUE;
}

char *device_state_get_run_state(const guint8 *data, gsize length)
{
    gsize body = find_run_state(data, length);

    return body ? g_strndup((const char *)data + body + 4, STREAM_GLOBALSTATE_BUFFER) : NULL;
}
