/*
 * Whether a live snapshot of a VM can be right, asked before anything is touched.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "attach/ram-host.h"

/*
 * Looks for every writer that could not be trapped and every memory kind that cannot be protected:
 * machine_query_blockers(), blocks on an ordinary file (by the file system of the mapping behind
 * host_address), shared memory that another process maps too (found by device and inode in
 * /proc/PID/maps of all processes). Returns sentences that name the device, block or process; an
 * empty array means go. @blocks (RamBlock) must have their addresses already where they can be
 * known.
 */
GPtrArray *preflight_blockers(pid_t pid, QmpClient *qmp, GPtrArray *blocks, GPtrArray *maps,
                              GError **errp);
/* The same for a VM that waits for an incoming migration. */
GPtrArray *preflight_incoming_blockers(pid_t pid, QmpClient *qmp, GPtrArray *blocks,
                                       GPtrArray *maps, GError **errp);
