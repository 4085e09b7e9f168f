/*
 * exec: -- a shell command that takes the stream on its standard input. Its end is part of ours:
 * only a command that ends with status 0 makes an image.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "channel-impl.h"
#include "util/autofd.h"

/* A larger pipe saves wake-ups; this is what an ordinary user may ask for by default. */
#define PIPE_BYTES (1024 * 1024)
/* How long a command that stopped reading may take to end and say why. */
#define EXPLAIN_WAIT_MS 2000
/* How long a command may take to end after SIGTERM. */
#define TERMINATE_WAIT_MS 500

typedef struct ExecChannel {
    Channel base;
    char *command;
    pid_t pid; /* 0: not started, or reaped */
    int pidfd;
} ExecChannel;

/*
 * Says how the command ended, without reaping it: as long as it is a zombie its process group's
 * number cannot become somebody else's. FALSE with *errp for everything but status 0.
 */
static gboolean check_status(ExecChannel *exec, GError **errp)
{
    siginfo_t info = { 0 };

    if (waitid(P_PID, (id_t)exec->pid, &info, WEXITED | WNOWAIT) < 0) {
        return channel_io_error(exec->base.name, "learn the end of", errno, errp);
    }
    if (info.si_code != CLD_EXITED) {
        g_set_error(errp, SF_ERROR, SF_ERROR_IO, "the command \"%s\" was ended by signal %d (%s)",
                    exec->command, info.si_status, g_strsignal(info.si_status));
        return FALSE;
    }
    if (info.si_status != 0) {
        g_set_error(errp, SF_ERROR, SF_ERROR_IO,
                    "the command \"%s\" ended with status %d%s; see its own messages",
                    exec->command, info.si_status, info.si_status == 127 ? " (not found)" : "");
        return FALSE;
    }
    return TRUE;
}

/* A broken pipe says little; the command's end says more. */
static void exec_explain(Channel *channel, int err, GError **errp)
{
    ExecChannel *exec = (ExecChannel *)channel;

    if (err != EPIPE) {
        channel_io_error(channel->name, "write to", err, errp);
        return;
    }
    ChannelWait waited = channel_wait(channel, exec->pidfd, POLLIN, EXPLAIN_WAIT_MS, errp);
    if (waited == CHANNEL_FAILED || (waited == CHANNEL_READY && !check_status(exec, errp))) {
        return;
    }
    g_set_error(errp, SF_ERROR, SF_ERROR_IO,
                "the command \"%s\" %s before the end of the image; it must read to the end",
                exec->command,
                waited == CHANNEL_READY ? "ended with status 0" : "closed its standard input");
}

static gboolean exec_commit(Channel *channel, GError **errp)
{
    ExecChannel *exec = (ExecChannel *)channel;

    sf_clear_fd(&channel->fd); /* the command sees the end of its input */
    if (channel_wait(channel, exec->pidfd, POLLIN, -1, errp) == CHANNEL_FAILED ||
        !check_status(exec, errp)) {
        return FALSE;
    }
    /* Status 0: what it left running in its session is meant to go on. */
    waitpid(exec->pid, NULL, 0);
    exec->pid = 0;
    return TRUE;
}

static void exec_release(Channel *channel)
{
    ExecChannel *exec = (ExecChannel *)channel;

    if (exec->pid > 0) {
        struct pollfd fd = { .fd = exec->pidfd, .events = POLLIN };
        kill(-exec->pid, SIGTERM);
        poll(&fd, 1, TERMINATE_WAIT_MS);
        /* Also what the command started and left behind. */
        kill(-exec->pid, SIGKILL);
        waitpid(exec->pid, NULL, 0);
    }
    sf_clear_fd(&exec->pidfd);
    g_free(exec->command);
}

static const ChannelOps exec_ops = {
    .write = channel_plain_write,
    .explain = exec_explain,
    .commit = exec_commit,
    .release = exec_release,
};

/* Starts "/bin/sh -c COMMAND" with @input; 0 or an errno. Safe with threads, as fork() is not. */
static int spawn_shell(const char *command, int input, pid_t *pid)
{
    char *argv[] = { "sh", "-c", (char *)command, NULL };
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t no_signals;
    sigset_t defaults;

    /* We ignore SIGPIPE and block what we like; the command must start as from a shell. */
    sigemptyset(&no_signals);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    sigaddset(&defaults, SIGXFSZ);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &no_signals);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    int err = posix_spawn(pid, "/bin/sh", &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return err;
}

Channel *channel_exec_open(const Destination *destination, GError **errp)
{
    ExecChannel *exec = g_new0(ExecChannel, 1);
    g_autoptr(Channel) channel = &exec->base;
    int ends[2];

    exec->pidfd = -1;
    exec->command = g_strdup(destination->path);
    if (!channel_init(channel, &exec_ops, -1, g_strdup_printf("exec:%s", exec->command), errp)) {
        return NULL;
    }
    if (pipe2(ends, O_CLOEXEC) < 0) {
        channel_io_error(channel->name, "make a pipe for", errno, errp);
        return NULL;
    }
    sf_autofd input = ends[0];
    channel->fd = ends[1];
    /* The two ends are two open file descriptions: the command's reads still block. */
    fcntl(channel->fd, F_SETFL, O_WRONLY | O_NONBLOCK);
    fcntl(channel->fd, F_SETPIPE_SZ, PIPE_BYTES);
    channel->can_wait = TRUE;
    int err = spawn_shell(exec->command, input, &exec->pid);
    if (err) {
        exec->pid = 0;
        channel_io_error(channel->name, "start", err, errp);
        return NULL;
    }
    exec->pidfd = (int)syscall(SYS_pidfd_open, exec->pid, 0);
    if (exec->pidfd < 0) {
        channel_io_error(channel->name, "watch", errno, errp);
        return NULL;
    }
    return g_steal_pointer(&channel);
}
