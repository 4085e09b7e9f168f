/*
 * The client without opinions.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "raw-qmp.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "util/autofd.h"

#define WAIT_MS 60000

struct RawQmp {
    int fd;
    GString *text;
    gboolean ended;
    guint serial;
};

RawQmp *raw_qmp_connect(const char *path)
{
    RawQmp *raw = g_new0(RawQmp, 1);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    gint64 end = g_get_monotonic_time() + 10 * G_TIME_SPAN_SECOND;

    raw->text = g_string_new(NULL);
    raw->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    while (connect(raw->fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(5000);
    }
    return raw;
}

void raw_qmp_free(RawQmp *raw)
{
    if (raw) {
        sf_clear_fd(&raw->fd);
        g_string_free(raw->text, TRUE);
        g_free(raw);
    }
}

static void read_some(RawQmp *raw)
{
    char piece[65536];
    ssize_t got = recv(raw->fd, piece, sizeof(piece), MSG_DONTWAIT);

    if (got > 0) {
        g_string_append_len(raw->text, piece, got);
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
        raw->ended = TRUE;
    }
}

static ssize_t send_some(RawQmp *raw, const void *data, gsize length, int fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = { 0 };
    struct iovec vec = { (void *)data, length };
    struct msghdr message = { .msg_iov = &vec, .msg_iovlen = 1 };

    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof(control);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    }
    return sendmsg(raw->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

gboolean raw_qmp_send_try(RawQmp *raw, const void *data, gsize length, int fd)
{
    const char *at = data;

    while (length > 0 && !raw->ended) {
        struct pollfd poller = { .fd = raw->fd, .events = POLLIN | POLLOUT };
        g_assert_cmpint(poll(&poller, 1, WAIT_MS), >, 0);
        if (poller.revents & POLLIN) {
            read_some(raw);
        }
        ssize_t sent = poller.revents & POLLOUT ? send_some(raw, at, length, fd) : 0;
        if (sent < 0 && errno != EAGAIN) {
            return FALSE;
        }
        if (sent > 0) {
            fd = -1;
            at += sent;
            length -= (gsize)sent;
        }
    }
    return length == 0;
}

gsize raw_qmp_send_some(RawQmp *raw, const void *data, gsize length)
{
    struct pollfd poller = { .fd = raw->fd, .events = POLLOUT };

    if (poll(&poller, 1, 100) <= 0) {
        return 0;
    }
    ssize_t sent = send_some(raw, data, length, -1);
    return (gsize)MAX(sent, 0);
}

void raw_qmp_say(RawQmp *raw, const char *text)
{
    g_assert_true(raw_qmp_send_try(raw, text, strlen(text), -1));
}

void raw_qmp_say_fd(RawQmp *raw, const char *text, int fd)
{
    g_assert_true(raw_qmp_send_try(raw, text, strlen(text), fd));
}

gsize raw_qmp_wait(RawQmp *raw, gsize from, const char *text)
{
    gint64 end = g_get_monotonic_time() + WAIT_MS * G_TIME_SPAN_MILLISECOND;

    for (;;) {
        const char *found = strstr(raw->text->str + from, text);
        const char *line = found ? strchr(found, '\n') : NULL;
        if (line) {
            return (gsize)(line + 1 - raw->text->str);
        }
        if (raw->ended || g_get_monotonic_time() > end) {
            g_error("no \"%s\"%s; there is: %s", text, raw->ended ? " before the end" : "",
                    raw->text->str + from);
        }
        struct pollfd poller = { .fd = raw->fd, .events = POLLIN };
        poll(&poller, 1, 100);
        read_some(raw);
    }
}

const char *raw_qmp_text(RawQmp *raw)
{
    return raw->text->str;
}

void raw_qmp_forget(RawQmp *raw)
{
    g_string_truncate(raw->text, 0);
}

void raw_qmp_wait_end(RawQmp *raw)
{
    while (!raw->ended) {
        struct pollfd poller = { .fd = raw->fd, .events = POLLIN };
        g_assert_cmpint(poll(&poller, 1, WAIT_MS), >, 0);
        read_some(raw);
    }
}

RawQmp *raw_qmp_open(const char *path)
{
    RawQmp *raw = raw_qmp_connect(path);
    gsize at = raw_qmp_wait(raw, 0, "\"QMP\"");

    raw_qmp_say(raw, "{\"execute\": \"qmp_capabilities\"}\n");
    raw_qmp_wait(raw, at, "\"return\"");
    return raw;
}

/* The line of the answer with our id; the caller frees. */
static char *run_text(RawQmp *raw, const char *command)
{
    gsize from = raw->text->len;
    g_autofree char *id = g_strdup_printf("\"id\": \"test-%u\"", ++raw->serial);
    g_autofree char *whole =
        g_strdup_printf("{%s, %s}\n", id, command + 1 /* it begins with a brace as well */);
    raw_qmp_say(raw, whole);
    gsize end = raw_qmp_wait(raw, from, id);
    gsize begin = end - 1;
    while (begin > 0 && raw->text->str[begin - 1] != '\n') {
        begin--;
    }
    return g_strndup(raw->text->str + begin, end - begin);
}

static char *run_format(RawQmp *raw, const char *format, va_list ap) G_GNUC_PRINTF(2, 0);
static char *run_format(RawQmp *raw, const char *format, va_list ap)
{
    g_autofree char *text = g_strdup_vprintf(format, ap);
    size_t length = strlen(text);

    /* "{...}": the outer closing brace is put back behind the id. */
    g_assert_true(length > 1 && text[0] == '{' && text[length - 1] == '}');
    text[length - 1] = '\0';
    return run_text(raw, g_strdelimit(text, "'", '"'));
}

char *raw_qmp_run(RawQmp *raw, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    char *answer = run_format(raw, format, ap);
    va_end(ap);
    return answer;
}

void raw_qmp_must(RawQmp *raw, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    g_autofree char *answer = run_format(raw, format, ap);
    va_end(ap);
    if (!strstr(answer, "\"return\"")) {
        g_error("%s was answered: %s", format, answer);
    }
}

char *raw_qmp_text_without_times(RawQmp *raw)
{
    g_autoptr(GRegex) times = g_regex_new("\"(seconds|microseconds)\": [0-9]+", 0, 0, NULL);

    return g_regex_replace(times, raw->text->str, -1, 0, "\"\\1\": 0", 0, NULL);
}
