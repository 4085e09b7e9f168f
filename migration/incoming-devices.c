/*
 * Comparing the device sections of an image with those that a waiting QEMU would write itself.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device-capture.h"
#include "incoming-impl.h"
#include "migration/device-state.h"

/*
 * QEMU's own device state can be asked for only where every device has one: with a device that
 * cannot migrate, QEMU 7.2 crashes in xen-save-devices-state.
 */
static gboolean can_ask(QmpClient *qmp)
{
    g_autoptr(JsonNode) info = qmp_client_execute(qmp, "query-migrate", NULL, NULL);

    return info && JSON_NODE_HOLDS_OBJECT(info) &&
           !json_object_has_member(json_node_get_object(info), "blocked-reasons");
}

/*
 * The sections that this QEMU would write. What the command notes about the run state on the way is
 * overwritten by the load that follows.
 */
static GPtrArray *list_own(QmpClient *qmp, GError **errp)
{
    DeviceCapture capture = { .memfd = -1, .fdset = -1 };
    GPtrArray *list = NULL;

    if (device_capture_prepare(&capture, qmp, FALSE, errp) &&
        device_capture_save(&capture, qmp, errp) && device_capture_read(&capture, NULL, errp)) {
        list = device_state_list(capture.data, capture.length, errp);
    }
    device_capture_clear(&capture, qmp);
    return list;
}

/*
 * The place of a device that a command line puts on a bus: "0000:00:03.0" of
 * "0000:00:03.0/virtio-net" (PCI, and what hangs on a PCI controller), or "virtio-mmio@...". NULL
 * for the others: their sections may come and go with the state that is in them
 * (VMStateDescription.needed), so their presence proves nothing.
 */
char *incoming_device_place(const char *name)
{
    static const char pattern[] = "xxxx:xx:xx.x";
    gboolean pci = TRUE;

    for (guint i = 0; pattern[i] && pci; i++) {
        pci = pattern[i] == 'x' ? g_ascii_isxdigit(name[i]) : name[i] == pattern[i];
    }
    return pci || g_str_has_prefix(name, "virtio-mmio@") ? g_strndup(name, strcspn(name, "/"))
                                                         : NULL;
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

/* Too few processors QEMU refuses; with too many the rest would begin at the reset vector. */
static void compare_processors(GPtrArray *image, GPtrArray *own, IncomingDifferences *differences)
{
    guint there = count_named(image, "cpu_common");
    guint here = count_named(own, "cpu_common");

    if (there != here) {
        incoming_differences_add(differences->certain,
                                 "processors: image has %u, this command line %u", there, here);
        differences->qemu_refuses |= there > here;
    }
}

/* The sections of @image that @own lacks. */
static void compare_image(GPtrArray *image, GPtrArray *own, IncomingDifferences *differences)
{
    for (guint i = 0; i < image->len; i++) {
        const DeviceSection *section = g_ptr_array_index(image, i);
        char *place = incoming_device_place(section->name);
        if (has_section(own, section)) {
            g_free(place);
        } else if (place) {
            incoming_differences_add(differences->certain,
                                     "device %s is in the image and not on this command line",
                                     section->name);
            g_hash_table_add(differences->places, place);
            differences->qemu_refuses = TRUE;
        } else {
            incoming_differences_add(
                differences->suspected,
                "device section %s (instance %u) is in the image and not in this QEMU",
                section->name, section->instance_id);
        }
    }
}

/* The other way round: QEMU would load it without a word, and the guest meet a new device. */
static void compare_own(GPtrArray *image, GPtrArray *own, IncomingDifferences *differences)
{
    for (guint i = 0; i < own->len; i++) {
        const DeviceSection *section = g_ptr_array_index(own, i);
        char *place = incoming_device_place(section->name);
        if (!place || has_section(image, section)) {
            g_free(place);
            continue;
        }
        incoming_differences_add(differences->certain,
                                 "device %s is on this command line and not in the image",
                                 section->name);
        g_hash_table_add(differences->places, place);
    }
}

gboolean incoming_compare_devices(QmpClient *qmp, ImageReader *reader,
                                  IncomingDifferences *differences, GError **errp)
{
    const guint8 *data;
    gsize length;

    if (!can_ask(qmp)) {
        return TRUE;
    }
    if (!image_reader_get_device_state(reader, &data, &length, errp)) {
        return FALSE;
    }
    g_autoptr(GPtrArray) image = device_state_list(data, length, errp);
    g_autoptr(GPtrArray) own = image ? list_own(qmp, errp) : NULL;
    if (!own) {
        return FALSE;
    }
    compare_processors(image, own, differences);
    compare_image(image, own, differences);
    compare_own(image, own, differences);
    return TRUE;
}
