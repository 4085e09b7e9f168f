/*
 * The device sections: what xen-save-devices-state writes, checked and taken apart as far as a
 * stranger can.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

#include "util/error.h"

/* One section header found in device state. */
typedef struct DeviceSection {
    char *name;
    guint32 instance_id;
    guint32 version_id;
    gsize offset; /* of the section's type byte, from the beginning of the data given */
    gsize length; /* with header and footer */
} DeviceSection;

/* Bytes from the section's type byte to its body, and of the body. */
gsize device_section_header_length(const DeviceSection *section);
gsize device_section_body_length(const DeviceSection *section);

void device_section_free(DeviceSection *section);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(DeviceSection, device_section_free)

/*
 * Takes the frame off a file that xen-save-devices-state wrote: checks magic and version, and that
 * it ends in EOF. *start and *length get the sections between. SF_ERROR_FORMAT.
 */
gboolean device_state_unframe(const guint8 *data, gsize size, gsize *start, gsize *length,
                              GError **errp);

/*
 * The sections in @data, which begins at a section header and ends behind the last footer. Section
 * bodies have no length: a section's end is the first footer with the section's own id that is
 * followed by a plausible header or by the end. Array of DeviceSection, owning. SF_ERROR_FORMAT
 * where the chain breaks.
 */
GPtrArray *device_state_list(const guint8 *data, gsize length, GError **errp);

/*
 * The same where @data goes on behind the sections with what ends a whole stream: EOF and then
 * nothing, or a description. *end gets the position of EOF.
 */
GPtrArray *device_state_list_in_stream(const guint8 *data, gsize length, gsize *end, GError **errp);

/* The section @name, instance @instance, of @list; NULL for none. */
const DeviceSection *device_section_find(const GPtrArray *list, const char *name, guint32 instance);

/*
 * Writes @state (a RunState name, e.g. "paused") into the section "globalstate" of @data, in place.
 * xen-save-devices-state always notes "running" there, also for a VM that is not.
 * Body, since QEMU 2.4: size u32 (with the NUL), state char[100].
 */
gboolean device_state_set_run_state(guint8 *data, gsize length, const char *state, GError **errp);
/* Reads it; the caller frees. NULL where there is no such section. */
char *device_state_get_run_state(const guint8 *data, gsize length);
