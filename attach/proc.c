/*
 * Reads /proc: mappings, arguments, owners and sockets of processes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "attach/proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "util/autofd.h"

void proc_mapping_free(ProcMapping *mapping)
{
    if (mapping) {
        g_free(mapping->path);
        g_free(mapping);
    }
}

/* "start-end rwxp offset major:minor inode   path". */
static ProcMapping *parse_maps_line(const char *line)
{
    g_autoptr(ProcMapping) mapping = g_new0(ProcMapping, 1);
    char access[5];
    int path_at = 0;
    int fields = sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64 "%n",
                        &mapping->start, &mapping->end, access, &mapping->file_offset,
                        &mapping->dev_major, &mapping->dev_minor, &mapping->inode, &path_at);
    if (fields != 7 || strlen(access) != 4 || mapping->start >= mapping->end) {
        return NULL;
    }
    mapping->readable = access[0] == 'r';
    mapping->writable = access[1] == 'w';
    mapping->executable = access[2] == 'x';
    mapping->shared = access[3] == 's';
    mapping->path = g_strdup(line + path_at + strspn(line + path_at, " "));
    return g_steal_pointer(&mapping);
}

GPtrArray *proc_maps_parse(const char *text, GError **errp)
{
    g_autoptr(GPtrArray) maps = g_ptr_array_new_with_free_func((GDestroyNotify)proc_mapping_free);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    guint64 last_end = 0;
    for (char **line = lines; *line; line++) {
        if (!**line) {
            continue;
        }
        ProcMapping *mapping = parse_maps_line(*line);
        if (mapping) {
            g_ptr_array_add(maps, mapping);
        }
        if (!mapping || mapping->start < last_end) {
            g_set_error(errp, SF_ERROR, SF_ERROR_FAILED,
                        "a line of a maps file makes no sense: \"%.200s\"", *line);
            return NULL;
        }
        last_end = mapping->end;
    }
    return g_steal_pointer(&maps);
}

/* Says why /proc/PID/@name cannot be read. */
static gboolean set_proc_error(GError **errp, pid_t pid, const char *name, int err)
{
    if (err == ENOENT || err == ESRCH) {
        g_set_error(errp, SF_ERROR, SF_ERROR_NO_PROCESS, "there is no process %d", (int)pid);
        return FALSE;
    }
    gboolean refused = err == EACCES || err == EPERM;
    return sf_error_set_errno(errp, refused ? SF_ERROR_PERMISSION : SF_ERROR_FAILED, err,
                              "cannot read /proc/%d/%s%s", (int)pid, name,
                              refused ? " (run as root or as the user of that process)" : "");
}

/*
 * Reads a whole file of /proc/PID. By hand, because g_file_get_contents() turns ESRCH, which
 * a process that ends meanwhile gives, into a plain failure.
 */
static GString *read_proc_file(pid_t pid, const char *name, GError **errp)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/%s", (int)pid, name);
    sf_autofd fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        set_proc_error(errp, pid, name, errno);
        return NULL;
    }
    g_autoptr(GString) text = g_string_new(NULL);
    for (;;) {
        gsize before = text->len;
        g_string_set_size(text, before + 32768);
        ssize_t got = read(fd, text->str + before, 32768);
        int err = errno;
        g_string_set_size(text, before + (gsize)MAX(got, 0));
        if (got == 0) {
            return g_steal_pointer(&text);
        }
        if (got < 0 && err != EINTR) {
            set_proc_error(errp, pid, name, err);
            return NULL;
        }
    }
}

GPtrArray *proc_read_maps(pid_t pid, GError **errp)
{
    g_autoptr(GString) text = read_proc_file(pid, "maps", errp);
    return text ? proc_maps_parse(text->str, errp) : NULL;
}

const ProcMapping *proc_maps_find(GPtrArray *maps, guint64 address)
{
    guint low = 0;
    guint high = maps->len;
    while (low < high) {
        guint middle = low + (high - low) / 2;
        const ProcMapping *mapping = maps->pdata[middle];
        if (address < mapping->start) {
            high = middle;
        } else if (address >= mapping->end) {
            low = middle + 1;
        } else {
            return mapping;
        }
    }
    return NULL;
}

GStrv proc_read_cmdline(pid_t pid, GError **errp)
{
    g_autoptr(GString) text = read_proc_file(pid, "cmdline", errp);
    if (!text) {
        return NULL;
    }
    g_autoptr(GPtrArray) arguments = g_ptr_array_new();
    for (gsize at = 0; at < text->len; at += strlen(text->str + at) + 1) {
        g_ptr_array_add(arguments, g_strdup(text->str + at));
    }
    g_ptr_array_add(arguments, NULL);
    return (GStrv)g_ptr_array_free(g_steal_pointer(&arguments), FALSE);
}

char *proc_read_exe_name(pid_t pid)
{
    static const char deleted[] = " (deleted)";
    g_autofree char *path = g_strdup_printf("/proc/%d/exe", (int)pid);
    g_autofree char *target = g_file_read_link(path, NULL);
    if (!target) {
        return NULL;
    }
    if (g_str_has_suffix(target, deleted)) {
        target[strlen(target) - strlen(deleted)] = '\0';
    }
    return g_path_get_basename(target);
}

gboolean proc_read_uid(pid_t pid, uid_t *uid, GError **errp)
{
    g_autoptr(GString) text = read_proc_file(pid, "status", errp);
    if (!text) {
        return FALSE;
    }
    /* "Uid: real effective saved filesystem" */
    const char *line = strstr(text->str, "\nUid:");
    unsigned effective;
    if (!line || sscanf(line, "\nUid: %*u %u", &effective) != 1) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FAILED, "/proc/%d/status has no Uid line", (int)pid);
        return FALSE;
    }
    *uid = effective;
    return TRUE;
}

static gint compare_pids(gconstpointer a, gconstpointer b)
{
    pid_t left = *(const pid_t *)a;
    pid_t right = *(const pid_t *)b;
    return (left > right) - (left < right);
}

GArray *proc_list_pids(void)
{
    GArray *pids = g_array_new(FALSE, FALSE, sizeof(pid_t));
    DIR *folder = opendir("/proc");
    if (!folder) {
        return pids;
    }
    for (struct dirent *entry; (entry = readdir(folder));) {
        guint64 number;
        if (g_ascii_string_to_unsigned(entry->d_name, 10, 1, G_MAXINT, &number, NULL)) {
            pid_t pid = (pid_t)number;
            g_array_append_val(pids, pid);
        }
    }
    closedir(folder);
    g_array_sort(pids, compare_pids);
    return pids;
}

GArray *proc_list_socket_inodes(pid_t pid)
{
    GArray *inodes = g_array_new(FALSE, FALSE, sizeof(guint64));
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", (int)pid);
    DIR *folder = opendir(path);
    if (!folder) {
        return inodes;
    }
    for (struct dirent *entry; (entry = readdir(folder));) {
        char target[64];
        ssize_t length = readlinkat(dirfd(folder), entry->d_name, target, sizeof(target) - 1);
        if (length <= 0) {
            continue;
        }
        target[length] = '\0';
        guint64 inode;
        if (sscanf(target, "socket:[%" SCNu64 "]", &inode) == 1) {
            g_array_append_val(inodes, inode);
        }
    }
    closedir(folder);
    return inodes;
}

pid_t proc_find_socket_owner(guint64 inode)
{
    g_autoptr(GArray) pids = proc_list_pids();
    for (guint i = 0; i < pids->len; i++) {
        pid_t pid = g_array_index(pids, pid_t, i);
        g_autoptr(GArray) inodes = proc_list_socket_inodes(pid);
        for (guint k = 0; k < inodes->len; k++) {
            if (g_array_index(inodes, guint64, k) == inode) {
                return pid;
            }
        }
    }
    return 0;
}
