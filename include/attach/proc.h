/*
 * Reading /proc: the mappings, descriptors and arguments of a process. Nothing about QEMU.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>
#include <sys/types.h>

#include "util/error.h"

/* One line of /proc/PID/maps. */
typedef struct ProcMapping {
    guint64 start;
    guint64 end;
    guint64 file_offset;
    gboolean readable;
    gboolean writable;
    gboolean executable;
    gboolean shared;
    guint dev_major;
    guint dev_minor;
    guint64 inode; /* 0 = anonymous */
    char *path;    /* as printed, "" for none; may end in " (deleted)" */
} ProcMapping;

void proc_mapping_free(ProcMapping *mapping);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ProcMapping, proc_mapping_free)

/* Parses the text of a maps file; array of ProcMapping, owning, in address order. */
GPtrArray *proc_maps_parse(const char *text, GError **errp);
/* Reads /proc/PID/maps. SF_ERROR_NO_PROCESS, SF_ERROR_PERMISSION. */
GPtrArray *proc_read_maps(pid_t pid, GError **errp);
/* The mapping that holds @address, owned by @maps, or NULL. */
const ProcMapping *proc_maps_find(GPtrArray *maps, guint64 address);

/* The argument vector of a process (not split further); empty for a kernel thread. */
GStrv proc_read_cmdline(pid_t pid, GError **errp);
/* The base name of /proc/PID/exe, " (deleted)" cut off; NULL where it cannot be read. */
char *proc_read_exe_name(pid_t pid);
/* The effective user id of a process. */
gboolean proc_read_uid(pid_t pid, uid_t *uid, GError **errp);
/* All process ids of the host in ascending order (GArray of pid_t). */
GArray *proc_list_pids(void);
/* The socket inodes that a process has open (GArray of guint64). */
GArray *proc_list_socket_inodes(pid_t pid);
/* The first process that has the socket inode open, 0 where none can be seen. */
pid_t proc_find_socket_owner(guint64 inode);
