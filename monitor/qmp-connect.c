/*
 * Connecting to a monitor, and finding out why it does not greet. QEMU serves one client at a time
 * and leaves the next one in the listening socket's queue, without a word.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#include "attach/proc.h"
#include "attach/tcp-sockets.h"
#include "attach/unix-sockets.h"
#include "qmp-internal.h"
#include "util/autofd.h"

/* connect() waits for room in the listener's queue, and for TCP's handshake, by the send timeout.
 */
static void limit_connect(int fd, guint timeout_ms)
{
    struct timeval limit = { .tv_sec = timeout_ms / 1000, .tv_usec = (timeout_ms % 1000) * 1000 };
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

static int set_connect_error(GError **errp, int err)
{
    if (err == EAGAIN || err == EINPROGRESS) {
        g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_BUSY,
                    "no connection in time: other clients wait in its queue already, QEMU serves "
                    "one at a time");
    } else if (err == ECONNREFUSED) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FAILED,
                    "nobody listens there; has QEMU exited? (\"stillframe list\" shows what runs)");
    } else {
        sf_error_set_errno(errp, SF_ERROR_FAILED, err, "cannot connect");
    }
    return -1;
}

/*
 * Fills @address with a path that fits. connect() follows /proc/self/fd/N to a socket as it follows
 * any symbolic link, so a longer path goes by a descriptor, @holder.
 */
static gboolean set_unix_path(struct sockaddr_un *address, const char *path, int *holder,
                              GError **errp)
{
    g_autofree char *short_path = NULL;
    if (strlen(path) >= sizeof(address->sun_path)) {
        *holder = open(path, O_PATH | O_CLOEXEC);
        if (*holder < 0) {
            return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot open it");
        }
        short_path = g_strdup_printf("/proc/self/fd/%d", *holder);
        path = short_path;
    }
    address->sun_family = AF_UNIX;
    g_strlcpy(address->sun_path, path, sizeof(address->sun_path));
    return TRUE;
}

static int connect_unix(const char *path, guint timeout_ms, GError **errp)
{
    struct sockaddr_un address = { 0 };
    sf_autofd holder = -1;
    if (!set_unix_path(&address, path, &holder, errp)) {
        return -1;
    }
    sf_autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot make a socket");
        return -1;
    }
    limit_connect(fd, timeout_ms);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        return set_connect_error(errp, errno);
    }
    return sf_steal_fd(&fd);
}

/* "HOST:PORT" or "[V6]:PORT". */
static gboolean split_host_port(const char *text, char **host, char **port, GError **errp)
{
    const char *colon = strrchr(text, ':');
    if (!colon || colon == text || !colon[1]) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE, "a TCP monitor is given as tcp:HOST:PORT");
        return FALSE;
    }
    gsize length = (gsize)(colon - text);
    gboolean bracketed = length >= 2 && text[0] == '[' && text[length - 1] == ']';
    *host = bracketed ? g_strndup(text + 1, length - 2) : g_strndup(text, length);
    *port = g_strdup(colon + 1);
    return TRUE;
}

static int connect_tcp(const char *text, guint timeout_ms, GError **errp)
{
    g_autofree char *host = NULL;
    g_autofree char *port = NULL;
    if (!split_host_port(text, &host, &port, errp)) {
        return -1;
    }
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct addrinfo *found = NULL;
    int result = getaddrinfo(host, port, &hints, &found);
    if (result != 0) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FAILED, "cannot resolve the address: %s",
                    gai_strerror(result));
        return -1;
    }
    sf_autofd fd = -1;
    int err = EHOSTUNREACH;
    for (struct addrinfo *each = found; each && err != 0; each = each->ai_next) {
        sf_clear_fd(&fd);
        fd = socket(each->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0) {
            err = errno;
            continue;
        }
        limit_connect(fd, timeout_ms);
        err = connect(fd, each->ai_addr, each->ai_addrlen) < 0 ? errno : 0;
    }
    freeaddrinfo(found);
    return err != 0 ? set_connect_error(errp, err) : sf_steal_fd(&fd);
}

int qmp_connect(const char *address, guint timeout_ms, GError **errp)
{
    if (g_str_has_prefix(address, "tcp:")) {
        return connect_tcp(address + strlen("tcp:"), timeout_ms, errp);
    }
    if (g_str_has_prefix(address, "unix:")) {
        address += strlen("unix:");
    }
    return connect_unix(address, timeout_ms, errp);
}

/*
 * The socket that QEMU has accepted from someone else carries the listener's name. Ours, not
 * accepted yet, has no inode and is not listed.
 */
static gboolean find_unix_client(int fd, guint64 *client_inode)
{
    struct stat st;
    g_autofree char *name = unix_socket_get_peer_name(fd);
    if (!*name || fstat(fd, &st) < 0) {
        return FALSE;
    }
    g_autoptr(GPtrArray) sockets = unix_sockets_list();
    for (guint i = 0; i < sockets->len; i++) {
        const UnixSocket *each = sockets->pdata[i];
        /* A client that has gone holds nothing: QEMU has not found the time to notice. */
        if (!each->connected || each->abandoned || strcmp(each->path, name) != 0) {
            continue;
        }
        if (each->peer == st.st_ino) {
            /* QEMU has accepted us and still says nothing. */
            return FALSE;
        }
        *client_inode = each->peer;
        return TRUE;
    }
    return FALSE;
}

gboolean qmp_connection_is_busy(int fd, GError **errp)
{
    guint64 inode = 0;
    if (!find_unix_client(fd, &inode) && !tcp_socket_find_other_client(fd, &inode)) {
        return FALSE;
    }
    pid_t pid = inode ? proc_find_socket_owner(inode) : 0;
    g_autofree char *name = pid ? proc_read_exe_name(pid) : NULL;
    if (pid) {
        g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_BUSY,
                    "another client holds it, process %d (%s), and QEMU serves one at a time: end "
                    "that connection, or give QEMU a second -qmp socket",
                    (int)pid, name ? name : "name unknown");
    } else {
        g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_BUSY,
                    "another client holds it and QEMU serves one at a time: end that connection, "
                    "or give QEMU a second -qmp socket");
    }
    return TRUE;
}
