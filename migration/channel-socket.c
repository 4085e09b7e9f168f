/*
 * unix: and tcp: -- stream sockets, connected here or inherited.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "channel-impl.h"
#include "util/autofd.h"

#define CONNECT_TIMEOUT_MS 10000
#define CONNECT_RETRY_US (20 * 1000)
/* How often the send queue is looked at while it drains: nothing can be polled for that. */
#define DRAIN_POLL_MS 5

typedef struct SocketChannel {
    Channel base;
    gboolean ours; /* connected here: it may be shut down, and what the peer says be read */
} SocketChannel;

/* MSG_DONTWAIT is O_NONBLOCK for one call, so an inherited socket's flags stay as they are. */
static ssize_t socket_write(Channel *channel, const struct iovec *iov, int count)
{
    struct msghdr message = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count };

    return sendmsg(channel->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static int pending_error(int fd)
{
    int err = 0;
    socklen_t length = sizeof(err);

    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &length) < 0 ? errno : err;
}

/* A TCP socket that is closed with unread input sends a reset, which can overtake the stream. */
static void discard_input(int fd)
{
    char buffer[4096];

    while (recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT) > 0) {
    }
}

/*
 * The stream is complete when nothing of it waits on our side any more: for TCP the other host has
 * acknowledged all of it, for a unix socket the reader has really read it (the queue is counted at
 * the sender there). Waiting for the reader to close instead would wait for ever for one that
 * keeps the connection. A reader that died shows as an error meanwhile.
 */
static gboolean socket_commit(Channel *channel, GError **errp)
{
    SocketChannel *sock = (SocketChannel *)channel;

    if (sock->ours && shutdown(channel->fd, SHUT_WR) < 0) {
        return channel_io_error(channel->name, "finish writing to", errno, errp);
    }
    for (;;) {
        int queued = 0;
        int err = ioctl(channel->fd, SIOCOUTQ, &queued) < 0 ? errno : pending_error(channel->fd);
        if (err) {
            return channel_io_error(channel->name, "finish writing to", err, errp);
        }
        if (sock->ours) {
            discard_input(channel->fd);
        }
        if (queued == 0) {
            return TRUE;
        }
        /* Only the time and the interruption are waited for: no event would tell. */
        if (channel_wait(channel, -1, 0, DRAIN_POLL_MS, errp) == CHANNEL_FAILED) {
            return FALSE;
        }
    }
}

static void socket_release(Channel *channel)
{
}

static const ChannelOps socket_ops = {
    .write = socket_write,
    .commit = socket_commit,
    .release = socket_release,
};

static Channel *socket_new(int fd, char *name, gboolean ours, GError **errp)
{
    SocketChannel *sock = g_new0(SocketChannel, 1);
    g_autoptr(Channel) channel = &sock->base;

    sock->ours = ours;
    if (!channel_init(channel, &socket_ops, fd, name, errp)) {
        return NULL;
    }
    channel->can_wait = TRUE;
    return g_steal_pointer(&channel);
}

Channel *channel_socket_adopt(int fd, char *name, GError **errp)
{
    int type = 0;
    socklen_t length = sizeof(type);

    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0 || type != SOCK_STREAM) {
        g_set_error(errp, SF_ERROR, SF_ERROR_IO, "%s is not a stream socket", name);
        close(fd);
        g_free(name);
        return NULL;
    }
    return socket_new(fd, name, FALSE, errp);
}

/* connect() with an end to its patience; 0 or an errno. The socket is ours: O_NONBLOCK may stay. */
static int connect_within(int fd, const struct sockaddr *address, socklen_t length)
{
    struct pollfd poll_fd = { .fd = fd, .events = POLLOUT };
    gint64 deadline = g_get_monotonic_time() + CONNECT_TIMEOUT_MS * 1000LL;
    int n;

    while (connect(fd, address, length) < 0) {
        /* EAGAIN: a unix listener with a full backlog. There is nothing to poll for then. */
        if (errno == EAGAIN && g_get_monotonic_time() < deadline) {
            g_usleep(CONNECT_RETRY_US);
            continue;
        }
        if (errno != EINPROGRESS) {
            return errno;
        }
        while ((n = poll(&poll_fd, 1, CONNECT_TIMEOUT_MS)) < 0) {
            if (errno != EINTR) {
                return errno;
            }
        }
        return n == 0 ? ETIMEDOUT : pending_error(fd);
    }
    return 0;
}

/* Returns -1. */
static int connect_error(const char *name, int err, GError **errp)
{
    g_set_error(errp, SF_ERROR, SF_ERROR_IO, "cannot connect to %s: %s; start its reader first",
                name, g_strerror(err));
    return -1;
}

static int connect_unix(const char *path, const char *name, GError **errp)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    sf_autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (strlen(path) >= sizeof(address.sun_path)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_IO,
                    "the socket's path %s is longer than the kernel's %zu bytes", path,
                    sizeof(address.sun_path) - 1);
        return -1;
    }
    strcpy(address.sun_path, path);
    int err =
        fd < 0 ? errno : connect_within(fd, (const struct sockaddr *)&address, sizeof(address));
    if (err) {
        return connect_error(name, err, errp);
    }
    return sf_steal_fd(&fd);
}

static int connect_tcp(const Destination *destination, const char *name, GError **errp)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
    struct addrinfo *list = NULL;
    int err = ECONNREFUSED;

    int status = getaddrinfo(destination->path, destination->port, &hints, &list);
    if (status) {
        g_set_error(errp, SF_ERROR, SF_ERROR_IO, "cannot find %s: %s", name,
                    status == EAI_SYSTEM ? g_strerror(errno) : gai_strerror(status));
        return -1;
    }
    /* In the resolver's order; the last refusal is reported. */
    int connected = -1;
    for (struct addrinfo *a = list; a && connected < 0; a = a->ai_next) {
        sf_autofd fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        err = fd < 0 ? errno : connect_within(fd, a->ai_addr, a->ai_addrlen);
        if (!err) {
            connected = sf_steal_fd(&fd);
        }
    }
    freeaddrinfo(list);
    return connected >= 0 ? connected : connect_error(name, err, errp);
}

Channel *channel_socket_connect(const Destination *destination, GError **errp)
{
    gboolean tcp = destination->kind == DEST_TCP;
    gboolean v6 = tcp && strchr(destination->path, ':');
    g_autofree char *name = tcp ? g_strdup_printf(v6 ? "tcp:[%s]:%s" : "tcp:%s:%s",
                                                  destination->path, destination->port)
                                : g_strdup_printf("unix:%s", destination->path);
    int fd =
        tcp ? connect_tcp(destination, name, errp) : connect_unix(destination->path, name, errp);

    return fd < 0 ? NULL : socket_new(fd, g_steal_pointer(&name), TRUE, errp);
}
