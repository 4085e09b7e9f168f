/*
 * The header that libvirt puts before a migration stream in its save files ("virsh save", memory
 * of external snapshots). Facts of the format as libvirt 9.0 writes it, little-endian on the
 * machines that Stillframe runs on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "util/error.h"

#define LIBVIRT_MAGIC "LibvirtQemudSave"
#define LIBVIRT_MAGIC_PARTIAL "LibvirtQemudPart" /* libvirt has not finished writing */
#define LIBVIRT_MAGIC_BYTES 16
#define LIBVIRT_HEADER_BYTES 92 /* magic, five u32, 56 bytes of zeros */
#define LIBVIRT_VERSION 2U

/* What libvirt's field "compressed" says. */
enum {
    LIBVIRT_RAW = 0,
    LIBVIRT_GZIP = 1,
    LIBVIRT_BZIP2 = 2,
    LIBVIRT_XZ = 3,
    LIBVIRT_LZOP = 4,
    LIBVIRT_ZSTD = 5,
    LIBVIRT_SPARSE = 6, /* QEMU's mapped-ram */
};

typedef struct LibvirtHeader {
    guint32 version;
    guint32 data_length; /* bytes between the header and the stream: XML, cookie, room to spare */
    guint32 was_running;
    guint32 format;        /* LIBVIRT_RAW ... */
    guint32 cookie_offset; /* in the data; 0: no cookie */
} LibvirtHeader;

/* Whether such a header begins at @data (@size bytes are there), finished or not. */
gboolean libvirt_header_begins(const guint8 *data, gsize size);
/* Reads LIBVIRT_HEADER_BYTES at @data. SF_ERROR_FORMAT, SF_ERROR_UNSUPPORTED with what to do. */
gboolean libvirt_header_parse(const guint8 *data, gsize size, LibvirtHeader *header, GError **errp);
/* Writes LIBVIRT_HEADER_BYTES to @data. */
void libvirt_header_format(const LibvirtHeader *header, guint8 *data);
/*
 * The domain's XML in @data (@header->data_length bytes): up to its NUL, to be freed; NULL where
 * there is none.
 */
char *libvirt_header_get_xml(const LibvirtHeader *header, const guint8 *data);
