/*
 * Looks TCP connections up in /proc/net/tcp and /proc/net/tcp6.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "attach/tcp-sockets.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define STATE_ESTABLISHED 1

/* IPv4 as a mapped IPv6 address, so that both tables and both ends compare. */
typedef struct Endpoint {
    struct in6_addr address;
    guint16 port; /* host order */
} Endpoint;

typedef struct Connection {
    Endpoint local;
    Endpoint remote;
    guint64 inode; /* 0 until it is accepted */
} Connection;

static void endpoint_from_words(Endpoint *endpoint, const guint32 *words, gsize count, guint port)
{
    guint32 whole[4] = { 0, 0, htonl(0xffff), 0 };
    /* The kernel prints each 32-bit word of the address as it lies in memory. */
    memcpy(count == 4 ? whole : whole + 3, words, count * sizeof(guint32));
    memcpy(&endpoint->address, whole, sizeof(endpoint->address));
    endpoint->port = (guint16)port;
}

static gboolean endpoint_from_sockaddr(Endpoint *endpoint, const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
        endpoint_from_words(endpoint, &v4->sin_addr.s_addr, 1, ntohs(v4->sin_port));
        return TRUE;
    }
    if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
        endpoint->address = v6->sin6_addr;
        endpoint->port = ntohs(v6->sin6_port);
        return TRUE;
    }
    return FALSE;
}

static gboolean endpoint_equal(const Endpoint *a, const Endpoint *b)
{
    return a->port == b->port && !memcmp(&a->address, &b->address, sizeof(a->address));
}

/* "ADDRESS:PORT" in hex, 8 or 32 digits. */
static gboolean parse_endpoint(const char *text, Endpoint *endpoint)
{
    guint32 words[4];
    gsize count = 0;
    while (count < 4 && strlen(text) >= 8 && sscanf(text, "%8x", &words[count]) == 1) {
        text += 8;
        count++;
        if (*text == ':') {
            break;
        }
    }
    guint port;
    if ((count != 1 && count != 4) || sscanf(text, ":%4x", &port) != 1) {
        return FALSE;
    }
    endpoint_from_words(endpoint, words, count, port);
    return TRUE;
}

static void read_table(const char *path, GArray *connections)
{
    g_autofree char *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return;
    }
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        char local[48], remote[48];
        guint state;
        Connection connection;
        /* sl local remote st tx:rx tr:when retrnsmt uid timeout inode */
        if (sscanf(*line, "%*s %47s %47s %x %*s %*s %*s %*s %*s %" SCNu64, local, remote, &state,
                   &connection.inode) == 4 &&
            state == STATE_ESTABLISHED && parse_endpoint(local, &connection.local) &&
            parse_endpoint(remote, &connection.remote)) {
            g_array_append_val(connections, connection);
        }
    }
}

static GArray *list_connections(void)
{
    GArray *connections = g_array_new(FALSE, FALSE, sizeof(Connection));
    read_table("/proc/net/tcp", connections);
    read_table("/proc/net/tcp6", connections);
    return connections;
}

static gboolean get_ends(int fd, Endpoint *local, Endpoint *remote)
{
    struct sockaddr_storage near = { 0 };
    struct sockaddr_storage far = { 0 };
    socklen_t near_length = sizeof(near);
    socklen_t far_length = sizeof(far);
    return getsockname(fd, (struct sockaddr *)&near, &near_length) == 0 &&
           getpeername(fd, (struct sockaddr *)&far, &far_length) == 0 &&
           endpoint_from_sockaddr(local, &near) && endpoint_from_sockaddr(remote, &far);
}

static guint64 find_inode(GArray *connections, const Endpoint *local, const Endpoint *remote)
{
    for (guint i = 0; i < connections->len; i++) {
        const Connection *each = &g_array_index(connections, Connection, i);
        if (endpoint_equal(&each->local, local) && endpoint_equal(&each->remote, remote)) {
            return each->inode;
        }
    }
    return 0;
}

guint64 tcp_socket_find_peer(int fd)
{
    Endpoint local, remote;
    if (!get_ends(fd, &local, &remote)) {
        return 0;
    }
    g_autoptr(GArray) connections = list_connections();
    return find_inode(connections, &remote, &local);
}

gboolean tcp_socket_find_other_client(int fd, guint64 *client)
{
    Endpoint local, remote;
    if (!get_ends(fd, &local, &remote)) {
        return FALSE;
    }
    g_autoptr(GArray) connections = list_connections();
    if (find_inode(connections, &remote, &local)) {
        /* We are the one that was accepted. */
        return FALSE;
    }
    for (guint i = 0; i < connections->len; i++) {
        const Connection *each = &g_array_index(connections, Connection, i);
        if (each->inode && endpoint_equal(&each->local, &remote) &&
            !endpoint_equal(&each->remote, &local)) {
            *client = find_inode(connections, &each->remote, &each->local);
            return TRUE;
        }
    }
    return FALSE;
}
