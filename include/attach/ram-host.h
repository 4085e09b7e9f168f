/*
 * Host addresses of RAM blocks on QEMU before 8, whose "info ramblock" does not tell them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "attach/proc.h"
#include "monitor/machine.h"

/*
 * Fills host_address in each block of @blocks (RamBlock) that has none, by finding QEMU's own
 * record of the block in its heap: the known triple (offset, used_length, max_length) followed by
 * the block's name, with a pointer before it to a mapping that can hold max_length bytes. A block
 * that is not found, or is found twice with different addresses, keeps 0. The main block's
 * address is compared with gpa2hva; a contradiction is an error. Reads QEMU's memory with
 * process_vm_readv, so it needs ptrace access.
 */
gboolean ram_host_locate(pid_t pid, QmpClient *qmp, GPtrArray *blocks, GPtrArray *maps,
                         GError **errp);
