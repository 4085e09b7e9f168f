/*
 * Where a migration stream goes: QEMU's destination forms behind one interface. One module a
 * transport, as QEMU has them: channel-file.c, channel-exec.c, channel-socket.c, channel-fd.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>
#include <sys/uio.h>

#include "util/error.h"

typedef enum { DEST_FILE, DEST_EXEC, DEST_FD, DEST_UNIX, DEST_TCP } DestinationKind;

typedef struct Destination {
    DestinationKind kind;
    char *path;     /* file, unix: the path; exec: the command; tcp: the host */
    char *port;     /* tcp */
    int fd;         /* fd */
    guint64 offset; /* file: where the stream begins */
} Destination;

void destination_free(Destination *destination);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Destination, destination_free)

/*
 * Parses "file:PATH[,offset=SIZE]", a bare path, "exec:COMMAND", "fd:N", "unix:PATH" or
 * "tcp:HOST:PORT" ("tcp:[V6]:PORT"). SIZE is decimal or 0x hex, with QEMU's suffixes k, M, G, T, P,
 * E (either case). "path" alone may hold colons only behind a '/'. SF_ERROR_USAGE.
 */
Destination *destination_parse(const char *text, GError **errp);

/*
 * Parses a SIZE as above; it is at most INT64_MAX, so that it also fits an off_t. SF_ERROR_USAGE.
 */
gboolean destination_parse_size(const char *text, guint64 *size, GError **errp);

typedef struct Channel Channel;

/*
 * Opens it for writing. A file is written beside its final name (O_TMPFILE where the file system
 * has it, so that nothing is left even after SIGKILL) and gets the name only in channel_commit();
 * with an offset, what stands before the offset in an existing file is kept, as QEMU does. A
 * path that exists and is not a regular file (a device, a FIFO) is written in place. exec runs
 * "/bin/sh -c COMMAND" in a session of its own with the stream on its standard input. SIGPIPE is
 * the caller's to ignore. SF_ERROR_IO with what to do.
 */
Channel *channel_open_output(const Destination *destination, gboolean sync, GError **errp);

/*
 * Writes all of @iov (changed on the way). One thread at a time. Waits in poll() for descriptors
 * that can wait, so that channel_interrupt() gets through. SF_ERROR_IO, or SF_ERROR_CANCELLED.
 */
gboolean channel_writev(Channel *channel, struct iovec *iov, int count, GError **errp);

/*
 * Whether channel_pwritev() and what follows it can be used: a regular file that is written beside
 * its name. Whoever uses them does not use channel_writev().
 */
gboolean channel_has_places(Channel *channel);
/* Where the image begins in the file, bytes. */
guint64 channel_get_offset(Channel *channel);
/* Writes all of @iov at @position, counted from the image's beginning; what is skipped is a hole.
 */
gboolean channel_pwritev(Channel *channel, struct iovec *iov, int count, guint64 position,
                         GError **errp);

/*
 * The same for @length zeros: a hole in a regular file, written bytes elsewhere. What follows a
 * hole at the end of a file is its length.
 */
gboolean channel_skip(Channel *channel, guint64 length, GError **errp);

/*
 * A channel that compresses what it is given into @inner (taken): frames of 1 MiB each on its own,
 * so that a reader can begin at any of them. zstd frames end in the seek table of the "Zstandard
 * Seekable Format" (a skippable frame); zlib is written as gzip members. Both are what zstd(1) and
 * gzip(1) take. @level 0: the default.
 */
typedef enum { CHANNEL_ZSTD, CHANNEL_GZIP } ChannelCompression;
Channel *channel_compress_new(Channel *inner, ChannelCompression compression, int level,
                              GError **errp);

/*
 * Begins with the content of the file @from, sharing its blocks. *cloned is FALSE where the file
 * system, or the place in the file, does not allow it: nothing has happened then. Before anything
 * is written.
 */
gboolean channel_clone(Channel *channel, int from, gboolean *cloned, GError **errp);
/* Cuts the file off at @position, counted from the image's beginning. */
gboolean channel_truncate(Channel *channel, guint64 position, GError **errp);

/* Bytes written to the stream so far. Any thread. */
guint64 channel_get_bytes(Channel *channel);

/*
 * Makes it complete: flush, sync (if asked for: file and directory), rename over the final name;
 * exec: close the pipe and wait for status 0. The channel is closed afterwards in either case.
 */
gboolean channel_commit(Channel *channel, GError **errp);

/* A wait in another thread ends with SF_ERROR_CANCELLED, now and from now on. Any thread. */
void channel_interrupt(Channel *channel);

/* Frees it. Uncommitted: nothing stays under any name, a command is ended. NULL is allowed. */
void channel_free(Channel *channel);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Channel, channel_free)
