/*
 * The target page size of QEMU targets that choose it at run time (the ARM ones): the monitor does
 * not tell it, and CONFIGURATION must carry it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "attach/proc.h"

/*
 * Finds the record of the page size in QEMU's own data (decided, bits, and the mask that follows
 * from the bits) by its pattern, between 1 KiB and 64 KiB. SF_ERROR_UNSUPPORTED where there is none
 * or two contradict each other. Reads QEMU's memory with process_vm_readv, so it needs ptrace
 * access.
 */
gboolean target_page_find_bits(pid_t pid, GPtrArray *maps, guint *bits, GError **errp);
