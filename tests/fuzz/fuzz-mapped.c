/*
 * Fuzzes the list of blocks and the bitmaps of mapped-ram images: the head before them is right.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include <unistd.h>

#include "fuzz.h"
#include "migration/image-reader.h"

/* Magic, version, CONFIGURATION "m" with the capability, START of "ram". */
static const guint8 head[] = "QEVM\0\0\0\3"
                             "\7\0\0\0\1m"
                             "\5\x1a"
                             "configuration/capabilities"
                             "\0\0\0\1\0\0\0\1\x0a"
                             "mapped-ram"
                             "\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4";

static gboolean touch(guint block, guint64 offset, const void *data, guint64 length, gpointer user,
                      GError **errp)
{
    guint64 *left = user;
    volatile guint8 sink;

    if (data) {
        sink = ((const guint8 *)data)[0];
        sink = ((const guint8 *)data)[length - 1];
        (void)sink;
    }
    return (*left)-- > 0;
}

int LLVMFuzzerTestOneInput(const guint8 *data, gsize size)
{
    g_autofree guint8 *image = g_malloc(sizeof(head) - 1 + size);
    guint64 runs = 100000;
    char path[32];

    memcpy(image, head, sizeof(head) - 1);
    memcpy(image + sizeof(head) - 1, data, size);
    int fd = fuzz_file(image, sizeof(head) - 1 + size, path);
    g_autoptr(ImageReader) reader = image_reader_open(path, 0, NULL);
    /* A function that returns FALSE sets no error here: none is asked for. */
    if (reader) {
        image_reader_foreach_page(reader, touch, &runs, NULL);
    }
    close(fd);
    return 0;
}
