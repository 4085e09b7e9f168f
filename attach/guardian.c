/*
 * Starting the guardian and talking to it, from the engine. What the guardian itself does is in
 * guardian-process.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "attach/guardian.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "attach/guardian-process.h"
#include "util/autofd.h"

/* A little more than the guardian itself waits, so that its message, which knows more, wins. */
#define ANSWER_MARGIN_MS 2000

struct Guardian {
    pid_t pid;
    int socket;
    GuardianShared *shared;
    guint timeout_ms;
    guint64 serial;
    GMutex lock; /* one request at a time */
};

static GuardianShared *shared_new(GError **errp)
{
    GuardianShared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot map memory for the guardian");
        return NULL;
    }
    shared->fdset = -1;
    return shared;
}

Guardian *guardian_start(int qmp_fd, GError **errp)
{
    return guardian_start_with_spare(qmp_fd, -1, errp);
}

Guardian *guardian_start_with_spare(int qmp_fd, int spare_fd, GError **errp)
{
    g_autoptr(Guardian) guardian = g_new0(Guardian, 1);
    int sockets[2];

    guardian->socket = -1;
    g_mutex_init(&guardian->lock);
    guardian->timeout_ms = guardian_timeout_ms();
    guardian->shared = shared_new(errp);
    if (!guardian->shared) {
        return NULL;
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot make a socket for the guardian");
        return NULL;
    }
    guardian->socket = sockets[0];
    guardian->pid = fork();
    if (guardian->pid == 0) {
        GuardianMonitors monitors = { .qmp_fd = qmp_fd, .spare_fd = spare_fd };
        guardian_process_main(sockets[1], monitors, guardian->shared);
    }
    int err = errno;
    close(sockets[1]);
    if (guardian->pid < 0) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, err, "cannot fork the guardian");
        return NULL;
    }
    return g_steal_pointer(&guardian);
}

void guardian_stop(Guardian *guardian)
{
    if (!guardian) {
        return;
    }
    /* An engine that lives has taken its descriptors back itself. A VM that is still marked frozen
     * it could not resume: that is left to the guardian. */
    if (guardian->shared) {
        guardian_set_fdset(guardian, -1);
    }
    /* The end of the socket is what the guardian waits for. */
    sf_clear_fd(&guardian->socket);
    while (guardian->pid > 0 && waitpid(guardian->pid, NULL, 0) < 0 && errno == EINTR) {
    }
    if (guardian->shared) {
        munmap(guardian->shared, sizeof(*guardian->shared));
    }
    g_mutex_clear(&guardian->lock);
    g_free(guardian);
}

void guardian_set_frozen(Guardian *guardian, gboolean frozen)
{
    __atomic_store_n(&guardian->shared->frozen, frozen, __ATOMIC_SEQ_CST);
}

void guardian_set_fdset(Guardian *guardian, gint64 fdset)
{
    __atomic_store_n(&guardian->shared->fdset, fdset, __ATOMIC_SEQ_CST);
}

static gboolean fail_guardian_gone(const Guardian *guardian, GError **errp)
{
    g_set_error(errp, SF_ERROR, SF_ERROR_FAILED,
                "the guardian process %d ended unexpectedly: start again", (int)guardian->pid);
    return FALSE;
}

/* Reads one answer; a descriptor that came with it goes to *fd, else -1. FALSE at the end. */
static gboolean receive_answer(int socket, GuardianAnswer *answer, int *fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec vec = { answer, sizeof(*answer) };
    struct msghdr message = {
        .msg_iov = &vec, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
    };

    *fd = -1;
    ssize_t got = TEMP_FAILURE_RETRY(recvmsg(socket, &message, MSG_CMSG_CLOEXEC));
    struct cmsghdr *header = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
        memcpy(fd, CMSG_DATA(header), sizeof(*fd));
    }
    if (got != sizeof(*answer)) {
        sf_clear_fd(fd);
        return FALSE;
    }
    answer->message[sizeof(answer->message) - 1] = '\0';
    return TRUE;
}

/* Waits for the answer to the last request; late answers to earlier ones are dropped. */
static gboolean wait_for_answer(Guardian *guardian, GuardianAnswer *answer, int *fd, GError **errp)
{
    gint64 deadline = g_get_monotonic_time() +
                      (guardian->timeout_ms + ANSWER_MARGIN_MS) * G_TIME_SPAN_MILLISECOND;

    for (;;) {
        gint64 left_ms = (deadline - g_get_monotonic_time()) / G_TIME_SPAN_MILLISECOND;
        struct pollfd readable = { .fd = guardian->socket, .events = POLLIN };
        int ready = left_ms > 0 ? poll(&readable, 1, (int)left_ms) : 0;
        if (ready < 0 && errno == EINTR) {
            continue;
        }
        if (ready <= 0) {
            g_set_error(errp, SF_ERROR, SF_ERROR_FAILED,
                        "no answer from the guardian process %d within %u ms: a thread of QEMU "
                        "did not stop, or this machine is overloaded",
                        (int)guardian->pid, guardian->timeout_ms + ANSWER_MARGIN_MS);
            return FALSE;
        }
        if (!receive_answer(guardian->socket, answer, fd)) {
            return fail_guardian_gone(guardian, errp);
        }
        if (answer->serial == guardian->serial) {
            return TRUE;
        }
        sf_clear_fd(fd);
    }
}

static gboolean ask_locked(Guardian *guardian, GuardianRequest *request, GuardianAnswer *answer,
                           int *fd, GError **errp)
{
    request->serial = ++guardian->serial;
    ssize_t sent =
        TEMP_FAILURE_RETRY(send(guardian->socket, request, sizeof(*request), MSG_NOSIGNAL));
    if (sent != sizeof(*request)) {
        return fail_guardian_gone(guardian, errp);
    }
    if (!wait_for_answer(guardian, answer, fd, errp)) {
        return FALSE;
    }
    if (answer->failed) {
        sf_clear_fd(fd);
        g_set_error_literal(errp, SF_ERROR, answer->error_code, answer->message);
        return FALSE;
    }
    return TRUE;
}

static gboolean ask(Guardian *guardian, GuardianRequest *request, GuardianAnswer *answer, int *fd,
                    GError **errp)
{
    g_mutex_lock(&guardian->lock);
    gboolean answered = ask_locked(guardian, request, answer, fd, errp);
    g_mutex_unlock(&guardian->lock);
    return answered;
}

static gboolean remote_call(Guardian *guardian, pid_t pid, RemoteCall call, const gulong args[6],
                            long *result, int *taken_fd, GError **errp)
{
    GuardianRequest request = { .kind = GUARDIAN_SYSCALL, .pid = pid, .call = call };
    GuardianAnswer answer;
    sf_autofd fd = -1;

    request.call.timeout_ms = guardian->timeout_ms;
    memcpy(request.call.args, args, sizeof(request.call.args));
    if (!ask(guardian, &request, &answer, &fd, errp)) {
        return FALSE;
    }
    *result = answer.value;
    if (call.take_fd) {
        *taken_fd = sf_steal_fd(&fd);
    }
    return TRUE;
}

gboolean guardian_remote_syscall(Guardian *guardian, pid_t pid, long number, const gulong args[6],
                                 gboolean take_fd, long *result, int *taken_fd, GError **errp)
{
    const RemoteCall call = { .number = number, .take_fd = take_fd };

    return remote_call(guardian, pid, call, args, result, taken_fd, errp);
}

gboolean guardian_remote_share_fd(Guardian *guardian, pid_t pid, long number, const gulong args[6],
                                  long *result, int *shared_fd, GError **errp)
{
    const RemoteCall call = { .number = number, .take_fd = TRUE, .keep_fd = TRUE };

    return remote_call(guardian, pid, call, args, result, shared_fd, errp);
}

void guardian_release_monitor(Guardian *guardian)
{
    GuardianRequest request = { .kind = GUARDIAN_RELEASE_MONITOR };
    GuardianAnswer answer;
    sf_autofd fd = -1;

    /* A guardian that is gone has closed its copy as well. */
    ask(guardian, &request, &answer, &fd, NULL);
}
