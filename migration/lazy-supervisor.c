/*
 * The supervisor of a page server.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "lazy-supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "lazy-record.h"
#include "util/autofd.h"

/* A server that dies at once again and again must not take a processor. */
#define RESTART_WAIT_US 20000

struct LazySupervisor {
    pid_t pid;
    int pipe;
};

/* The child of the supervisor becomes the next server. */
static int run_server(char **argv)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        signal(SIGHUP, SIG_DFL);
        execv(argv[0], argv);
        _exit(127);
    }
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return child > 0 ? status : 0;
}

static void supervise(pid_t pid, char **argv)
{
    while (lazy_record_exists(pid)) {
        fprintf(stderr,
                "stillframe: the page server of QEMU %d was killed; a new one goes on where it "
                "stopped\n",
                (int)pid);
        if (!WIFSIGNALED(run_server(argv))) {
            return; /* it is through, or has said why it cannot go on */
        }
        g_usleep(RESTART_WAIT_US);
    }
    /* QEMU has ended, too. */
    if (kill(pid, 0) < 0 && errno == ESRCH) {
        lazy_record_forget(pid);
    }
}

static void become_supervisor(int pipe)
{
    static const int ignored[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE };
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    for (guint i = 0; i < G_N_ELEMENTS(ignored); i++) {
        signal(ignored[i], SIG_IGN);
    }
    signal(SIGCHLD, SIG_DFL);
    setsid();
    prctl(PR_SET_NAME, "sf-supervisor");
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    if (pipe > STDERR_FILENO + 1) {
        close_range(STDERR_FILENO + 1, (guint)pipe - 1, 0);
    }
    close_range((guint)pipe + 1, ~0U, 0);
}

LazySupervisor *lazy_supervisor_start(pid_t pid, const char *const *command, GError **errp)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    int ends[2];

    for (; *command; command++) {
        g_ptr_array_add(argv, g_strdup(*command));
    }
    g_ptr_array_add(argv, g_strdup_printf("--resume=%d", (int)pid));
    g_ptr_array_add(argv, NULL);
    if (pipe2(ends, O_CLOEXEC) < 0) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot make a pipe");
        return NULL;
    }
    pid_t child = fork();
    if (child == 0) {
        char byte;
        become_supervisor(ends[0]);
        if (TEMP_FAILURE_RETRY(read(ends[0], &byte, 1)) == 0) {
            supervise(pid, (char **)argv->pdata);
        }
        _exit(0);
    }
    int err = errno;
    close(ends[0]);
    if (child < 0) {
        close(ends[1]);
        sf_error_set_errno(errp, SF_ERROR_FAILED, err, "cannot fork the supervisor");
        return NULL;
    }
    LazySupervisor *supervisor = g_new0(LazySupervisor, 1);
    supervisor->pid = child;
    supervisor->pipe = ends[1];
    return supervisor;
}

void lazy_supervisor_dismiss(LazySupervisor *supervisor)
{
    if (!supervisor) {
        return;
    }
    if (write(supervisor->pipe, "", 1) == 1) {
        while (waitpid(supervisor->pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    close(supervisor->pipe);
    g_free(supervisor);
}
