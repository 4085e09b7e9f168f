/*
 * The header of libvirt's save files.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "migration/libvirt-header.h"

#define FIELDS 5
/* A domain's XML has some 10 KiB, and libvirt leaves 64 KiB to spare. */
#define DATA_MAX (64U * 1024 * 1024)

gboolean libvirt_header_begins(const guint8 *data, gsize size)
{
    return size >= LIBVIRT_MAGIC_BYTES &&
           (!memcmp(data, LIBVIRT_MAGIC, LIBVIRT_MAGIC_BYTES) ||
            !memcmp(data, LIBVIRT_MAGIC_PARTIAL, LIBVIRT_MAGIC_BYTES));
}

static gboolean check_fields(const LibvirtHeader *header, GError **errp)
{
    static const char *const programs[] = {
        [LIBVIRT_BZIP2] = "bzip2 -d", [LIBVIRT_XZ] = "xz -d", [LIBVIRT_LZOP] = "lzop -d"
    };

    if (header->version != LIBVIRT_VERSION) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "a libvirt save file of version %u; only version %u is known", header->version,
                    LIBVIRT_VERSION);
        return FALSE;
    }
    if (header->data_length > DATA_MAX || header->cookie_offset > header->data_length) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                    "the header of the libvirt save file has an impossible length: %u bytes",
                    header->data_length);
        return FALSE;
    }
    if (header->format < G_N_ELEMENTS(programs) && programs[header->format]) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "a libvirt save file that is compressed in a way that is not known here; give "
                    "the stream to standard input: tail -c +%u FILE | %s | stillframe ... -",
                    LIBVIRT_HEADER_BYTES + header->data_length + 1, programs[header->format]);
        return FALSE;
    }
    if (header->format > LIBVIRT_SPARSE) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "a libvirt save file in a format (%u) that is not known here", header->format);
        return FALSE;
    }
    return TRUE;
}

gboolean libvirt_header_parse(const guint8 *data, gsize size, LibvirtHeader *header, GError **errp)
{
    guint32 fields[FIELDS];

    if (size < LIBVIRT_HEADER_BYTES || !libvirt_header_begins(data, size)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                    "the header of a libvirt save file is cut off");
        return FALSE;
    }
    if (memcmp(data, LIBVIRT_MAGIC, LIBVIRT_MAGIC_BYTES) != 0) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                    "a libvirt save file that libvirt never finished; nothing can be restored from "
                    "it");
        return FALSE;
    }
    memcpy(fields, data + LIBVIRT_MAGIC_BYTES, sizeof(fields));
    *header = (LibvirtHeader){
        .version = GUINT32_FROM_LE(fields[0]),
        .data_length = GUINT32_FROM_LE(fields[1]),
        .was_running = GUINT32_FROM_LE(fields[2]),
        .format = GUINT32_FROM_LE(fields[3]),
        .cookie_offset = GUINT32_FROM_LE(fields[4]),
    };
    return check_fields(header, errp);
}

void libvirt_header_format(const LibvirtHeader *header, guint8 *data)
{
    const guint32 fields[FIELDS] = {
        GUINT32_TO_LE(header->version),       GUINT32_TO_LE(header->data_length),
        GUINT32_TO_LE(header->was_running),   GUINT32_TO_LE(header->format),
        GUINT32_TO_LE(header->cookie_offset),
    };

    memset(data, 0, LIBVIRT_HEADER_BYTES);
    memcpy(data, LIBVIRT_MAGIC, LIBVIRT_MAGIC_BYTES);
    memcpy(data + LIBVIRT_MAGIC_BYTES, fields, sizeof(fields));
}

char *libvirt_header_get_xml(const LibvirtHeader *header, const guint8 *data)
{
    gsize room = header->cookie_offset ? header->cookie_offset : header->data_length;
    gsize length = strnlen((const char *)data, room);

    return length && g_utf8_validate((const char *)data, (gssize)length, NULL)
               ? g_strndup((const char *)data, length)
               : NULL;
}
