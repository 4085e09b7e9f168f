/*
 * Fuzzes the header of libvirt's save files, and what is opened behind it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <unistd.h>

#include "fuzz.h"
#include "migration/image-source.h"

int LLVMFuzzerTestOneInput(const guint8 *data, gsize size)
{
    LibvirtHeader header;
    char path[32];

    if (libvirt_header_parse(data, size, &header, NULL) &&
        header.data_length <= size - LIBVIRT_HEADER_BYTES) {
        g_autofree char *xml G_GNUC_UNUSED =
            libvirt_header_get_xml(&header, data + LIBVIRT_HEADER_BYTES);
        guint8 again[LIBVIRT_HEADER_BYTES];
        libvirt_header_format(&header, again);
        g_assert_cmpmem(again, LIBVIRT_HEADER_BYTES - 56, data, LIBVIRT_HEADER_BYTES - 56);
    }
    int fd = fuzz_file(data, size, path);
    g_autoptr(ImageSource) source = image_source_open(path, 0, NULL);
    guint8 buffer[4096];
    gsize mapped;
    /* Not for ever: a small file may hold much. */
    for (guint i = 0; source && !image_source_get_map(source, &mapped) && i < 64 &&
                      image_source_read(source, buffer, sizeof(buffer), NULL) > 0;
         i++) {
    }
    close(fd);
    return 0;
}
