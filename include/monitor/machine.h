/*
 * What QEMU's monitor tells about its machine, as plain values. Every number that comes from the
 * monitor's text is checked for range before it gets here.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "monitor/qmp.h"

/* One line of "info ramblock": QEMU's RAMBlock as the migration stream names it. */
typedef struct RamBlock {
    char *name;           /* RAMBlock.idstr: what the stream calls it, at most 255 bytes */
    guint64 page_size;    /* of the memory behind it: 4 KiB, or the huge page size of hugetlbfs */
    guint64 offset;       /* in QEMU's ram_addr_t space; only good for recognising the block */
    guint64 used_length;  /* bytes that belong in the stream; a multiple of the host page size */
    guint64 max_length;   /* bytes that are mapped */
    guint64 host_address; /* in QEMU's address space; 0 = not told (QEMU before 8) */
    gboolean read_only;   /* told by QEMU >= 8 only */
} RamBlock;

void ram_block_free(RamBlock *block);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(RamBlock, ram_block_free)

/* Parses the text of "info ramblock" of any QEMU from 7.2 on. Array of RamBlock, owning. */
GPtrArray *ram_blocks_parse(const char *text, GError **errp);

/* Asks for it. Blocks without a name do not migrate and are left out. */
GPtrArray *machine_query_ram_blocks(QmpClient *qmp, GError **errp);

/* The machine type as CONFIGURATION carries it, e.g. "pc-q35-7.2". */
char *machine_query_type(QmpClient *qmp, GError **errp);

/* QEMU's target, e.g. "x86_64" (query-target). */
char *machine_query_target(QmpClient *qmp, GError **errp);

/* query-status: the run state's name (owned by the caller) and whether vCPUs run. */
char *machine_query_status(QmpClient *qmp, gboolean *running, GError **errp);

/*
 * Everything the monitor knows that forbids a live snapshot, as sentences for people: migration
 * blockers (query-migrate blocked-reasons), a migration that runs, devices that write guest memory
 * from where no userfaultfd sees it (vfio-*, vhost-user-*, vhost-vdpa-*, found in the QOM tree and
 * among the network backends), by device name. Empty where nothing does. NULL on error. @waiting:
 * the VM is expected to wait for an incoming migration, which is no blocker then.
 */
GPtrArray *machine_query_blockers(QmpClient *qmp, gboolean waiting, GError **errp);

/*
 * The two parts of it that judge text, for tests: a device's QOM type; one line of "info network".
 * They return TRUE for what writes guest memory from outside QEMU's address space.
 */
gboolean machine_device_type_is_untrappable(const char *qom_type);
gboolean machine_netdev_line_is_untrappable(const char *line);
