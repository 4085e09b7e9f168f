/*
 * Feeding a QEMU its stream through a pipe: the one incoming form that every version takes, and the
 * one that begins and ends where we say.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "incoming-impl.h"
#include "util/autofd.h"

#define PIPE_BYTES (1024 * 1024)
#define COPY_CHUNK (256 * 1024)
/* The name under which QEMU knows the descriptor between two commands. */
#define FD_NAME "stillframe-incoming"

struct IncomingFeed {
    int fd;
    int pipe;
    FeedRange ranges[FEED_RANGES];
    GThread *thread;
    guint64 done; /* atomic */
    gint error;   /* atomic */
};

/* For files that cannot be spliced. Bytes moved, 0 at the end, or -1 with errno. */
static ssize_t copy_some(IncomingFeed *feed, guint64 at, gsize length)
{
    g_autofree char *buffer = g_malloc(COPY_CHUNK);
    ssize_t got = pread(feed->fd, buffer, MIN(length, COPY_CHUNK), (off_t)at);

    for (ssize_t put = 0; put < got;) {
        ssize_t n = write(feed->pipe, buffer + put, (gsize)(got - put));
        if (n < 0 && errno != EINTR) {
            return -1;
        }
        put += MAX(n, 0);
    }
    return got;
}

/* 0 or an errno. */
static int feed_range(IncomingFeed *feed, const FeedRange *range)
{
    guint64 at = range->start;
    gboolean spliceable = TRUE;

    while (at < range->end) {
        loff_t offset = (loff_t)at;
        gsize length = MIN(range->end - at, G_MAXINT);
        ssize_t n = spliceable ? splice(feed->fd, &offset, feed->pipe, NULL, length, SPLICE_F_MORE)
                               : copy_some(feed, at, length);
        if (n < 0 && errno == EINVAL && spliceable) {
            spliceable = FALSE;
            continue;
        }
        if (n < 0 && errno != EINTR) {
            return errno;
        }
        if (n == 0) {
            return ENODATA; /* the file became shorter */
        }
        at += (guint64)MAX(n, 0);
        __atomic_fetch_add(&feed->done, (guint64)MAX(n, 0), __ATOMIC_RELAXED);
    }
    return 0;
}

static gpointer feed_thread(gpointer data)
{
    IncomingFeed *feed = data;

    for (guint i = 0; i < FEED_RANGES; i++) {
        int err = feed_range(feed, &feed->ranges[i]);
        if (err) {
            g_atomic_int_set(&feed->error, err);
            break;
        }
    }
    sf_clear_fd(&feed->pipe); /* QEMU sees the end */
    return NULL;
}

/* getfd keeps the descriptor under a name until migrate-incoming takes it. */
static gboolean hand_over(QmpClient *qmp, int fd, GError **errp)
{
    JsonObject *getfd = json_object_new();
    JsonObject *incoming = json_object_new();

    json_object_set_string_member(getfd, "fdname", FD_NAME);
    json_object_set_string_member(incoming, "uri", "fd:" FD_NAME);
    g_autoptr(JsonNode) got = qmp_client_execute_with_fd(qmp, "getfd", getfd, fd, errp);
    if (!got) {
        json_object_unref(incoming);
        return FALSE;
    }
    g_autoptr(JsonNode) begun = qmp_client_execute(qmp, "migrate-incoming", incoming, errp);
    return begun != NULL;
}

IncomingFeed *incoming_feed_start(QmpClient *qmp, int fd, const FeedRange ranges[FEED_RANGES],
                                  GError **errp)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot make a pipe for QEMU");
        return NULL;
    }
    sf_autofd reading = ends[0];
    sf_autofd writing = ends[1];
    fcntl(writing, F_SETPIPE_SZ, PIPE_BYTES); /* only saves wake-ups */
    if (!hand_over(qmp, reading, errp)) {
        return NULL;
    }
    IncomingFeed *feed = g_new0(IncomingFeed, 1);
    feed->fd = fd;
    feed->pipe = sf_steal_fd(&writing);
    for (guint i = 0; i < FEED_RANGES; i++) {
        feed->ranges[i] = ranges[i];
    }
    /* Our copy of the other end must go first, or QEMU's death would not show as EPIPE. */
    sf_clear_fd(&reading);
    feed->thread = g_thread_new("feed", feed_thread, feed);
    return feed;
}

guint64 incoming_feed_get_done(IncomingFeed *feed)
{
    return __atomic_load_n(&feed->done, __ATOMIC_RELAXED);
}

int incoming_feed_get_error(IncomingFeed *feed)
{
    return g_atomic_int_get(&feed->error);
}

void incoming_feed_free(IncomingFeed *feed)
{
    if (feed) {
        g_thread_join(feed->thread);
        g_free(feed);
    }
}
