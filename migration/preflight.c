/*
 * The questions before a snapshot: who could write guest memory without a userfaultfd seeing it,
 * and which memory could not be protected.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/preflight.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

typedef struct SharedBlock {
    const RamBlock *block;
    const ProcMapping *mapping;
} SharedBlock;

typedef enum { MEMORY_PROTECTABLE, MEMORY_ORDINARY_FILE, MEMORY_UNKNOWN } MemoryKind;

/*
 * A userfaultfd registers shmem and hugetlbfs, of all that has an inode. The file must be a regular
 * one: /dev is a tmpfs too, and a DAX device in it is none.
 */
static MemoryKind kind_of_file(const char *path)
{
    struct stat st;
    struct statfs fs;
    if (stat(path, &st) < 0 || statfs(path, &fs) < 0) {
        return MEMORY_UNKNOWN;
    }
    gboolean protectable = fs.f_type == TMPFS_MAGIC || fs.f_type == HUGETLBFS_MAGIC;
    return protectable && S_ISREG(st.st_mode) ? MEMORY_PROTECTABLE : MEMORY_ORDINARY_FILE;
}

/* The kernel's own files behind memfd_create(), shared anonymous and System V memory. */
static gboolean path_is_kernel_memory(const char *path)
{
    static const char *const prefixes[] = { "/memfd:", "/dev/zero (deleted)", "/anon_hugepage",
                                            "/SYSV", NULL };
    for (const char *const *prefix = prefixes; *prefix; prefix++) {
        if (g_str_has_prefix(path, *prefix)) {
            return TRUE;
        }
    }
    return FALSE;
}

/* QEMU keeps the descriptor of a memory backend open; it leads to the file even when unlinked. */
static MemoryKind kind_by_descriptor(pid_t pid, guint64 inode)
{
    g_autofree char *folder = g_strdup_printf("/proc/%d/fd", (int)pid);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    MemoryKind kind = MEMORY_UNKNOWN;
    for (const char *name; dir && kind == MEMORY_UNKNOWN && (name = g_dir_read_name(dir));) {
        struct stat st;
        g_autofree char *path = g_build_filename(folder, name, NULL);
        if (stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_ino == inode) {
            kind = kind_of_file(path);
        }
    }
    return kind;
}

static MemoryKind kind_of_mapping(pid_t pid, const ProcMapping *mapping)
{
    if (mapping->inode == 0) {
        return MEMORY_PROTECTABLE;
    }
    /* Exact, but following it takes CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN. */
    g_autofree char *link = g_strdup_printf("/proc/%d/map_files/%" PRIx64 "-%" PRIx64, (int)pid,
                                            mapping->start, mapping->end);
    MemoryKind kind = kind_of_file(link);
    if (kind != MEMORY_UNKNOWN) {
        return kind;
    }
    if (path_is_kernel_memory(mapping->path)) {
        return MEMORY_PROTECTABLE;
    }
    kind = kind_by_descriptor(pid, mapping->inode);
    if (kind != MEMORY_UNKNOWN) {
        return kind;
    }
    struct stat st;
    g_autofree char *path = g_strdup_printf("/proc/%d/root%s", (int)pid, mapping->path);
    gboolean same = stat(path, &st) == 0 && st.st_ino == mapping->inode;
    return same ? kind_of_file(path) : MEMORY_UNKNOWN;
}

static void check_file(pid_t pid, const RamBlock *block, const ProcMapping *mapping,
                       GPtrArray *blockers)
{
    switch (kind_of_mapping(pid, mapping)) {
    case MEMORY_PROTECTABLE:
        return;
    case MEMORY_ORDINARY_FILE:
        g_ptr_array_add(blockers,
                        g_strdup_printf("RAM block \"%s\" lies on the ordinary file %s, which the "
                                        "kernel cannot write-protect: use anonymous memory, a "
                                        "memfd, tmpfs or hugetlbfs for it",
                                        block->name, mapping->path));
        return;
    case MEMORY_UNKNOWN:
        g_ptr_array_add(blockers,
                        g_strdup_printf("RAM block \"%s\" lies on %s, whose file system cannot be "
                                        "seen from here: run as root",
                                        block->name, mapping->path));
        return;
    }
}

static gboolean maps_same_memory(const ProcMapping *mine, const ProcMapping *theirs)
{
    return theirs->shared && theirs->writable && theirs->inode == mine->inode &&
           theirs->dev_major == mine->dev_major && theirs->dev_minor == mine->dev_minor;
}

static char *read_comm(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/comm", (int)pid);
    char *text = NULL;
    return g_file_get_contents(path, &text, NULL, NULL) ? g_strchomp(text) : g_strdup("?");
}

/* Looks whether @pid maps one of the shared blocks. */
static void check_process(pid_t pid, GArray *shared, GPtrArray *blockers)
{
    /* One that may not be read, or has ended, cannot be judged. */
    g_autoptr(GPtrArray) maps = proc_read_maps(pid, NULL);
    for (guint i = 0; maps && i < shared->len; i++) {
        const SharedBlock *each = &g_array_index(shared, SharedBlock, i);
        for (guint k = 0; k < maps->len; k++) {
            if (!maps_same_memory(each->mapping, maps->pdata[k])) {
                continue;
            }
            g_autofree char *comm = read_comm(pid);
            g_ptr_array_add(blockers,
                            g_strdup_printf("process %d (%s) maps RAM block \"%s\" too and can "
                                            "write it unseen: end it, or detach its device",
                                            (int)pid, comm, each->block->name));
            break;
        }
    }
}

static void check_sharers(pid_t pid, GArray *shared, GPtrArray *blockers)
{
    if (shared->len == 0) {
        return;
    }
    g_autoptr(GArray) pids = proc_list_pids();
    for (guint i = 0; i < pids->len; i++) {
        pid_t other = g_array_index(pids, pid_t, i);
        if (other != pid && other != getpid()) {
            check_process(other, shared, blockers);
        }
    }
}

static GPtrArray *look_for_blockers(pid_t pid, QmpClient *qmp, gboolean waiting, GPtrArray *blocks,
                                    GPtrArray *maps, GError **errp)
{
    g_autoptr(GPtrArray) blockers = machine_query_blockers(qmp, waiting, errp);
    if (!blockers) {
        return NULL;
    }
    g_autoptr(GArray) shared = g_array_new(FALSE, FALSE, sizeof(SharedBlock));
    for (guint i = 0; i < blocks->len; i++) {
        const RamBlock *block = blocks->pdata[i];
        const ProcMapping *mapping =
            block->host_address ? proc_maps_find(maps, block->host_address) : NULL;
        if (!mapping || (block->read_only && !mapping->writable)) {
            continue;
        }
        check_file(pid, block, mapping, blockers);
        if (mapping->shared && mapping->inode) {
            SharedBlock each = { .block = block, .mapping = mapping };
            g_array_append_val(shared, each);
        }
    }
    check_sharers(pid, shared, blockers);
    return g_steal_pointer(&blockers);
}

GPtrArray *preflight_blockers(pid_t pid, QmpClient *qmp, GPtrArray *blocks, GPtrArray *maps,
                              GError **errp)
{
    return look_for_blockers(pid, qmp, FALSE, blocks, maps, errp);
}

GPtrArray *preflight_incoming_blockers(pid_t pid, QmpClient *qmp, GPtrArray *blocks,
                                       GPtrArray *maps, GError **errp)
{
    return look_for_blockers(pid, qmp, TRUE, blocks, maps, errp);
}
