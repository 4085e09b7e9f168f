/*
 * QEMU's description of device sections: the JSON behind the end of its own streams. It tells name,
 * size and order of every field, and so where a field stands in a section.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

#include "util/error.h"

typedef struct VmDescription VmDescription;

/* Parses @length bytes of JSON (not terminated). SF_ERROR_FORMAT. */
VmDescription *vm_description_parse(const char *text, gsize length, GError **errp);
void vm_description_free(VmDescription *description);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmDescription, vm_description_free)

/* How many devices it describes; Stillframe's own streams describe none. */
guint vm_description_count(const VmDescription *description);

/* A field of a section, from the first byte of its body. */
typedef struct VmField {
    gsize offset; /* bytes */
    gsize size;   /* of one element */
    gsize count;  /* elements; 1 where it is no array */
} VmField;

/*
 * The field @name ("env.eip") of the device section @section, instance @instance. FALSE where the
 * description has no such field, or what stands before it has no size.
 */
gboolean vm_description_find(const VmDescription *description, const char *section,
                             guint32 instance, const char *name, VmField *field);
