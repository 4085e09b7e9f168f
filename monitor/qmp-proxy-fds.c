/*
 * Finding a descriptor in QEMU again by what it leads to.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qmp-proxy-fds.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/autofd.h"

/* Names that a client may leave behind; QEMU forgets them too rarely to keep them all. */
#define NAMES_MAX 256

typedef struct Identity {
    dev_t device;
    ino_t inode;
} Identity;

struct QmpProxyFds {
    GMutex lock;
    GHashTable *names; /* name -> Identity */
};

QmpProxyFds *qmp_proxy_fds_new(void)
{
    QmpProxyFds *fds = g_new0(QmpProxyFds, 1);

    g_mutex_init(&fds->lock);
    fds->names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    return fds;
}

void qmp_proxy_fds_free(QmpProxyFds *fds)
{
    g_hash_table_unref(fds->names);
    g_mutex_clear(&fds->lock);
    g_free(fds);
}

void qmp_proxy_fds_note(QmpProxyFds *fds, JsonObject *arguments, GArray *received)
{
    JsonNode *name = arguments ? json_object_get_member(arguments, "fdname") : NULL;
    struct stat st;

    if (!name || !JSON_NODE_HOLDS_VALUE(name) || !json_node_get_string(name) || !received->len ||
        fstat(g_array_index(received, int, 0), &st) < 0) {
        return;
    }
    Identity *identity = g_new(Identity, 1);
    *identity = (Identity){ .device = st.st_dev, .inode = st.st_ino };
    g_mutex_lock(&fds->lock);
    if (g_hash_table_size(fds->names) >= NAMES_MAX) {
        g_hash_table_remove_all(fds->names);
    }
    g_hash_table_replace(fds->names, g_strdup(json_node_get_string(name)), identity);
    g_mutex_unlock(&fds->lock);
}

static int not_found(const char *name, GError **errp)
{
    g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_COMMAND,
                "File descriptor named '%s' has not been found", name);
    return -1;
}

/* Both ends of a pipe have one inode; QEMU may hold its reading end for another reason. */
static gboolean is_match(int fd, const Identity *identity)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && (flags & O_ACCMODE) != O_RDONLY && fstat(fd, &st) == 0 &&
           st.st_dev == identity->device && st.st_ino == identity->inode;
}

/* The newest one, which is the highest, where several lead to the same file. */
static int find_in_process(pid_t pid, int pidfd, const Identity *identity)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", (int)pid);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *entry;
    guint64 highest = 0;
    int found = -1;

    while (dir && (entry = g_dir_read_name(dir))) {
        g_autofree char *link = g_build_filename(path, entry, NULL);
        guint64 number = g_ascii_strtoull(entry, NULL, 10);
        struct stat st;
        if ((found >= 0 && number < highest) || stat(link, &st) < 0 ||
            st.st_ino != identity->inode || st.st_dev != identity->device) {
            continue;
        }
        sf_autofd fd = (int)syscall(SYS_pidfd_getfd, pidfd, (int)number, 0);
        if (fd >= 0 && is_match(fd, identity)) {
            sf_clear_fd(&found);
            found = sf_steal_fd(&fd);
            highest = number;
        }
    }
    return found;
}

int qmp_proxy_fds_take(QmpProxyFds *fds, pid_t pid, const char *name, GError **errp)
{
    Identity identity = { 0 };

    g_mutex_lock(&fds->lock);
    Identity *known = g_hash_table_lookup(fds->names, name);
    gboolean noted = known != NULL;
    if (noted) {
        identity = *known;
        g_hash_table_remove(fds->names, name);
    }
    g_mutex_unlock(&fds->lock);
    if (!noted) {
        return not_found(name, errp);
    }
    sf_autofd pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    int fd = pidfd < 0 ? -1 : find_in_process(pid, pidfd, &identity);
    return fd >= 0 ? fd : not_found(name, errp);
}
