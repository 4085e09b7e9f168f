/*
 * Comparing an image with the QEMU that shall load it, before a byte of it is loaded: what QEMU
 * would refuse is said in the user's words, and what QEMU would not notice is noticed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "incoming-impl.h"
#include "monitor/machine.h"

/* QEMU before 8 does not tell which blocks are read-only. Larger ones than this are not firmware.
 */
#define FIRMWARE_MAX (8 * 1024 * 1024ULL)
#define QEMU_TELLS_READ_ONLY 80000

void incoming_differences_init(IncomingDifferences *differences)
{
    differences->certain = g_ptr_array_new_with_free_func(g_free);
    differences->suspected = g_ptr_array_new_with_free_func(g_free);
    differences->places = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    differences->qemu_refuses = FALSE;
}

void incoming_differences_clear(IncomingDifferences *differences)
{
    g_ptr_array_unref(differences->certain);
    g_ptr_array_unref(differences->suspected);
    g_hash_table_unref(differences->places);
}

void incoming_differences_add(GPtrArray *list, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_ptr_array_add(list, g_strdup_vprintf(format, args));
    va_end(args);
}

/* In the unit in which people give it to -m. */
static char *size_text(guint64 bytes)
{
    static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB" };
    guint unit = 0;

    while (bytes && bytes % 1024 == 0 && unit + 1 < G_N_ELEMENTS(units)) {
        bytes /= 1024;
        unit++;
    }
    return g_strdup_printf("%" G_GUINT64_FORMAT " %s", bytes, units[unit]);
}

static const RamBlock *find_own(GPtrArray *blocks, const char *name)
{
    for (guint i = 0; i < blocks->len; i++) {
        const RamBlock *block = g_ptr_array_index(blocks, i);
        if (!strcmp(block->name, name)) {
            return block;
        }
    }
    return NULL;
}

static const ImageBlock *find_image(const ImageHead *head, const char *name)
{
    for (guint i = 0; i < head->blocks->len; i++) {
        const ImageBlock *block = g_ptr_array_index(head->blocks, i);
        if (!strcmp(block->name, name)) {
            return block;
        }
    }
    return NULL;
}

/* A device's own memory goes with the device, which is named already. */
static gboolean belongs_to_named_device(const IncomingDifferences *differences, const char *name)
{
    g_autofree char *place = incoming_device_place(name);

    return place && g_hash_table_contains(differences->places, place);
}

static gboolean size_fits(const ImageBlock *image, const RamBlock *own)
{
    /* A block that may grow (firmware tables) is resized by the loader. */
    return own->used_length == image->used_length ||
           (own->max_length > own->used_length && image->used_length <= own->max_length);
}

static void compare_image_block(const ImageBlock *image, GPtrArray *blocks,
                                IncomingDifferences *differences)
{
    const RamBlock *own = find_own(blocks, image->name);
    g_autofree char *image_size = size_text(image->used_length);

    if (!own) {
        incoming_differences_add(differences->certain,
                                 "memory: image has %s %s, this command line has no %s",
                                 image->name, image_size, image->name);
    } else {
        g_autofree char *own_size = size_text(own->used_length);
        incoming_differences_add(differences->certain,
                                 "memory: image has %s %s, this command line %s", image->name,
                                 image_size, own_size);
    }
    differences->qemu_refuses = TRUE;
}

/*
 * QEMU leaves a block alone that the image does not name, and the guest would find its memory
 * empty. Only read-only blocks, which firmware files fill, may be missing.
 */
static gboolean may_be_missing(const RamBlock *own, gboolean told)
{
    return told ? own->read_only : own->used_length <= FIRMWARE_MAX;
}

static gboolean compare_memory(QmpClient *qmp, const ImageHead *head,
                               IncomingDifferences *differences, GError **errp)
{
    g_autoptr(GPtrArray) blocks = machine_query_ram_blocks(qmp, errp);
    gboolean told = qmp_client_get_version(qmp) >= QEMU_TELLS_READ_ONLY;

    if (!blocks) {
        return FALSE;
    }
    for (guint i = 0; i < head->blocks->len; i++) {
        const ImageBlock *image = g_ptr_array_index(head->blocks, i);
        const RamBlock *own = find_own(blocks, image->name);
        if (!(own && size_fits(image, own)) && !belongs_to_named_device(differences, image->name)) {
            compare_image_block(image, blocks, differences);
        }
    }
    for (guint i = 0; i < blocks->len; i++) {
        const RamBlock *own = g_ptr_array_index(blocks, i);
        if (!find_image(head, own->name) && !may_be_missing(own, told) &&
            !belongs_to_named_device(differences, own->name)) {
            g_autofree char *size = size_text(own->used_length);
            incoming_differences_add(differences->certain,
                                     "memory: this command line has %s %s, image has no %s",
                                     own->name, size, own->name);
        }
    }
    return TRUE;
}

gboolean incoming_compare(QmpClient *qmp, ImageReader *reader, IncomingDifferences *differences,
                          GError **errp)
{
    const ImageHead *head = image_reader_get_head(reader);
    g_autofree char *type = machine_query_type(qmp, errp);

    if (!type) {
        return FALSE;
    }
    if (head->machine_type && strcmp(type, head->machine_type) != 0) {
        /* Another machine has other devices and memory: naming each would hide what matters. */
        incoming_differences_add(differences->certain,
                                 "machine type: image has %s, this command line %s",
                                 head->machine_type, type);
        differences->qemu_refuses = TRUE;
        return TRUE;
    }
    return incoming_compare_devices(qmp, reader, differences, errp) &&
           compare_memory(qmp, head, differences, errp);
}
