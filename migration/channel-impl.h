/*
 * What the transports share: each fills in a small table of operations and hangs its own state
 * behind a Channel. Only channel*.c may include this.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <sys/types.h>

#include "migration/channel.h"

typedef struct ChannelOps {
    /* One attempt to write; the bytes written, or -1 with errno. */
    ssize_t (*write)(Channel *channel, const struct iovec *iov, int count);
    /* The same at a place of the file; NULL where there are no places. */
    ssize_t (*pwrite)(Channel *channel, const struct iovec *iov, int count, guint64 position);
    /*
     * Makes the new file share all blocks of file @from; -1 with errno. NULL where there are no
     * places.
     */
    int (*clone)(Channel *channel, int from);
    /* Says in *errp why a write failed with @err, where the transport knows more; may be NULL. */
    void (*explain)(Channel *channel, int err, GError **errp);
    /* Makes a hole; -1 with errno. NULL: zeros are written. */
    int (*skip)(Channel *channel, guint64 length);
    gboolean (*commit)(Channel *channel, GError **errp);
    /* Releases what the transport added, committed or not; fd and the rest are the base's. */
    void (*release)(Channel *channel);
} ChannelOps;

struct Channel {
    const ChannelOps *ops;
    char *name; /* for messages */
    int fd;
    int interrupt_fd;  /* an eventfd that stays readable once interrupted */
    gint interrupted;  /* the same for those who do not poll; atomic */
    gboolean can_wait; /* poll() tells when a write will not block */
    gsize max_write;   /* bytes for one attempt; 0: as many as there are */
    guint64 bytes;     /* atomic */
    guint64 offset;    /* of the image's beginning in the file */
};

/* Initialises the base, taking @fd and @name. FALSE when there is no descriptor for the eventfd. */
gboolean channel_init(Channel *channel, const ChannelOps *ops, int fd, char *name, GError **errp);

typedef enum { CHANNEL_READY, CHANNEL_TIMEOUT, CHANNEL_FAILED } ChannelWait;

/*
 * Waits until @fd has one of @events or an error to tell, at most @timeout_ms (-1: for ever).
 * CHANNEL_FAILED, with *errp set, when the channel was interrupted.
 */
ChannelWait channel_wait(Channel *channel, int fd, short events, int timeout_ms, GError **errp);

ssize_t channel_plain_write(Channel *channel, const struct iovec *iov, int count);

/* SF_ERROR_IO, "cannot <what> <name>: <reason>", with what to do about it. Returns FALSE. */
gboolean channel_io_error(const char *name, const char *what, int err, GError **errp);

Channel *channel_file_open(const Destination *destination, gboolean sync, GError **errp);
Channel *channel_exec_open(const Destination *destination, GError **errp);
Channel *channel_fd_open(const Destination *destination, gboolean sync, GError **errp);
Channel *channel_socket_connect(const Destination *destination, GError **errp);
/* On a connected stream socket (taken) that others may hold too: it is not shut down at the end. */
Channel *channel_socket_adopt(int fd, char *name, GError **errp);
