/*
 * Lists unix sockets and their peers, by the kernel's socket monitoring interface (sock_diag(7)).
 * SO_PEERCRED is no way to a monitor's process: it names whoever called listen().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "attach/unix-sockets.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <stdio.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "util/autofd.h"

/* The values of "state" in unix_diag and /proc/net/unix differ: TCP's states here, ... */
#define DIAG_ESTABLISHED 1
#define DIAG_LISTEN 10
/* ... the socket layer's there (SS_CONNECTED), with __SO_ACCEPTCON among the flags. */
#define PROC_CONNECTED 3
#define PROC_FLAG_LISTENS 0x10000

typedef struct DiagRequest {
    struct nlmsghdr header;
    struct unix_diag_req body;
} DiagRequest;

typedef void (*DiagVisit)(const struct unix_diag_msg *message, gsize length, gpointer user);

void unix_socket_free(UnixSocket *socket)
{
    if (socket) {
        g_free(socket->path);
        g_free(socket);
    }
}

static char *name_from_bytes(const char *bytes, gsize length)
{
    if (length > 0 && bytes[0] == '\0') {
        g_autofree char *rest = g_strndup(bytes + 1, length - 1);
        return g_strconcat("@", rest, NULL);
    }
    return g_strndup(bytes, length);
}

static UnixSocket *socket_from_diag(const struct unix_diag_msg *message, gsize length)
{
    UnixSocket *unix_socket = g_new0(UnixSocket, 1);
    unix_socket->inode = message->udiag_ino;
    unix_socket->listening = message->udiag_state == DIAG_LISTEN;
    unix_socket->connected = message->udiag_state == DIAG_ESTABLISHED;

    int left = (int)(length - sizeof(*message));
    for (const struct rtattr *attr = (const struct rtattr *)(message + 1); RTA_OK(attr, left);
         attr = RTA_NEXT(attr, left)) {
        if (attr->rta_type == UNIX_DIAG_NAME) {
            g_free(unix_socket->path);
            unix_socket->path = name_from_bytes(RTA_DATA(attr), RTA_PAYLOAD(attr));
        } else if (attr->rta_type == UNIX_DIAG_PEER && RTA_PAYLOAD(attr) >= sizeof(guint32)) {
            guint32 peer;
            memcpy(&peer, RTA_DATA(attr), sizeof(peer));
            unix_socket->peer = peer;
        }
    }
    if (!unix_socket->path) {
        unix_socket->path = g_strdup("");
    }
    /* The other end keeps its place after close(), without an inode, until this end closes too. */
    unix_socket->abandoned = unix_socket->connected && unix_socket->peer == 0;
    return unix_socket;
}

/* Handles one datagram of answers. Returns 1 = more to come, 0 = the end, -errno. */
static int diag_take(const char *buffer, gsize length, DiagVisit visit, gpointer user)
{
    const struct nlmsghdr *header = (const struct nlmsghdr *)buffer;
    for (gsize left = length; NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
        if (header->nlmsg_type == NLMSG_DONE) {
            return 0;
        }
        if (header->nlmsg_type == NLMSG_ERROR) {
            const struct nlmsgerr *error = NLMSG_DATA(header);
            gboolean whole = header->nlmsg_len >= NLMSG_LENGTH(sizeof(*error));
            return whole && error->error ? error->error : -EPROTO;
        }
        gsize payload = header->nlmsg_len - NLMSG_HDRLEN;
        if (payload >= sizeof(struct unix_diag_msg)) {
            visit(NLMSG_DATA(header), payload, user);
        }
        if (!(header->nlmsg_flags & NLM_F_MULTI)) {
            return 0;
        }
    }
    return 1;
}

/* Asks for one socket (@inode) or, with 0, for all. Returns 0 or -errno. */
static int diag_ask(guint32 inode, guint32 show, DiagVisit visit, gpointer user)
{
    sf_autofd fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (fd < 0) {
        return -errno;
    }
    DiagRequest request = {
        .header = { .nlmsg_len = sizeof(request),
                    .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                    .nlmsg_flags = NLM_F_REQUEST | (inode ? 0 : NLM_F_DUMP) },
        .body = { .sdiag_family = AF_UNIX,
                  .udiag_states = (1 << DIAG_ESTABLISHED) | (1 << DIAG_LISTEN),
                  .udiag_ino = inode,
                  .udiag_show = show,
                  .udiag_cookie = { ~0U, ~0U } },
    };
    if (send(fd, &request, sizeof(request), 0) < 0) {
        return -errno;
    }
    /* The kernel fills at most 32 KiB a datagram. */
    g_autofree char *buffer = g_malloc(32768);
    for (int more = 1; more > 0;) {
        ssize_t got = recv(fd, buffer, 32768, 0);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got < 0 ? -errno : -EPROTO;
        }
        more = diag_take(buffer, (gsize)got, visit, user);
        if (more < 0) {
            return more;
        }
    }
    return 0;
}

static void collect_visit(const struct unix_diag_msg *message, gsize length, gpointer user)
{
    if (message->udiag_type == SOCK_STREAM && message->udiag_ino != 0) {
        g_ptr_array_add(user, socket_from_diag(message, length));
    }
}

static void peer_visit(const struct unix_diag_msg *message, gsize length, gpointer user)
{
    UnixSocket *unix_socket = socket_from_diag(message, length);
    *(guint64 *)user = unix_socket->peer;
    unix_socket_free(unix_socket);
}

/* Columns: Num RefCount Protocol Flags Type St Inode [Path]. */
static void list_from_proc(const char *table, GPtrArray *sockets)
{
    g_autofree char *text = NULL;
    if (!g_file_get_contents(table, &text, NULL, NULL)) {
        return;
    }
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        unsigned flags, type, state;
        guint64 inode;
        int path_at = 0;
        int fields = sscanf(*line, "%*s %*x %*x %x %x %x %" SCNu64 "%n", &flags, &type, &state,
                            &inode, &path_at);
        if (fields != 4 || type != SOCK_STREAM || inode == 0) {
            continue;
        }
        UnixSocket *unix_socket = g_new0(UnixSocket, 1);
        unix_socket->inode = inode;
        unix_socket->listening = (flags & PROC_FLAG_LISTENS) != 0;
        unix_socket->connected = state == PROC_CONNECTED;
        unix_socket->path = g_strdup((*line)[path_at] == ' ' ? *line + path_at + 1 : "");
        g_ptr_array_add(sockets, unix_socket);
    }
}

GPtrArray *unix_sockets_list(void)
{
    GPtrArray *sockets = g_ptr_array_new_with_free_func((GDestroyNotify)unix_socket_free);
    if (diag_ask(0, UDIAG_SHOW_NAME | UDIAG_SHOW_PEER, collect_visit, sockets) < 0) {
        g_ptr_array_set_size(sockets, 0);
        list_from_proc("/proc/net/unix", sockets);
    }
    return sockets;
}

char *unix_socket_find_listener(pid_t pid, guint64 inode)
{
    g_autofree char *table = g_strdup_printf("/proc/%d/net/unix", (int)pid);
    g_autoptr(GPtrArray) sockets = g_ptr_array_new_with_free_func((GDestroyNotify)unix_socket_free);
    list_from_proc(table, sockets);
    for (guint i = 0; i < sockets->len; i++) {
        const UnixSocket *each = sockets->pdata[i];
        if (each->inode == inode && each->listening && *each->path) {
            return g_strdup(each->path);
        }
    }
    return NULL;
}

guint64 unix_socket_get_peer(int fd, GError **errp)
{
    struct stat st;
    guint64 peer = 0;
    int result = fstat(fd, &st) < 0 ? -errno : 0;
    if (result == 0) {
        result = diag_ask((guint32)st.st_ino, UDIAG_SHOW_PEER, peer_visit, &peer);
    }
    if (result < 0) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, -result,
                           "cannot ask the kernel (sock_diag) for the other end of a socket");
    } else if (peer == 0) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FAILED,
                    "the kernel does not tell the other end of a socket");
    }
    return peer;
}

char *unix_socket_get_peer_name(int fd)
{
    struct sockaddr_un address = { 0 };
    socklen_t length = sizeof(address);
    if (getpeername(fd, (struct sockaddr *)&address, &length) < 0 ||
        address.sun_family != AF_UNIX || length <= offsetof(struct sockaddr_un, sun_path)) {
        return g_strdup("");
    }
    gsize bytes = MIN(length, sizeof(address)) - offsetof(struct sockaddr_un, sun_path);
    return name_from_bytes(address.sun_path, bytes);
}
