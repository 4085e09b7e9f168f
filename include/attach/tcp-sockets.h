/*
 * TCP connections within this host, from /proc/net/tcp and tcp6. Nothing about QEMU.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

/* The inode at the other end of the connected TCP socket @fd, when that is on this host; else 0. */
guint64 tcp_socket_find_peer(int fd);

/*
 * Whether the server of the connected socket @fd has accepted another client. *client gets the
 * inode of that client's end, 0 where it is not on this host. FALSE for other kinds of sockets.
 */
gboolean tcp_socket_find_other_client(int fd, guint64 *client);
