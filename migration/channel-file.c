/*
 * file: -- an image appears under its name only when it is complete. It grows in a file without a
 * name (O_TMPFILE), which the kernel throws away with the last descriptor, whatever kills us.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "channel-impl.h"
#include "util/autofd.h"
#include "util/fault-injection.h"

/* How long a FIFO may be without a reader. */
#define FIFO_WAIT_US (10 * G_USEC_PER_SEC)
#define FIFO_RETRY_US (20 * 1000)
/* The kernel is asked to start writing out after so many bytes, so that the last sync is short. */
#define WRITEBACK_STEP (32 * 1024 * 1024)
#define COPY_CHUNK (1024 * 1024)

typedef struct FileChannel {
    Channel base;
    int dir_fd;      /* of the directory that gets the image */
    char *base_name; /* final name in it */
    char *temp_name; /* where O_TMPFILE is not to be had, NULL otherwise */
    gboolean sync;
    guint64 position;  /* where the next write goes */
    guint64 writeback; /* up to where writing out was asked for */
} FileChannel;

static ssize_t file_write(Channel *channel, const struct iovec *iov, int count)
{
    FileChannel *file = (FileChannel *)channel;
    ssize_t done = writev(channel->fd, iov, count);

    if (done > 0) {
        file->position += (guint64)done;
        if (file->sync && file->position - file->writeback >= WRITEBACK_STEP) {
            /* Only a hint: an error would come back from fsync() as well. */
            sync_file_range(channel->fd, (off_t)file->writeback,
                            (off_t)(file->position - file->writeback), SYNC_FILE_RANGE_WRITE);
            file->writeback = file->position;
        }
    }
    return done;
}

/* In any order: what was written last says nothing about what is to be written out next. */
static ssize_t file_pwrite(Channel *channel, const struct iovec *iov, int count, guint64 position)
{
    FileChannel *file = (FileChannel *)channel;
    ssize_t done = pwritev(channel->fd, iov, count, (off_t)position);

    if (done > 0) {
        file->position += (guint64)done;
        if (file->sync && file->position - file->writeback >= WRITEBACK_STEP) {
            sync_file_range(channel->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
            file->writeback = file->position;
        }
    }
    return done;
}

/* The file was new and empty from here on: what is not written is a hole. */
static int file_skip(Channel *channel, guint64 length)
{
    FileChannel *file = (FileChannel *)channel;

    if (length > (guint64)G_MAXINT64 - file->position) {
        errno = EFBIG;
        return -1;
    }
    file->position += length;
    return lseek(channel->fd, (off_t)file->position, SEEK_SET) < 0 ||
                   ftruncate(channel->fd, (off_t)file->position) < 0
               ? -1
               : 0;
}

static int file_clone(Channel *channel, int from)
{
    return ioctl(channel->fd, FICLONE, from);
}

static char *temp_name_for(const char *base_name)
{
    /* A name may have 255 bytes: a long one is cut to leave room for what is added. */
    return g_strdup_printf(".%.200s.%06x", base_name, g_random_int() & 0xffffff);
}

/* Gives the file @name; -1 with errno. linkat() with AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH.
 */
static int link_unnamed(FileChannel *file, const char *name)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", file->base.fd);
    return linkat(AT_FDCWD, path, file->dir_fd, name, AT_SYMLINK_FOLLOW);
}

/* Gives it a name of its own beside the final one; -1 with errno. */
static int link_temporary(FileChannel *file)
{
    for (;;) {
        g_autofree char *name = temp_name_for(file->base_name);
        if (link_unnamed(file, name) == 0) {
            file->temp_name = g_steal_pointer(&name);
            return 0;
        }
        if (errno != EEXIST) {
            return -1;
        }
    }
}

/*
 * linkat() never replaces a name and renameat() needs one to start from: so where the final name
 * is taken the file goes through a second name for the moment between the two calls.
 */
static gboolean file_appear(FileChannel *file, GError **errp)
{
    const char *what = "give the finished image its name";

    if (!file->temp_name) {
        if (link_unnamed(file, file->base_name) == 0) {
            return TRUE;
        }
        if (errno != EEXIST || link_temporary(file) < 0) {
            return channel_io_error(file->base.name, what, errno, errp);
        }
    }
    if (renameat(file->dir_fd, file->temp_name, file->dir_fd, file->base_name) < 0) {
        return channel_io_error(file->base.name, what, errno, errp);
    }
    g_clear_pointer(&file->temp_name, g_free);
    return TRUE;
}

static gboolean file_commit(Channel *channel, GError **errp)
{
    FileChannel *file = (FileChannel *)channel;

    /* Content first: a name must never stand for bytes that a power cut can take away. */
    if (file->sync && fsync(channel->fd) < 0) {
        return channel_io_error(channel->name, "write to", errno, errp);
    }
    if (!file_appear(file, errp)) {
        return FALSE;
    }
    if (file->sync && fsync(file->dir_fd) < 0) {
        return channel_io_error(channel->name, "make durable the name of", errno, errp);
    }
    return TRUE;
}

static void file_release(Channel *channel)
{
    FileChannel *file = (FileChannel *)channel;

    if (file->temp_name) {
        unlinkat(file->dir_fd, file->temp_name, 0);
    }
    sf_clear_fd(&file->dir_fd);
    g_free(file->temp_name);
    g_free(file->base_name);
}

static const ChannelOps file_ops = {
    .write = file_write,
    .pwrite = file_pwrite,
    .clone = file_clone,
    .skip = file_skip,
    .commit = file_commit,
    .release = file_release,
};

static gboolean open_named(FileChannel *file, GError **errp)
{
    do {
        g_free(file->temp_name);
        file->temp_name = temp_name_for(file->base_name);
        file->base.fd = openat(file->dir_fd, file->temp_name,
                               O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
    } while (file->base.fd < 0 && errno == EEXIST);
    if (file->base.fd < 0) {
        int err = errno;
        g_clear_pointer(&file->temp_name, g_free);
        return channel_io_error(file->base.name, "create", err, errp);
    }
    return TRUE;
}

/* Opens the file that will become the image; 0600, because a guest's memory holds its secrets. */
static gboolean open_unnamed(FileChannel *file, GError **errp)
{
    /* Without /proc there is no way to a name later. */
    if (fault_injected("no-o-tmpfile") || access("/proc/self/fd", X_OK) < 0) {
        return open_named(file, errp);
    }
    file->base.fd = openat(file->dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (file->base.fd >= 0) {
        return TRUE;
    }
    /* What file systems without it say: EOPNOTSUPP, and EISDIR or EINVAL from some (FUSE, NFS). */
    if (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL) {
        return open_named(file, errp);
    }
    return channel_io_error(file->base.name, "create", errno, errp);
}

static gboolean copy_by_hand(FileChannel *file, int from, guint64 length, GError **errp)
{
    g_autofree char *buffer = g_malloc(COPY_CHUNK);
    guint64 at = 0;

    while (at < length) {
        ssize_t got = pread(from, buffer, MIN(length - at, COPY_CHUNK), (off_t)at);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return channel_io_error(file->base.name, "read the beginning of", errno, errp);
        }
        if (got == 0) {
            break; /* it became shorter: the rest is a hole */
        }
        for (ssize_t put = 0; put < got;) {
            ssize_t n = pwrite(file->base.fd, buffer + put, (size_t)(got - put), (off_t)at + put);
            if (n < 0 && errno != EINTR) {
                return channel_io_error(file->base.name, "write to", errno, errp);
            }
            put += MAX(n, 0);
        }
        at += (guint64)got;
    }
    return TRUE;
}

/* Takes over the first @length bytes of the file that will be replaced. */
static gboolean copy_beginning(FileChannel *file, int from, guint64 length, GError **errp)
{
    loff_t in = 0;
    loff_t out = 0;

    while ((guint64)in < length) {
        ssize_t done = copy_file_range(from, &in, file->base.fd, &out, length - (guint64)in, 0);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            /* Not between these file systems, or not at all: start again the slow way. */
            return copy_by_hand(file, from, length, errp);
        }
        if (done == 0) {
            break;
        }
    }
    return TRUE;
}

/* What QEMU does in place: everything before the offset stays, the image begins there. */
static gboolean prepare_offset(FileChannel *file, const char *path, guint64 offset, GError **errp)
{
    struct stat st;
    sf_autofd old = open(path, O_RDONLY | O_CLOEXEC);

    if (old < 0 && errno != ENOENT) {
        return channel_io_error(file->base.name, "read the beginning of", errno, errp);
    }
    if (old >= 0) {
        if (fstat(old, &st) < 0) {
            return channel_io_error(file->base.name, "read the beginning of", errno, errp);
        }
        if (!copy_beginning(file, old, MIN(offset, (guint64)st.st_size), errp)) {
            return FALSE;
        }
    }
    if (ftruncate(file->base.fd, (off_t)offset) < 0 ||
        lseek(file->base.fd, (off_t)offset, SEEK_SET) < 0) {
        return channel_io_error(file->base.name, "make room before the offset in", errno, errp);
    }
    file->position = file->writeback = file->base.offset = offset;
    return TRUE;
}

/* A file that its owner prepared keeps owner and mode, as if it had been written in place. */
static void keep_owner_and_mode(FileChannel *file, const struct stat *old)
{
    if (fchown(file->base.fd, old->st_uid, old->st_gid) == 0) {
        fchmod(file->base.fd, old->st_mode & 0777);
    }
}

/* @path is resolved: no link at its end. @old is what stands there, NULL for nothing. */
static Channel *open_regular(const char *path, guint64 offset, gboolean sync,
                             const struct stat *old, GError **errp)
{
    FileChannel *file = g_new0(FileChannel, 1);
    g_autoptr(Channel) channel = &file->base;
    g_autofree char *dir = g_path_get_dirname(path);

    file->dir_fd = -1;
    file->sync = sync;
    file->base_name = g_path_get_basename(path);
    if (!channel_init(channel, &file_ops, -1, g_strdup_printf("file:%s", path), errp)) {
        return NULL;
    }
    file->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file->dir_fd < 0) {
        channel_io_error(dir, "open the directory", errno, errp);
        return NULL;
    }
    if (!open_unnamed(file, errp)) {
        return NULL;
    }
    if (old) {
        keep_owner_and_mode(file, old);
    }
    if (offset && !prepare_offset(file, path, offset, errp)) {
        return NULL;
    }
    return g_steal_pointer(&channel);
}

static gboolean special_commit(Channel *channel, GError **errp)
{
    FileChannel *file = (FileChannel *)channel;

    /* FIFOs and most character devices have nothing to sync and say EINVAL. */
    if (file->sync && fsync(channel->fd) < 0 && errno != EINVAL && errno != EROFS) {
        return channel_io_error(channel->name, "write to", errno, errp);
    }
    return TRUE;
}

static const ChannelOps special_ops = {
    .write = channel_plain_write,
    .commit = special_commit,
    .release = file_release,
};

/* O_NONBLOCK keeps a FIFO without a reader from holding us for ever: open() says ENXIO instead. */
static int open_special(const char *path, gboolean fifo)
{
    gint64 deadline = g_get_monotonic_time() + FIFO_WAIT_US;
    int fd;

    while ((fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY | (fifo ? O_NONBLOCK : 0))) < 0 &&
           errno == ENXIO && fifo && g_get_monotonic_time() < deadline) {
        g_usleep(FIFO_RETRY_US);
    }
    return fd;
}

/* A device or a FIFO: there is nothing to rename, the stream goes straight into it. */
static Channel *open_in_place(const char *path, guint64 offset, gboolean sync,
                              const struct stat *st, GError **errp)
{
    FileChannel *file = g_new0(FileChannel, 1);
    g_autoptr(Channel) channel = &file->base;
    gboolean fifo = S_ISFIFO(st->st_mode);

    file->dir_fd = -1;
    file->sync = sync;
    if (!channel_init(channel, &special_ops, -1, g_strdup_printf("file:%s", path), errp)) {
        return NULL;
    }
    channel->can_wait = fifo;
    channel->fd = open_special(path, fifo);
    if (channel->fd < 0 && fifo && errno == ENXIO) {
        g_set_error(errp, SF_ERROR, SF_ERROR_IO,
                    "nobody reads from the FIFO %s; start its reader first", path);
        return NULL;
    }
    if (channel->fd < 0) {
        channel_io_error(channel->name, "open", errno, errp);
        return NULL;
    }
    if (offset && lseek(channel->fd, (off_t)offset, SEEK_SET) < 0) {
        channel_io_error(channel->name, "go to the offset in", errno, errp);
        return NULL;
    }
    return g_steal_pointer(&channel);
}

Channel *channel_file_open(const Destination *destination, gboolean sync, GError **errp)
{
    const char *path = destination->path;
    struct stat st;

    if (stat(path, &st) < 0) {
        if (errno != ENOENT) {
            channel_io_error(path, "open", errno, errp);
            return NULL;
        }
        if (lstat(path, &st) == 0) {
            g_set_error(errp, SF_ERROR, SF_ERROR_IO,
                        "%s is a symbolic link to nothing; remove it or create its target", path);
            return NULL;
        }
        return open_regular(path, destination->offset, sync, NULL, errp);
    }
    if (S_ISDIR(st.st_mode)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_IO, "%s is a directory; name a file in it", path);
        return NULL;
    }
    if (!S_ISREG(st.st_mode)) {
        return open_in_place(path, destination->offset, sync, &st, errp);
    }
    /* Where a link points to a file, the file is replaced and the link stays. */
    g_autofree char *resolved = realpath(path, NULL);
    if (!resolved) {
        channel_io_error(path, "open", errno, errp);
        return NULL;
    }
    return open_regular(resolved, destination->offset, sync, &st, errp);
}
