/*
 * fd: -- a descriptor that stillframe inherited. Others may hold the same open file description, so
 * its flags (O_NONBLOCK above all) are not ours to change.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#include "channel-impl.h"
#include "util/autofd.h"

typedef struct FdChannel {
    Channel base;
    gboolean sync;
} FdChannel;

static gboolean fd_commit(Channel *channel, GError **errp)
{
    FdChannel *fd = (FdChannel *)channel;

    if (fd->sync && fsync(channel->fd) < 0) {
        return channel_io_error(channel->name, "write to", errno, errp);
    }
    return TRUE;
}

static void fd_release(Channel *channel)
{
}

static const ChannelOps fd_ops = {
    .write = channel_plain_write,
    .commit = fd_commit,
    .release = fd_release,
};

/*
 * A pipe that blocks would hold the writer where channel_interrupt() cannot reach it: poll() only
 * promises room for one byte run of PIPE_BUF, and a longer write waits for the rest. Opening the
 * pipe anew through /proc gives an open file description of our own, where O_NONBLOCK concerns
 * nobody else. Where that is not allowed (another user made the pipe), each write is kept to
 * PIPE_BUF, which does not block after poll() as long as nobody else writes into the pipe.
 */
static gboolean prepare_pipe(Channel *channel, GError **errp)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", channel->fd);
    int own = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);

    channel->can_wait = TRUE;
    if (own >= 0) {
        close(channel->fd);
        channel->fd = own;
    } else if (errno == ENXIO) {
        return channel_io_error(channel->name, "write to", EPIPE, errp);
    } else {
        channel->max_write = PIPE_BUF;
    }
    return TRUE;
}

/* A copy of the descriptor for us, or -1. */
static int duplicate(const Destination *destination, const char *name, struct stat *st,
                     GError **errp)
{
    sf_autofd own = fcntl(destination->fd, F_DUPFD_CLOEXEC, 3);
    int flags = own >= 0 ? fcntl(own, F_GETFL) : -1;

    if (own < 0 || flags < 0 || fstat(own, st) < 0) {
        g_set_error(
            errp, SF_ERROR, SF_ERROR_IO,
            "%s is not an open descriptor of stillframe: %s; pass one on, as in \"%d>image\"", name,
            g_strerror(errno), destination->fd);
        return -1;
    }
    if ((flags & O_ACCMODE) == O_RDONLY) {
        g_set_error(errp, SF_ERROR, SF_ERROR_IO, "%s is open for reading only", name);
        return -1;
    }
    return sf_steal_fd(&own);
}

Channel *channel_fd_open(const Destination *destination, gboolean sync, GError **errp)
{
    g_autofree char *name = g_strdup_printf("fd:%d", destination->fd);
    struct stat st;
    int own = duplicate(destination, name, &st, errp);

    if (own < 0) {
        return NULL;
    }
    if (S_ISSOCK(st.st_mode)) {
        return channel_socket_adopt(own, g_steal_pointer(&name), errp);
    }
    FdChannel *fd = g_new0(FdChannel, 1);
    g_autoptr(Channel) channel = &fd->base;
    fd->sync = sync && S_ISREG(st.st_mode);
    if (!channel_init(channel, &fd_ops, own, g_steal_pointer(&name), errp) ||
        (S_ISFIFO(st.st_mode) && !prepare_pipe(channel, errp))) {
        return NULL;
    }
    return g_steal_pointer(&channel);
}
