/*
 * An ELF core of an x86-64 guest, as gdb and crash open it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "image/guest-pages.h"
#include "image/sparse-output.h"
#include "image/vmdesc.h"

/*
 * Writes the core: RAM at its guest-physical addresses (segments with the same virtual address,
 * first), the kernel's virtual addresses as the page tables have them (segments that share the
 * bytes of the first ones), and for each processor NT_PRSTATUS and QEMU's own note.
 * @devices, @length: the device sections; @description (may be NULL) of them. SF_ERROR_UNSUPPORTED
 * for another architecture.
 */
gboolean elf_core_write(const GuestPages *pages, const ImageHead *head, const guint8 *devices,
                        gsize length, const VmDescription *description, SparseOutput *output,
                        const ImageProgress *progress, GError **errp);
