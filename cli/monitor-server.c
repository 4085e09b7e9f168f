/*
 * Serves the monitors of a QEMU that was started by "stillframe run": one thread a monitor, each
 * with a connection of its own to QEMU.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "monitor-server.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "attach/qemu-process.h"
#include "monitor/hmp-terminal.h"
#include "monitor/qmp-proxy.h"
#include "monitor/qmp.h"
#include "util/autofd.h"

/* As long as QEMU is initialising, nobody listens behind a place. */
#define RETRY_MS 20
#define ANY_SHORT_MS 200
/* A thread that does not come to its end in this time after QEMU's is left behind. */
#define END_SECONDS 10

typedef struct Server {
    const MonitorServer *what;
    int cancel;    /* QEMU is gone */
    int cancel_fd; /* readable then */
    GPtrArray *threads;
} Server;

/* One place and its thread. */
typedef struct Service {
    Server *server;
    const MonitorPlace *place;
    int listen_fd;
} Service;

static int listen_unix(const char *path, GError **errp)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (g_strlcpy(address.sun_path, path, sizeof(address.sun_path)) >= sizeof(address.sun_path)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE, "the socket path %s is too long", path);
        return -1;
    }
    sf_autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(path); /* as QEMU does */
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 1) < 0) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot listen on unix:%s", path);
        return -1;
    }
    return sf_steal_fd(&fd);
}

static int listen_tcp(const MonitorPlace *place, GError **errp)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    struct addrinfo *found = NULL;
    const char *host = place->host && *place->host ? place->host : NULL;
    int result = getaddrinfo(host, place->port, &hints, &found);
    if (result != 0) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FAILED, "cannot resolve %s:%s: %s", host ? host : "",
                    place->port, gai_strerror(result));
        return -1;
    }
    int on = 1;
    sf_autofd fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    gboolean good = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
                    bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, 1) == 0;
    int err = errno;
    freeaddrinfo(found);
    if (!good) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, err, "cannot listen on tcp:%s:%s",
                           host ? host : "", place->port);
        return -1;
    }
    return sf_steal_fd(&fd);
}

gboolean monitor_server_listen(MonitorServer *server, GError **errp)
{
    GPtrArray *places = server->args->places;
    for (guint i = 0; i < places->len; i++) {
        const MonitorPlace *place = places->pdata[i];
        server->listen_fds[i] = -1;
        if (place->is_stdio) {
            continue;
        }
        server->listen_fds[i] =
            place->path ? listen_unix(place->path, errp) : listen_tcp(place, errp);
        if (server->listen_fds[i] < 0) {
            return FALSE;
        }
    }
    for (guint i = 0; i < places->len; i++) {
        const MonitorPlace *place = places->pdata[i];
        struct pollfd poller = { .fd = server->listen_fds[i], .events = POLLIN };
        if (place->wait) {
            fprintf(stderr, "stillframe: the VM starts when a client has come to %s%s\n",
                    place->path ? "unix:" : "tcp port ", place->path ? place->path : place->port);
            poll(&poller, 1, -1);
        }
    }
    return TRUE;
}

/* Waits until @fd can be read. FALSE when QEMU is gone. */
static gboolean wait_for(Server *server, int fd, int timeout_ms, gboolean *ready)
{
    struct pollfd pollers[] = { { .fd = server->cancel_fd, .events = POLLIN },
                                { .fd = fd, .events = POLLIN } };
    poll(pollers, G_N_ELEMENTS(pollers), timeout_ms);
    *ready = pollers[1].revents != 0;
    return pollers[0].revents == 0;
}

/* QEMU's monitor, as soon as QEMU listens; NULL when QEMU has gone. */
static QmpMux *connect_to_qemu(const Service *service)
{
    gboolean ready;
    while (wait_for(service->server, -1, RETRY_MS, &ready)) {
        QmpMux *mux =
            qmp_mux_open_address(service->place->backend, QMP_GREETING_TIMEOUT_MS * 10, NULL);
        if (mux) {
            return mux;
        }
    }
    return NULL;
}

/* One client after the other, as QEMU does. */
static void serve_hmp_clients(const Service *service, HmpSession *session)
{
    static const HmpTerminalOptions options = { 0 };
    gboolean ready;
    while (wait_for(service->server, service->listen_fd, -1, &ready)) {
        sf_autofd fd = ready ? accept4(service->listen_fd, NULL, NULL, SOCK_CLOEXEC) : -1;
        if (fd >= 0 && !hmp_terminal_run(session, fd, fd, &options, NULL)) {
            return;
        }
    }
}

static gpointer serve_hmp(gpointer data)
{
    static const HmpTerminalOptions options = { 0 };
    const Service *service = data;
    g_autoptr(GError) error = NULL;
    g_autoptr(QmpMux) mux = connect_to_qemu(service);
    pid_t pid = mux ? qemu_process_of_socket(qmp_mux_get_qemu_fd(mux), NULL) : 0;
    g_autoptr(HmpSession) session = mux ? hmp_session_new(mux, MAX(pid, 0), &error) : NULL;
    if (mux && !session) {
        fprintf(stderr, "stillframe: a monitor cannot be served: %s\n", error->message);
    } else if (session && service->place->is_stdio) {
        hmp_terminal_run(session, STDIN_FILENO, STDOUT_FILENO, &options, NULL);
    } else if (session) {
        serve_hmp_clients(service, session);
    }
    return NULL;
}

/* Moves what is there from @from to @to; FALSE at its end. */
static gboolean move_bytes(int from, int to)
{
    char bytes[4096];
    ssize_t got = read(from, bytes, sizeof(bytes));
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return TRUE;
    }
    for (ssize_t done = 0; done < got;) {
        ssize_t written = write(to, bytes + done, (gsize)(got - done));
        if (written < 0 && errno != EAGAIN && errno != EINTR) {
            return FALSE;
        }
        done += MAX(written, 0);
    }
    return got > 0;
}

/* Standard input and output as a client of the proxy that listens at @path. */
static gpointer bridge_stdio(gpointer data)
{
    const char *path = data;
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    sf_autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    struct pollfd pollers[] = { { .fd = STDIN_FILENO, .events = POLLIN },
                                { .fd = fd, .events = POLLIN } };
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        return NULL;
    }
    while (poll(pollers, G_N_ELEMENTS(pollers), -1) >= 0 || errno == EINTR) {
        if (pollers[1].revents && !move_bytes(fd, STDOUT_FILENO)) {
            break;
        }
        if (pollers[0].revents && !move_bytes(STDIN_FILENO, fd)) {
            pollers[0].fd = -1; /* QEMU does not end with its input either */
        }
    }
    return NULL;
}

static gpointer serve_qmp(gpointer data)
{
    const Service *service = data;
    g_autoptr(GError) error = NULL;
    /* The proxy wants a QEMU that listens. */
    QmpMux *mux = connect_to_qemu(service);
    if (!mux) {
        return NULL;
    }
    qmp_mux_free(mux);
    g_autofree char *inner = g_strconcat(service->place->backend, "-stdio", NULL);
    sf_autofd stdio = service->place->is_stdio ? listen_unix(inner, &error) : -1;
    QmpProxyOptions options = { .qmp = service->place->backend,
                                .listen_fd = stdio >= 0 ? stdio : service->listen_fd };
    GThread *bridge = stdio >= 0 ? g_thread_new("stdio", bridge_stdio, inner) : NULL;
    if (error || !qmp_proxy_run(&options, &service->server->cancel, &error)) {
        fprintf(stderr, "stillframe: a monitor cannot be served: %s\n", error->message);
    }
    if (bridge) {
        sf_clear_fd(&stdio);   /* nobody waits there for ever */
        g_thread_join(bridge); /* QEMU's last words are out */
    }
    return NULL;
}

/* -daemonize: the process behind our sockets, once it is known to be one. */
static int open_daemon(const MonitorPlace *place)
{
    g_autofree char *address = g_strconcat("unix:", place->backend, NULL);
    g_autoptr(GPtrArray) processes = qemu_process_list();
    for (guint i = 0; i < processes->len; i++) {
        const QemuProcess *process = processes->pdata[i];
        if (g_ptr_array_find_with_equal_func(process->qmp, address, g_str_equal, NULL)) {
            return (int)syscall(SYS_pidfd_open, process->pid, 0);
        }
    }
    return -1;
}

static void wait_for_end(int pidfd)
{
    struct pollfd poller = { .fd = pidfd, .events = POLLIN };
    while (poll(&poller, 1, -1) < 0 && errno == EINTR) {
    }
}

static void remove_folder(const char *folder)
{
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    for (const char *name; dir && (name = g_dir_read_name(dir));) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        g_unlink(path);
    }
    g_rmdir(folder);
}

/* The sockets that QEMU would have removed. */
static void remove_sockets(const MonitorServer *what)
{
    for (guint i = 0; i < what->args->places->len; i++) {
        const MonitorPlace *place = what->args->places->pdata[i];
        if (place->path) {
            unlink(place->path);
        }
    }
    remove_folder(what->folder);
}

/* Nobody may wait for the end of a pipe because of us, or share a descriptor that QEMU got. */
static void drop_descriptors(const MonitorServer *what, int pidfd)
{
    gboolean uses_stdio = FALSE;
    for (guint i = 0; i < what->args->places->len; i++) {
        const MonitorPlace *place = what->args->places->pdata[i];
        uses_stdio |= place->is_stdio;
    }
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (!uses_stdio) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
    }
    long limit = sysconf(_SC_OPEN_MAX);
    for (int fd = STDERR_FILENO + 1; fd < MIN(limit, 4096); fd++) {
        gboolean ours = fd == pidfd;
        for (guint i = 0; i < what->args->places->len; i++) {
            ours |= fd == what->listen_fds[i];
        }
        if (!ours) {
            close(fd);
        }
    }
}

static void ignore_signals(void)
{
    static const int ignored[] = { SIGINT, SIGQUIT, SIGHUP, SIGTERM, SIGPIPE };
    for (guint i = 0; i < G_N_ELEMENTS(ignored); i++) {
        signal(ignored[i], SIG_IGN);
    }
}

static void G_GNUC_NORETURN server_main(const MonitorServer *what, int pidfd)
{
    int ends[2];
    drop_descriptors(what, pidfd);
    ignore_signals();
    if (pipe2(ends, O_CLOEXEC) < 0) {
        _exit(1);
    }
    GPtrArray *places = what->args->places;
    g_autoptr(GPtrArray) threads = g_ptr_array_new();
    g_autofree Service *services = g_new0(Service, places->len);
    Server server = { .what = what, .cancel_fd = ends[0] };
    for (guint i = 0; i < places->len; i++) {
        const MonitorPlace *place = places->pdata[i];
        services[i] = (Service){ &server, place, what->listen_fds[i] };
        g_ptr_array_add(
            threads, g_thread_new("monitor", place->is_qmp ? serve_qmp : serve_hmp, &services[i]));
    }
    wait_for_end(pidfd);
    int daemon = what->args->is_daemonized ? open_daemon(places->pdata[0]) : -1;
    if (daemon >= 0) {
        wait_for_end(daemon);
    }
    server.cancel = 1;
    close(ends[1]);
    alarm(END_SECONDS);
    for (guint i = 0; i < threads->len; i++) {
        g_thread_join(threads->pdata[i]);
    }
    remove_sockets(what);
    _exit(0);
}

gboolean monitor_server_fork(MonitorServer *server, GError **errp)
{
    sf_autofd pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (pidfd < 0) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot watch this process");
    }
    pid_t child = fork();
    if (child < 0) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot fork");
    }
    if (child == 0) {
        /* Not QEMU's child: it would be left as a zombie, or be waited for by mistake. */
        pid_t grandchild = fork();
        if (grandchild == 0) {
            server_main(server, pidfd);
        }
        _exit(grandchild < 0);
    }
    int status = 1;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (status != 0) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, EAGAIN, "cannot fork");
    }
    return TRUE;
}
