/*
 * Comparing an image with the QEMU that shall load it, before a byte of it is loaded: what QEMU
 * would refuse is said in the user's words, and what QEMU would not notice is noticed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "device-capture.h"
#include "incoming-impl.h"
#include "migration/device-state.h"
#include "monitor/machine.h"

/* QEMU before 8 does not tell which blocks are read-only. Larger ones than this are not firmware.
 */
#define FIRMWARE_MAX (8 * 1024 * 1024ULL)
#define QEMU_TELLS_READ_ONLY 80000

void incoming_differences_clear(IncomingDifferences *differences)
{
    g_clear_pointer(&differences->certain, g_ptr_array_unref);
    g_clear_pointer(&differences->suspected, g_ptr_array_unref);
}

static void add(GPtrArray *list, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void add(GPtrArray *list, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_ptr_array_add(list, g_strdup_vprintf(format, args));
    va_end(args);
}

/* As people give it to -m. */
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

/*
 * A device that a command line puts on a bus: "0000:00:03.0/virtio-net" (PCI, and what hangs on a
 * PCI controller) or "virtio-mmio@...". Other sections may come and go with the state that is in
 * them (VMStateDescription.needed), so their presence proves nothing.
 */
static gboolean is_bus_device(const char *name)
{
    static const char pattern[] = "xxxx:xx:xx.x";

    if (g_str_has_prefix(name, "virtio-mmio@")) {
        return TRUE;
    }
    for (guint i = 0; pattern[i]; i++) {
        if (pattern[i] == 'x' ? !g_ascii_isxdigit(name[i]) : name[i] != pattern[i]) {
            return FALSE;
        }
    }
    return TRUE;
}

/* The set of the buses' places (what stands before the first '/') that differ. */
static gboolean place_differs(GHashTable *places, const char *name)
{
    g_autofree char *place = g_strndup(name, strcspn(name, "/"));

    return is_bus_device(name) && g_hash_table_contains(places, place);
}

static void note_place(GHashTable *places, const char *name)
{
    g_hash_table_add(places, g_strndup(name, strcspn(name, "/")));
}

static gboolean compare_machine(QmpClient *qmp, const ImageHead *head,
                                IncomingDifferences *differences, gboolean *same, GError **errp)
{
    g_autofree char *type = machine_query_type(qmp, errp);

    if (!type) {
        return FALSE;
    }
    *same = !head->machine_type || !strcmp(type, head->machine_type);
    if (!*same) {
        add(differences->certain, "machine type: image has %s, this command line %s",
            head->machine_type, type);
        differences->qemu_refuses = TRUE;
    }
    return TRUE;
}

static const RamBlock *find_ram(GPtrArray *blocks, const char *name)
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

static void compare_image_block(const ImageBlock *image, GPtrArray *blocks,
                                IncomingDifferences *differences)
{
    const RamBlock *here = find_ram(blocks, image->name);
    g_autofree char *there_size = size_text(image->used_length);

    if (!here) {
        add(differences->certain, "memory: image has %s %s, this command line has no %s",
            image->name, there_size, image->name);
    } else if (here->used_length == image->used_length ||
               (here->max_length > here->used_length && image->used_length <= here->max_length)) {
        /* A block that may grow (firmware tables) is resized by the loader. */
        return;
    } else {
        g_autofree char *here_size = size_text(here->used_length);
        add(differences->certain, "memory: image has %s %s, this command line %s", image->name,
            there_size, here_size);
    }
    differences->qemu_refuses = TRUE;
}

/*
 * QEMU leaves a block alone that the image does not name, and the guest would find its memory
 * empty. Only read-only blocks, which firmware files fill, may be missing.
 */
static void compare_own_block(const RamBlock *here, gboolean told, const ImageHead *head,
                              IncomingDifferences *differences)
{
    gboolean may_miss = told ? here->read_only : here->used_length <= FIRMWARE_MAX;

    if (!may_miss && !find_image(head, here->name)) {
        g_autofree char *size = size_text(here->used_length);
        add(differences->certain, "memory: this command line has %s %s, image has no %s",
            here->name, size, here->name);
    }
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
        compare_image_block(g_ptr_array_index(head->blocks, i), blocks, differences);
    }
    for (guint i = 0; i < blocks->len; i++) {
        compare_own_block(g_ptr_array_index(blocks, i), told, head, differences);
    }
    return TRUE;
}

/* ---- devices ---- */

/*
 * QEMU's own device state can be asked for only where every device has one: with a device that
 * cannot migrate, QEMU 7.2 crashes in xen-save-devices-state.
 */
static gboolean can_ask_devices(QmpClient *qmp)
{
    g_autoptr(JsonNode) info = qmp_client_execute(qmp, "query-migrate", NULL, NULL);

    return info && JSON_NODE_HOLDS_OBJECT(info) &&
           !json_object_has_member(json_node_get_object(info), "blocked-reasons");
}

/*
 * The device sections that this QEMU would write. What the command notes about the run state is
 * overwritten by the load that follows.
 */
static GPtrArray *list_own_devices(QmpClient *qmp, GError **errp)
{
    DeviceCapture capture = { .memfd = -1, .fdset = -1 };
    GPtrArray *list = NULL;

    if (device_capture_prepare(&capture, qmp, errp) && device_capture_save(&capture, qmp, errp) &&
        device_capture_read(&capture, NULL, errp)) {
        list = device_state_list(capture.data, capture.length, errp);
    }
    device_capture_clear(&capture, qmp);
    return list;
}

static gboolean has_section(GPtrArray *list, const DeviceSection *wanted)
{
    for (guint i = 0; i < list->len; i++) {
        const DeviceSection *section = g_ptr_array_index(list, i);
        if (section->instance_id == wanted->instance_id && !strcmp(section->name, wanted->name)) {
            return TRUE;
        }
    }
    return FALSE;
}

static guint count_named(GPtrArray *list, const char *name)
{
    guint count = 0;

    for (guint i = 0; i < list->len; i++) {
        count += !strcmp(((const DeviceSection *)g_ptr_array_index(list, i))->name, name);
    }
    return count;
}

static void compare_processors(GPtrArray *image, GPtrArray *own, IncomingDifferences *differences)
{
    guint there = count_named(image, "cpu_common");
    guint here = count_named(own, "cpu_common");

    if (there != here) {
        add(differences->certain, "processors: image has %u, this command line %u", there, here);
        /* Too few it refuses; too many would start with the others. */
        differences->qemu_refuses |= there > here;
    }
}

static void compare_sections(GPtrArray *image, GPtrArray *own, IncomingDifferences *differences)
{
    compare_processors(image, own, differences);
    for (guint i = 0; i < image->len; i++) {
        const DeviceSection *section = g_ptr_array_index(image, i);
        if (has_section(own, section)) {
            continue;
        }
        if (is_bus_device(section->name)) {
            add(differences->certain, "device %s is in the image and not on this command line",
                section->name);
            differences->qemu_refuses = TRUE;
        } else {
            add(differences->suspected,
                "device section %s (instance %u) is in the image and not in this QEMU",
                section->name, section->instance_id);
        }
    }
    for (guint i = 0; i < own->len; i++) {
        const DeviceSection *section = g_ptr_array_index(own, i);
        if (is_bus_device(section->name) && !has_section(image, section)) {
            add(differences->certain, "device %s is on this command line and not in the image",
                section->name);
        }
    }
}

static gboolean compare_devices(QmpClient *qmp, ImageReader *reader,
                                IncomingDifferences *differences, GError **errp)
{
    const guint8 *data;
    gsize length;

    if (!can_ask_devices(qmp)) {
        return TRUE;
    }
    if (!image_reader_get_device_state(reader, &data, &length, errp)) {
        return FALSE;
    }
    g_autoptr(GPtrArray) image = device_state_list(data, length, errp);
    g_autoptr(GPtrArray) own = image ? list_own_devices(qmp, errp) : NULL;
    if (!own) {
        return FALSE;
    }
    compare_sections(image, own, differences);
    return TRUE;
}

gboolean incoming_compare(QmpClient *qmp, ImageReader *reader, IncomingDifferences *differences,
                          GError **errp)
{
    const ImageHead *head = image_reader_get_head(reader);
    gboolean same_machine;

    differences->certain = g_ptr_array_new_with_free_func(g_free);
    differences->suspected = g_ptr_array_new_with_free_func(g_free);
    if (!compare_machine(qmp, head, differences, &same_machine, errp) ||
        !compare_memory(qmp, head, differences, errp)) {
        return FALSE;
    }
    /* Another machine has other devices: naming each would only hide what matters. */
    return !same_machine || compare_devices(qmp, reader, differences, errp);
}
