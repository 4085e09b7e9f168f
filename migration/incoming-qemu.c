/*
 * The QEMU of a restore: started like any command of the user's, but with a monitor of our own.
 *
 * It stays in our process group: Ctrl-C reaches it as it would reach a QEMU started by hand, and a
 * shell counts it to the same job. It notices nothing when we end.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "attach/qemu-process.h"
#include "incoming-impl.h"
#include "util/autofd.h"

#define MONITOR_ID "stillframe-restore"
#define POLL_MS 20
/* A monitor that shows up greets at once. */
#define GREETING_MS 30000
#define TERMINATE_WAIT_MS 3000
#define EXPLAIN_WAIT_MS 3000

/* QEMU takes its options with one dash or two. */
static gboolean is_option(const char *word, const char *name)
{
    return word[0] == '-' &&
           (!strcmp(word + 1, name) || (word[1] == '-' && !strcmp(word + 2, name)));
}

static gboolean check_command(char **command, GError **errp)
{
    static const char *const ours[] = { "incoming", "loadvm" };

    if (!command[0]) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE, "no QEMU command is given");
        return FALSE;
    }
    for (char **word = command + 1; *word; word++) {
        for (guint i = 0; i < G_N_ELEMENTS(ours); i++) {
            if (is_option(*word, ours[i])) {
                g_set_error(errp, SF_ERROR, SF_ERROR_USAGE,
                            "the QEMU command has -%s already; leave it out, restore adds what it "
                            "needs",
                            ours[i]);
                return FALSE;
            }
        }
    }
    return TRUE;
}

/* The user's words, and ours behind them; the caller frees. */
static GPtrArray *complete_command(char **command, int monitor)
{
    GPtrArray *argv = g_ptr_array_new_with_free_func(g_free);

    for (char **word = command; *word; word++) {
        g_ptr_array_add(argv, g_strdup(*word));
    }
    g_ptr_array_add(argv, g_strdup("-incoming"));
    g_ptr_array_add(argv, g_strdup("defer"));
    g_ptr_array_add(argv, g_strdup("-chardev"));
    g_ptr_array_add(argv, g_strdup_printf("socket,id=" MONITOR_ID ",fd=%d", monitor));
    g_ptr_array_add(argv, g_strdup("-mon"));
    g_ptr_array_add(argv, g_strdup("chardev=" MONITOR_ID ",mode=control"));
    g_ptr_array_add(argv, NULL);
    return argv;
}

/* 0 or an errno. */
static int spawn_with(char **argv, int monitor, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t defaults;

    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE); /* which we ignore */
    posix_spawn_file_actions_init(&actions);
    /* On itself: this clears FD_CLOEXEC, in the child only. */
    posix_spawn_file_actions_adddup2(&actions, monitor, monitor);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    int err = posix_spawnp(pid, argv[0], &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return err;
}

gboolean incoming_qemu_start(IncomingQemu *qemu, char **command, GError **errp)
{
    int pair[2];

    *qemu = (IncomingQemu){ .pidfd = -1, .monitor_fd = -1 };
    if (!check_command(command, errp)) {
        return FALSE;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot make a monitor's socket");
    }
    qemu->monitor_fd = pair[0];
    sf_autofd theirs = pair[1];
    g_autoptr(GPtrArray) argv = complete_command(command, theirs);
    int err = spawn_with((char **)argv->pdata, theirs, &qemu->child);
    if (err) {
        qemu->child = 0;
        return sf_error_set_errno(errp, SF_ERROR_FAILED, err, "cannot start %s", command[0]);
    }
    return TRUE;
}

/* Whether the child has ended, now. */
static gboolean reap(IncomingQemu *qemu)
{
    if (qemu->child && waitpid(qemu->child, &qemu->status, WNOHANG) == qemu->child) {
        qemu->child = 0;
    }
    return qemu->child == 0;
}

/* Waits until @fd is readable; that includes the end of a process or of a connection. */
static gboolean readable_within(int fd, int timeout_ms)
{
    struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

    return poll(&poll_fd, 1, timeout_ms) > 0;
}

gboolean incoming_qemu_wait_end(IncomingQemu *qemu, guint timeout_ms)
{
    gint64 deadline = g_get_monotonic_time() + timeout_ms * 1000LL;

    while (!reap(qemu) || (qemu->pidfd >= 0 && !readable_within(qemu->pidfd, 0))) {
        if (g_get_monotonic_time() > deadline) {
            return FALSE;
        }
        g_usleep(POLL_MS * 1000);
    }
    return TRUE;
}

gboolean incoming_qemu_explain(IncomingQemu *qemu, GError *error, GError **errp)
{
    if (!g_error_matches(error, SF_ERROR, SF_ERROR_MONITOR_CLOSED) ||
        !incoming_qemu_wait_end(qemu, EXPLAIN_WAIT_MS)) {
        g_propagate_error(errp, error);
        return FALSE;
    }
    g_error_free(error);
    if (qemu->pidfd >= 0) {
        /* Not our child: how it ended is told to others. */
        g_set_error(errp, SF_ERROR, SF_ERROR_VM_GONE,
                    "QEMU (process %d) ended; its own message tells why", (int)qemu->pid);
    } else if (WIFSIGNALED(qemu->status)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_VM_GONE, "QEMU was ended by signal %d (%s)",
                    WTERMSIG(qemu->status), g_strsignal(WTERMSIG(qemu->status)));
    } else {
        g_set_error(errp, SF_ERROR, SF_ERROR_VM_GONE,
                    "QEMU ended with status %d; its own message tells why",
                    WEXITSTATUS(qemu->status));
    }
    return FALSE;
}

/* Behind -daemonize the child is only a launcher and QEMU is whoever has the socket. */
static void find_process(IncomingQemu *qemu)
{
    qemu->pid = qemu_process_of_socket(qmp_client_get_fd(qemu->qmp), NULL);
    if (qemu->pid <= 0) {
        qemu->pid = qemu->child;
    }
    if (qemu->pid > 0 && qemu->pid != qemu->child) {
        qemu->pidfd = (int)syscall(SYS_pidfd_open, qemu->pid, 0);
    }
}

gboolean incoming_qemu_wait_monitor(IncomingQemu *qemu, const volatile int *cancel, GError **errp)
{
    GError *error = NULL;

    while (!readable_within(qemu->monitor_fd, POLL_MS)) {
        if (*cancel) {
            g_set_error(errp, SF_ERROR, SF_ERROR_CANCELLED, "the restore was cancelled");
            return FALSE;
        }
    }
    qemu->qmp = qmp_client_new_from_fd(sf_steal_fd(&qemu->monitor_fd), GREETING_MS, &error);
    if (!qemu->qmp) {
        return incoming_qemu_explain(qemu, error, errp);
    }
    find_process(qemu);
    return TRUE;
}

static void signal_qemu(IncomingQemu *qemu, int number)
{
    /* A process id can be somebody else's by now, a pidfd or a child of ours that was not waited
     * for cannot. */
    if (qemu->pidfd >= 0) {
        syscall(SYS_pidfd_send_signal, qemu->pidfd, number, NULL, 0);
    }
    if (!reap(qemu)) {
        kill(qemu->child, number);
    }
}

void incoming_qemu_quit(IncomingQemu *qemu)
{
    JsonNode *answer = qmp_client_execute(qemu->qmp, "quit", NULL, NULL);

    g_clear_pointer(&answer, json_node_unref);
    incoming_qemu_wait_end(qemu, TERMINATE_WAIT_MS);
}

void incoming_qemu_end(IncomingQemu *qemu)
{
    g_clear_pointer(&qemu->qmp, qmp_client_free);
    sf_clear_fd(&qemu->monitor_fd);
    signal_qemu(qemu, SIGTERM);
    if (!incoming_qemu_wait_end(qemu, TERMINATE_WAIT_MS)) {
        signal_qemu(qemu, SIGKILL);
        incoming_qemu_wait_end(qemu, TERMINATE_WAIT_MS);
    }
    sf_clear_fd(&qemu->pidfd);
}

void incoming_qemu_release(IncomingQemu *qemu)
{
    g_clear_pointer(&qemu->qmp, qmp_client_free);
    sf_clear_fd(&qemu->monitor_fd);
    sf_clear_fd(&qemu->pidfd);
}
