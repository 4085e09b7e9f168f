/*
 * Terminals and sockets for tests of consoles.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "typist.h"

#include <errno.h>
#include <netinet/in.h>
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

/* In the child: @parent's end is its own. */
static void G_GNUC_NORETURN become(const char *const *argv, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == parent) {
        execvp(argv[0], (char **)argv);
    }
    _exit(127);
}

Typist *typist_start(const char *const *argv)
{
    int fd;
    pid_t parent = getpid(), pid = forkpty(&fd, NULL, NULL, NULL);
    g_assert_no_errno(pid);
    if (pid == 0) {
        become(argv, parent);
    }
    return typist_new(fd, pid);
}

Typist *typist_start_without_terminal(const char *const *argv)
{
    int fds[2];
    g_assert_no_errno(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
    pid_t parent = getpid(), pid = fork();
    g_assert_no_errno(pid);
    if (pid == 0) {
        dup2(fds[1], STDIN_FILENO);
        dup2(fds[1], STDOUT_FILENO);
        become(argv, parent);
    }
    close(fds[1]);
    return typist_new(fds[0], pid);
}

static Typist *connect_in_time(const struct sockaddr *address, socklen_t length)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    for (;;) {
        /* A TCP socket whose connection was refused is not for a second attempt. */
        int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        g_assert_no_errno(fd);
        if (connect(fd, address, length) == 0) {
            return typist_new(fd, 0);
        }
        close(fd);
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(10000);
    }
}

Typist *typist_connect(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    return connect_in_time((struct sockaddr *)&address, sizeof(address));
}

Typist *typist_connect_tcp(guint16 port)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons(port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    return connect_in_time((struct sockaddr *)&address, sizeof(address));
}

void typist_type(Typist *typist, const char *keys)
{
    g_assert_cmpint(write(typist->fd, keys, strlen(keys)), ==, (gssize)strlen(keys));
}

void typist_type_end(Typist *typist)
{
    g_assert_no_errno(shutdown(typist->fd, SHUT_WR));
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
