/*
 * The unix sockets of this network namespace: who is connected to whom. Nothing about QEMU.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>
#include <sys/types.h>

#include "util/error.h"

typedef struct UnixSocket {
    guint64 inode;
    guint64 peer; /* the inode at the other end, 0 where there is none or it cannot be told */
    gboolean listening;
    gboolean connected;
    gboolean abandoned; /* connected, but the other end has been closed (sock_diag only) */
    char *path;         /* as bound; "@name" for an abstract one, "" for none */
} UnixSocket;

void unix_socket_free(UnixSocket *socket);

/*
 * All stream sockets that some process holds (a connection that waits to be accepted has no inode
 * and is left out). From sock_diag; where that is missing from /proc/net/unix, which does not tell
 * peers. Array of UnixSocket, owning; empty where neither can be read.
 */
GPtrArray *unix_sockets_list(void);

/*
 * The path that the listening socket @inode of process @pid is bound to, looked up in that
 * process's network namespace; NULL where there is none.
 */
char *unix_socket_find_listener(pid_t pid, guint64 inode);

/*
 * The inode at the other end of the connected unix socket @fd. Crosses network namespaces. 0 and
 * *errp where the kernel does not tell.
 */
guint64 unix_socket_get_peer(int fd, GError **errp);

/* The name that the server of the connected socket @fd bound it to, in the form of path above. */
char *unix_socket_get_peer_name(int fd);
