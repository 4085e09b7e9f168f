/*
 * Sending and receiving with descriptors, without waiting.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qmp-outbox.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The kernel passes no more at once (SCM_MAX_FD). */
#define FDS_MAX 253
/* Small messages share a chunk up to this size. */
#define CHUNK_BYTES (64 * 1024)

typedef struct Chunk {
    GByteArray *bytes;
    gsize sent;
    GArray *fds; /* NULL for none, or sent */
} Chunk;

typedef union Control {
    char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
    struct cmsghdr align;
} Control;

static void close_fd(gpointer fd)
{
    close(*(int *)fd);
}

GArray *qmp_fds_new(void)
{
    GArray *fds = g_array_new(FALSE, FALSE, sizeof(int));

    g_array_set_clear_func(fds, close_fd);
    return fds;
}

static void chunk_free(gpointer data)
{
    Chunk *chunk = data;

    g_byte_array_unref(chunk->bytes);
    g_clear_pointer(&chunk->fds, g_array_unref);
    g_free(chunk);
}

void qmp_outbox_add(QmpOutbox *outbox, const void *data, gsize length, GArray *fds)
{
    Chunk *last = g_queue_peek_tail(&outbox->chunks);

    if (fds && fds->len == 0) {
        g_clear_pointer(&fds, g_array_unref);
    }
    if (!last || fds || last->bytes->len > CHUNK_BYTES) {
        last = g_new0(Chunk, 1);
        last->bytes = g_byte_array_new();
        last->fds = fds;
        g_queue_push_tail(&outbox->chunks, last);
    }
    g_byte_array_append(last->bytes, data, (guint)length);
    outbox->bytes += length;
}

static void add_control(struct msghdr *message, Control *control, GArray *fds)
{
    guint count = MIN(fds->len, FDS_MAX);

    message->msg_control = control;
    message->msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), fds->data, count * sizeof(int));
}

static gssize send_chunk(const Chunk *chunk, int fd)
{
    struct iovec vec = { chunk->bytes->data + chunk->sent, chunk->bytes->len - chunk->sent };
    struct msghdr message = { .msg_iov = &vec, .msg_iovlen = 1 };
    Control control = { 0 };

    if (chunk->fds) {
        add_control(&message, &control, chunk->fds);
    }
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

gboolean qmp_outbox_flush(QmpOutbox *outbox, int fd)
{
    Chunk *chunk;

    while ((chunk = g_queue_peek_head(&outbox->chunks))) {
        gssize sent = send_chunk(chunk, fd);
        if (sent < 0) {
            return errno == EAGAIN || errno == EINTR;
        }
        /* The descriptors went with the first byte. */
        g_clear_pointer(&chunk->fds, g_array_unref);
        chunk->sent += (gsize)sent;
        outbox->bytes -= (gsize)sent;
        if (chunk->sent == chunk->bytes->len) {
            chunk_free(g_queue_pop_head(&outbox->chunks));
        }
    }
    return TRUE;
}

void qmp_outbox_clear(QmpOutbox *outbox)
{
    g_queue_clear_full(&outbox->chunks, chunk_free);
    outbox->bytes = 0;
}

static void take_control(struct msghdr *message, GArray *fds)
{
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header;
         header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
            guint count = (guint)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            g_array_append_vals(fds, CMSG_DATA(header), count);
        }
    }
}

gssize qmp_receive(int fd, GByteArray *input, guint step, GArray *fds)
{
    Control control;
    guint before = input->len;

    g_byte_array_set_size(input, before + step);
    struct iovec vec = { input->data + before, step };
    struct msghdr message = {
        .msg_iov = &vec, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
    };
    gssize got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    int err = errno;
    g_byte_array_set_size(input, before + (guint)MAX(got, 0));
    if (got < 0) {
        return err == EAGAIN || err == EINTR ? -1 : 0;
    }
    take_control(&message, fds);
    return got;
}
