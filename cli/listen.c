/*
 * Making and removing a listening socket's name.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "listen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "util/autofd.h"

#define BACKLOG 16

static const char *path_of(const char *address)
{
    return g_str_has_prefix(address, "unix:") ? address + strlen("unix:") : address;
}

static int take_inherited(const char *text, GError **errp)
{
    guint64 number;
    int listens = 0;
    socklen_t length = sizeof(listens);

    if (!g_ascii_string_to_unsigned(text, 10, 0, G_MAXINT, &number, NULL) ||
        getsockopt((int)number, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) < 0 || !listens) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE, "fd:%s is not a listening socket", text);
        return -1;
    }
    fcntl((int)number, F_SETFD, FD_CLOEXEC);
    return (int)number;
}

/* A name that a proxy left when it was killed may be taken; one in use may not. */
static gboolean is_served(const struct sockaddr_un *address)
{
    sf_autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    return fd >= 0 && (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
                       errno == EAGAIN);
}

static gboolean make_way(const struct sockaddr_un *address, GError **errp)
{
    struct stat st;

    if (lstat(address->sun_path, &st) < 0) {
        return TRUE;
    }
    if (!S_ISSOCK(st.st_mode)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE,
                    "%s exists and is not a socket; name another path", address->sun_path);
        return FALSE;
    }
    if (is_served(address)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_BUSY,
                    "somebody listens at %s already; end it or name another path",
                    address->sun_path);
        return FALSE;
    }
    unlink(address->sun_path);
    return TRUE;
}

int listen_open(const char *address, GError **errp)
{
    const char *path = path_of(address);
    struct sockaddr_un un = { .sun_family = AF_UNIX };

    if (g_str_has_prefix(address, "fd:")) {
        return take_inherited(address + strlen("fd:"), errp);
    }
    if (!*path || strlen(path) >= sizeof(un.sun_path)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE,
                    "the socket's path \"%s\" is empty or longer than the kernel's %zu bytes", path,
                    sizeof(un.sun_path) - 1);
        return -1;
    }
    g_strlcpy(un.sun_path, path, sizeof(un.sun_path));
    if (!make_way(&un, errp)) {
        return -1;
    }
    sf_autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    mode_t before = umask(0077);
    gboolean good =
        fd >= 0 && bind(fd, (struct sockaddr *)&un, sizeof(un)) == 0 && listen(fd, BACKLOG) == 0;
    int err = errno;
    umask(before);
    if (!good) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, err, "cannot listen at %s", path);
        return -1;
    }
    return sf_steal_fd(&fd);
}

/* A bound socket tells its name, and who binds it anew makes another file. */
void listen_remove(const char *address, int fd)
{
    const char *path = path_of(address);
    struct stat st;

    if (!g_str_has_prefix(address, "fd:") && lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) {
        unlink(path);
    }
}
