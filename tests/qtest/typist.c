/*
 * Terminals and sockets for tests of consoles.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "typist.h"

#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define TIMEOUT_US (20 * G_TIME_SPAN_SECOND)

static Typist *typist_new(int fd, pid_t pid)
{
    Typist *typist = g_new0(Typist, 1);
    typist->fd = fd;
    typist->pid = pid;
    typist->heard = g_string_new(NULL);
    return typist;
}

Typist *typist_start(const char *const *argv)
{
    int fd;
    pid_t parent = getpid(), pid = forkpty(&fd, NULL, NULL, NULL);
    g_assert_no_errno(pid);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent) {
            execvp(argv[0], (char **)argv);
        }
        _exit(127);
    }
    return typist_new(fd, pid);
}

Typist *typist_connect(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_no_errno(fd);
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    while (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(10000);
    }
    return typist_new(fd, 0);
}

void typist_type(Typist *typist, const char *keys)
{
    g_assert_cmpint(write(typist->fd, keys, strlen(keys)), ==, (gssize)strlen(keys));
}

/* FALSE at the end. A terminal whose program has gone answers EIO. */
static gboolean listen_once(Typist *typist)
{
    char bytes[4096];
    struct pollfd poller = { .fd = typist->fd, .events = POLLIN };
    if (poll(&poller, 1, 100) <= 0) {
        return TRUE;
    }
    ssize_t got = read(typist->fd, bytes, sizeof(bytes));
    g_string_append_len(typist->heard, bytes, MAX(got, 0));
    return got > 0 || (got < 0 && errno == EINTR);
}

static void assert_in_time(Typist *typist, gint64 end, const char *what)
{
    if (g_get_monotonic_time() > end) {
        g_error("no \"%s\" behind: %s", what, typist->heard->str + typist->read_to);
    }
}

void typist_expect(Typist *typist, const char *text)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    gboolean open = TRUE;
    for (;;) {
        char *found = strstr(typist->heard->str + typist->read_to, text);
        if (found) {
            typist->read_to = (gsize)(found - typist->heard->str) + strlen(text);
            return;
        }
        assert_in_time(typist, open ? end : 0, text);
        open = listen_once(typist);
    }
}

void typist_expect_end(Typist *typist)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    while (listen_once(typist)) {
        assert_in_time(typist, end, "end");
    }
}

int typist_finish(Typist *typist)
{
    int status = 0;
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    while (typist->pid && waitpid(typist->pid, &status, WNOHANG) == 0) {
        listen_once(typist);
        assert_in_time(typist, end, "end of the program");
    }
    close(typist->fd);
    g_string_free(typist->heard, TRUE);
    g_free(typist);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
