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
/* Guest memory between two flushes of a converted image. */
#define CONVERT_FLUSH (1024 * 1024ULL)
/* The name under which QEMU knows the descriptor between two commands. */
#define FD_NAME "stillframe-incoming"

struct IncomingFeed {
    QmpClient *qmp; /* where @fdset is to be taken back */
    gint64 fdset;   /* -1 for none */
    ImageReader *reader;
    ImageWriter *writer; /* onto the pipe */
    GError *failure;     /* of the reader; set before @failed, atomic */
    gint failed;
    guint64 total;
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

static IncomingFeed *feed_new(void)
{
    IncomingFeed *feed = g_new0(IncomingFeed, 1);

    feed->fdset = -1;
    feed->fd = feed->pipe = -1;
    return feed;
}

/* Has QEMU load from a pipe; the writing end, or -1. */
static int open_pipe(QmpClient *qmp, GError **errp)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot make a pipe for QEMU");
        return -1;
    }
    sf_autofd reading = ends[0];
    sf_autofd writing = ends[1];
    fcntl(writing, F_SETPIPE_SZ, PIPE_BYTES); /* only saves wake-ups */
    /* Our copy of the other end goes first, or QEMU's death would not show as EPIPE. */
    return hand_over(qmp, reading, errp) ? sf_steal_fd(&writing) : -1;
}

IncomingFeed *incoming_feed_start(QmpClient *qmp, int fd, const FeedRange ranges[FEED_RANGES],
                                  GError **errp)
{
    int pipe = open_pipe(qmp, errp);

    if (pipe < 0) {
        return NULL;
    }
    IncomingFeed *feed = feed_new();
    feed->fd = fd;
    feed->pipe = pipe;
    for (guint i = 0; i < FEED_RANGES; i++) {
        feed->ranges[i] = ranges[i];
        feed->total += ranges[i].end - ranges[i].start;
    }
    feed->thread = g_thread_new("feed", feed_thread, feed);
    return feed;
}

/* What is flushed may be overwritten by a source that is read front to back. */
static gboolean convert_pages(guint block, guint64 offset, const void *data, guint64 length,
                              gpointer user, GError **errp)
{
    IncomingFeed *feed = user;
    ImageWriter *writer = feed->writer;

    gboolean good = data ? writer->page(writer, block, offset, data, length, errp)
                         : writer->zero(writer, block, offset, length, errp);
    guint64 before = __atomic_fetch_add(&feed->done, length, __ATOMIC_RELAXED);
    gboolean flush = !image_reader_is_mapped(feed->reader) ||
                     before / CONVERT_FLUSH != (before + length) / CONVERT_FLUSH;
    return good && (!flush || writer->flush(writer, errp));
}

static gboolean convert(IncomingFeed *feed, GError **errp)
{
    const Destination destination = { .kind = DEST_FD, .fd = feed->pipe };
    g_autoptr(Channel) channel = channel_open_output(&destination, FALSE, errp);
    g_autoptr(ImageWriter) writer = channel ? stream_writer_new(channel) : NULL;
    const guint8 *devices;
    gsize length;

    feed->writer = writer;
    return writer && writer->begin(writer, image_reader_get_head(feed->reader), errp) &&
           image_reader_foreach_page(feed->reader, convert_pages, feed, errp) &&
           image_reader_get_device_state(feed->reader, &devices, &length, errp) &&
           writer->device_state(writer, devices, length, errp) && writer->finish(writer, errp) &&
           channel_commit(channel, errp);
}

static gpointer convert_thread(gpointer data)
{
    IncomingFeed *feed = data;
    GError *error = NULL;

    if (!convert(feed, &error)) {
        /* A writer that fails is QEMU's end of reading: its own message tells why. */
        gboolean reader = !g_error_matches(error, SF_ERROR, SF_ERROR_IO);
        feed->failure = g_steal_pointer(&error);
        g_atomic_int_set(&feed->failed, reader);
    }
    sf_clear_fd(&feed->pipe);
    return NULL;
}

IncomingFeed *incoming_feed_start_converted(QmpClient *qmp, ImageReader *reader, GError **errp)
{
    const ImageHead *head = image_reader_get_head(reader);
    int pipe = open_pipe(qmp, errp);

    if (pipe < 0) {
        return NULL;
    }
    IncomingFeed *feed = feed_new();
    feed->pipe = pipe;
    feed->reader = reader;
    for (guint i = 0; i < head->blocks->len; i++) {
        feed->total += ((const ImageBlock *)g_ptr_array_index(head->blocks, i))->used_length;
    }
    feed->thread = g_thread_new("feed", convert_thread, feed);
    return feed;
}

static gboolean set_mapped_ram(QmpClient *qmp, GError **errp)
{
    g_autoptr(JsonNode) arguments = json_from_string(
        "{\"capabilities\": [{\"capability\": \"mapped-ram\", \"state\": true}]}", NULL);
    g_autoptr(JsonNode) answer = qmp_client_execute(
        qmp, "migrate-set-capabilities", json_object_ref(json_node_get_object(arguments)), errp);

    return answer != NULL;
}

IncomingFeed *incoming_feed_start_mapped(QmpClient *qmp, int fd, guint64 offset, GError **errp)
{
    g_autoptr(IncomingFeed) feed = feed_new();

    if (!set_mapped_ram(qmp, errp) || !qmp_client_add_fd(qmp, fd, &feed->fdset, NULL, errp)) {
        return NULL;
    }
    feed->qmp = qmp;
    JsonObject *incoming = json_object_new();
    g_autofree char *uri = g_strdup_printf(
        "file:/dev/fdset/%" G_GINT64_FORMAT ",offset=%" G_GUINT64_FORMAT, feed->fdset, offset);
    json_object_set_string_member(incoming, "uri", uri);
    g_autoptr(JsonNode) begun = qmp_client_execute(qmp, "migrate-incoming", incoming, errp);
    return begun ? g_steal_pointer(&feed) : NULL;
}

guint64 incoming_feed_get_total(IncomingFeed *feed)
{
    return feed->total;
}

gboolean incoming_feed_take_failure(IncomingFeed *feed, GError **errp)
{
    if (!g_atomic_int_get(&feed->failed)) {
        return FALSE;
    }
    g_atomic_int_set(&feed->failed, 0);
    g_propagate_error(errp, g_steal_pointer(&feed->failure));
    return TRUE;
}

guint64 incoming_feed_get_done(IncomingFeed *feed)
{
    return __atomic_load_n(&feed->done, __ATOMIC_RELAXED);
}

int incoming_feed_get_error(IncomingFeed *feed)
{
    return g_atomic_int_get(&feed->error);
}

void incoming_feed_forget_qemu(IncomingFeed *feed)
{
    feed->qmp = NULL;
}

void incoming_feed_free(IncomingFeed *feed)
{
    if (feed) {
        if (feed->thread) {
            g_thread_join(feed->thread);
        }
        if (feed->fdset >= 0 && feed->qmp) {
            qmp_client_remove_fdset(feed->qmp, feed->fdset, NULL);
        }
        g_clear_error(&feed->failure);
        g_free(feed);
    }
}
