/*
 * What all transports do alike: the write loop with its waits, interruption, counting and errors.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "channel-impl.h"
#include "util/autofd.h"
#include "util/fault-injection.h"

gboolean channel_init(Channel *channel, const ChannelOps *ops, int fd, char *name, GError **errp)
{
    channel->ops = ops;
    channel->fd = fd;
    channel->name = name;
    channel->interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return channel->interrupt_fd >= 0 ||
           sf_error_set_errno(errp, SF_ERROR_IO, errno, "cannot make an eventfd for %s", name);
}

Channel *channel_open_output(const Destination *destination, gboolean sync, GError **errp)
{
    switch (destination->kind) {
    case DEST_FILE:
        return channel_file_open(destination, sync, errp);
    case DEST_EXEC:
        return channel_exec_open(destination, errp);
    case DEST_FD:
        return channel_fd_open(destination, sync, errp);
    case DEST_UNIX:
    case DEST_TCP:
        return channel_socket_connect(destination, errp);
    }
    g_set_error(errp, SF_ERROR, SF_ERROR_USAGE, "unknown kind of destination");
    return NULL;
}

static const char *hint_for(int err)
{
    switch (err) {
    case ENOSPC:
        return "; free space there or choose another destination";
    case EDQUOT:
        return "; raise the disk quota or choose another destination";
    case EFBIG:
        return "; raise the limit (ulimit -f), or choose a file system that takes larger files";
    case EPIPE:
    case ECONNRESET:
        return "; the reader went away before the end of the image, see its own messages";
    case EIO:
        return "; the storage failed, see the kernel log";
    case EROFS:
    case EACCES:
    case EPERM:
        return "; choose a place that you may write to";
    case ENOENT:
        return "; create the directory first";
    default:
        return "";
    }
}

gboolean channel_io_error(const char *name, const char *what, int err, GError **errp)
{
    g_set_error(errp, SF_ERROR, SF_ERROR_IO, "cannot %s %s: %s%s", what, name, g_strerror(err),
                hint_for(err));
    return FALSE;
}

static gboolean set_cancelled(Channel *channel, GError **errp)
{
    g_set_error(errp, SF_ERROR, SF_ERROR_CANCELLED, "writing to %s was cancelled", channel->name);
    return FALSE;
}

ChannelWait channel_wait(Channel *channel, int fd, short events, int timeout_ms, GError **errp)
{
    struct pollfd fds[] = {
        { .fd = channel->interrupt_fd, .events = POLLIN },
        { .fd = fd, .events = events },
    };

    /* A signal starts the time anew; whoever has many signals has also interrupted the channel. */
    while (poll(fds, G_N_ELEMENTS(fds), timeout_ms) < 0) {
        if (errno != EINTR) {
            channel_io_error(channel->name, "wait for", errno, errp);
            return CHANNEL_FAILED;
        }
    }
    if (fds[0].revents) {
        set_cancelled(channel, errp);
        return CHANNEL_FAILED;
    }
    return fds[1].revents ? CHANNEL_READY : CHANNEL_TIMEOUT;
}

ssize_t channel_plain_write(Channel *channel, const struct iovec *iov, int count)
{
    return writev(channel->fd, iov, count);
}

/* Where a write goes: behind the one before, or to a place of the file. */
#define IN_ORDER G_MAXUINT64

/* One system call's worth; -1 with errno. */
static ssize_t write_once(Channel *channel, const struct iovec *iov, int count, guint64 position)
{
    if (fault_injected("write-enospc")) {
        errno = ENOSPC;
        return -1;
    }
    if (fault_injected("write-eio")) {
        errno = EIO;
        return -1;
    }
    if (position != IN_ORDER) {
        return channel->ops->pwrite(channel, iov, MIN(count, IOV_MAX), position);
    }
    if (channel->max_write) {
        struct iovec part = { iov->iov_base, MIN(iov->iov_len, channel->max_write) };
        return channel->ops->write(channel, &part, 1);
    }
    return channel->ops->write(channel, iov, MIN(count, IOV_MAX));
}

/* Takes @done bytes, and whatever is empty behind them, off the front of the vector. */
static void advance(struct iovec **iov, int *count, gsize done)
{
    while (*count > 0 && done >= (*iov)->iov_len) {
        done -= (*iov)->iov_len;
        (*iov)++;
        (*count)--;
    }
    if (*count > 0) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + done;
        (*iov)->iov_len -= done;
    }
}

static gboolean write_all(Channel *channel, struct iovec *iov, int count, guint64 position,
                          GError **errp)
{
    advance(&iov, &count, 0);
    while (count > 0) {
        if (g_atomic_int_get(&channel->interrupted)) {
            return set_cancelled(channel, errp);
        }
        if (channel->can_wait &&
            channel_wait(channel, channel->fd, POLLOUT, -1, errp) == CHANNEL_FAILED) {
            return FALSE;
        }
        ssize_t done = write_once(channel, iov, count, position);
        if (done < 0) {
            int err = errno;
            if (err == EINTR || (err == EAGAIN && channel->can_wait)) {
                continue;
            }
            if (channel->ops->explain) {
                channel->ops->explain(channel, err, errp);
            } else {
                channel_io_error(channel->name, "write to", err, errp);
            }
            return FALSE;
        }
        __atomic_fetch_add(&channel->bytes, (guint64)done, __ATOMIC_RELAXED);
        position += position != IN_ORDER ? (guint64)done : 0;
        advance(&iov, &count, (gsize)done);
    }
    return TRUE;
}

gboolean channel_writev(Channel *channel, struct iovec *iov, int count, GError **errp)
{
    return write_all(channel, iov, count, IN_ORDER, errp);
}

gboolean channel_has_places(Channel *channel)
{
    return channel->ops->pwrite != NULL;
}

guint64 channel_get_offset(Channel *channel)
{
    return channel->offset;
}

gboolean channel_pwritev(Channel *channel, struct iovec *iov, int count, guint64 position,
                         GError **errp)
{
    return write_all(channel, iov, count, channel->offset + position, errp);
}

static gboolean write_zeros(Channel *channel, guint64 length, GError **errp)
{
    static const guint8 zeros[64 * 1024];

    while (length) {
        struct iovec iov = { (void *)zeros, MIN(length, sizeof(zeros)) };
        length -= iov.iov_len;
        if (!channel_writev(channel, &iov, 1, errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

gboolean channel_skip(Channel *channel, guint64 length, GError **errp)
{
    if (!length || !channel->ops->skip) {
        return write_zeros(channel, length, errp);
    }
    if (channel->ops->skip(channel, length) < 0) {
        return channel_io_error(channel->name, "make a hole in", errno, errp);
    }
    __atomic_fetch_add(&channel->bytes, length, __ATOMIC_RELAXED);
    return TRUE;
}

gboolean channel_clone(Channel *channel, int from, gboolean *cloned, GError **errp)
{
    *cloned = FALSE;
    if (!channel->ops->clone || channel->offset || fault_injected("no-reflink")) {
        return TRUE;
    }
    *cloned = channel->ops->clone(channel, from) == 0;
    /* What file systems say that cannot: not at all, not between these two, not this file. */
    return *cloned || errno == EOPNOTSUPP || errno == EXDEV || errno == EINVAL || errno == ENOTTY ||
           errno == EPERM || errno == ETXTBSY ||
           channel_io_error(channel->name, "clone the parent into", errno, errp);
}

gboolean channel_truncate(Channel *channel, guint64 position, GError **errp)
{
    return ftruncate(channel->fd, (off_t)(channel->offset + position)) == 0 ||
           channel_io_error(channel->name, "cut off", errno, errp);
}

guint64 channel_get_bytes(Channel *channel)
{
    return __atomic_load_n(&channel->bytes, __ATOMIC_RELAXED);
}

gboolean channel_commit(Channel *channel, GError **errp)
{
    if (channel->fd < 0) {
        g_set_error(errp, SF_ERROR, SF_ERROR_IO, "%s is closed already", channel->name);
        return FALSE;
    }
    gboolean ok = g_atomic_int_get(&channel->interrupted) ? set_cancelled(channel, errp)
                                                          : channel->ops->commit(channel, errp);
    sf_clear_fd(&channel->fd);
    return ok;
}

void channel_interrupt(Channel *channel)
{
    guint64 one = 1;

    g_atomic_int_set(&channel->interrupted, 1);
    /* The counter of an eventfd cannot be full after one write; there is no error to expect. */
    if (write(channel->interrupt_fd, &one, sizeof(one)) < 0) {
        g_warning("cannot interrupt %s: %s", channel->name, g_strerror(errno));
    }
}

void channel_free(Channel *channel)
{
    if (!channel) {
        return;
    }
    channel->ops->release(channel);
    sf_clear_fd(&channel->fd);
    sf_clear_fd(&channel->interrupt_fd);
    g_free(channel->name);
    g_free(channel);
}
