/*
 * Fuzzes the reader: streams, mapped-ram, compressed, behind libvirt's header; its device sections,
 * registers, the layout of RAM and the guest's page tables; the description.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <unistd.h>

#include "fuzz.h"
#include "image/guest-pages.h"
#include "image/page-walk-x86.h"
#include "migration/device-state.h"
#include "migration/image-reader.h"

/* A list of blocks may name much memory in few bytes: pages beyond this are not looked at. */
#define RAM_MAX (256ULL * 1024 * 1024)
#define RANGES_MAX 1000

static gboolean touch(guint block, guint64 offset, const void *data, guint64 length, gpointer user,
                      GError **errp)
{
    guint64 *sum = user;
    const guint8 *bytes = data;

    for (guint64 i = 0; bytes && i < length; i += 512) {
        *sum += bytes[i];
    }
    *sum += bytes ? bytes[length - 1] : 0;
    return TRUE;
}

static guint64 ram_size(ImageReader *reader)
{
    const ImageHead *head = image_reader_get_head(reader);
    guint64 total = 0;

    for (guint i = 0; i < head->blocks->len; i++) {
        total += ((const ImageBlock *)g_ptr_array_index(head->blocks, i))->used_length;
    }
    return total;
}

static void look_inside(ImageReader *reader, const guint8 *devices, gsize length)
{
    const ImageProgress progress = { 0 };
    gsize text_length;
    const char *text = image_reader_get_description(reader, &text_length);
    g_autoptr(VmDescription) description =
        text ? vm_description_parse(text, text_length, NULL) : NULL;
    g_autoptr(GArray) cpus = x86_cpus_read(devices, length, description, NULL);
    g_autoptr(GArray) ranges =
        guest_layout_x86(image_reader_get_head(reader), devices, length, NULL);
    g_autofree char *state G_GNUC_UNUSED = device_state_get_run_state(devices, length);

    if (!cpus || !ranges || !image_reader_is_mapped(reader)) {
        return;
    }
    g_autoptr(GuestPages) pages = guest_pages_load(reader, &progress, NULL);
    g_autoptr(GArray) mapped G_GNUC_UNUSED =
        pages ? x86_walk_pages(pages, ranges, cpus, RANGES_MAX) : NULL;
}

int LLVMFuzzerTestOneInput(const guint8 *data, gsize size)
{
    char path[32];
    int fd = fuzz_file(data, size, path);
    guint64 sum = 0;
    const guint8 *devices;
    gsize length;
    g_autoptr(ImageReader) reader = image_reader_open(path, 0, NULL);

    if (reader && ram_size(reader) <= RAM_MAX &&
        image_reader_foreach_page(reader, touch, &sum, NULL) &&
        image_reader_get_device_state(reader, &devices, &length, NULL)) {
        look_inside(reader, devices, length);
        image_reader_find_index(reader, NULL);
    }
    close(fd);
    return 0;
}
