/*
 * The guardian's own side: a loop that waits for requests and for the engine's end. A system call
 * in QEMU is made by a child of its own, so that a QEMU thread that does not stop cannot keep the
 * guardian from resuming the VM; the child outlives everybody until the thread has its registers
 * back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "attach/guardian-process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "util/autofd.h"
#include "util/fault-injection.h"

#define REMOTE_TIMEOUT_MS 8000
/* How long QEMU may take to answer: a "stop" of the engine may still be running before it. */
#define COMMAND_TIMEOUT_MS 10000

/* Tells the answer to our command from those to the engine's. */
#define COMMAND_ID "stillframe-guardian"

guint guardian_timeout_ms(void)
{
    return (guint)fault_value("guardian-timeout-ms", REMOTE_TIMEOUT_MS);
}

/* Becoming the guardian. */

static void ignore_signals(void)
{
    static const int ignored[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2 };
    sigset_t none;

    for (guint i = 0; i < G_N_ELEMENTS(ignored); i++) {
        signal(ignored[i], SIG_IGN);
    }
    /* Children are not waited for. */
    signal(SIGCHLD, SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static int compare_descriptors(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* Leaves @socket, the monitors (-1 for none) and standard error; 0 and 1 become /dev/null. */
static void close_other_descriptors(int socket, const GuardianMonitors *monitors)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int kept[] = { socket, monitors->qmp_fd, monitors->spare_fd };
    guint next = STDERR_FILENO + 1;

    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    qsort(kept, G_N_ELEMENTS(kept), sizeof(kept[0]), compare_descriptors);
    for (guint i = 0; i < G_N_ELEMENTS(kept); i++) {
        if (kept[i] > (int)next) {
            close_range(next, (guint)kept[i] - 1, 0);
        }
        next = MAX(next, (guint)(kept[i] + 1));
    }
    close_range(next, ~0U, 0);
}

/* Answering. */

static void send_answer(int socket, const GuardianAnswer *answer, int fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = { 0 };
    struct iovec vec = { (void *)answer, sizeof(*answer) };
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
    /* An engine that has died meanwhile needs no answer. */
    ssize_t sent = TEMP_FAILURE_RETRY(sendmsg(socket, &message, MSG_NOSIGNAL));
    (void)sent;
}

static void close_monitors(GuardianMonitors *monitors)
{
    sf_clear_fd(&monitors->qmp_fd);
    sf_clear_fd(&monitors->spare_fd);
}

/* In the child. The descriptor is closed before anything else: it must be the engine's alone. */
static void run_syscall(int socket, const GuardianRequest *request)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(RemoteThread) thread = remote_thread_new(request->pid, &error);
    RemoteResult result = { .taken_fd = -1 };
    GuardianAnswer answer = { .serial = request->serial };

    answer.failed = !thread || !remote_thread_call(thread, &request->call, &result, &error);
    answer.value = result.value;
    if (answer.failed) {
        answer.error_code = error->code;
        g_strlcpy(answer.message, error->message, sizeof(answer.message));
    }
    send_answer(socket, &answer, result.taken_fd);
    sf_clear_fd(&result.taken_fd);
}

static void start_syscall(int socket, GuardianMonitors *monitors, const GuardianRequest *request)
{
    pid_t child = fork();

    if (child == 0) {
        close_monitors(monitors);
        signal(SIGCHLD, SIG_DFL);
        run_syscall(socket, request);
        _exit(0);
    }
    if (child < 0) {
        GuardianAnswer answer = { .serial = request->serial,
                                  .failed = TRUE,
                                  .error_code = SF_ERROR_FAILED };
        g_snprintf(answer.message, sizeof(answer.message), "the guardian cannot fork: %s",
                   g_strerror(errno));
        send_answer(socket, &answer, -1);
    }
}

/* Undoing what the engine has left. */

static gboolean wait_for_events(int fd, short events, gint64 deadline)
{
    for (;;) {
        gint64 left_ms = (deadline - g_get_monotonic_time()) / G_TIME_SPAN_MILLISECOND;
        struct pollfd item = { .fd = fd, .events = events };
        int ready = left_ms > 0 ? poll(&item, 1, (int)left_ms) : 0;
        if (ready >= 0 || errno != EINTR) {
            return ready > 0;
        }
    }
}

/* The socket may be in non-blocking mode: that belongs to the connection, not to our copy. */
static gboolean send_all(int fd, const char *text, gint64 deadline)
{
    size_t left = strlen(text);

    while (left > 0) {
        ssize_t sent = send(fd, text, left, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0) {
            text += sent;
            left -= (size_t)sent;
        } else if (errno == EAGAIN) {
            if (!wait_for_events(fd, POLLOUT, deadline)) {
                return FALSE;
            }
        } else if (errno != EINTR) {
            return FALSE;
        }
    }
    return TRUE;
}

/* Reads until the line with our id; gives its text, or NULL at the end or the deadline. */
static char *read_answer(int fd, gint64 deadline)
{
    g_autoptr(GString) text = g_string_new(NULL);
    char piece[4096];

    while (wait_for_events(fd, POLLIN, deadline)) {
        ssize_t got = recv(fd, piece, sizeof(piece), MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
            return NULL;
        }
        g_string_append_len(text, piece, MAX(got, 0));
        for (char *end; (end = memchr(text->str, '\n', text->len));) {
            g_autofree char *line = g_strndup(text->str, (gsize)(end - text->str));
            if (strstr(line, COMMAND_ID)) {
                return g_strstrip(g_steal_pointer(&line));
            }
            g_string_erase(text, 0, (gssize)strlen(line) + 1);
        }
    }
    return NULL;
}

/*
 * Sends a command and gives the line of its answer. QEMU's JSON parser may stand in the middle of
 * a command that the engine was sending when it died: the byte 0xff is a lexical error in every
 * state and brings it back to the start; QEMU's QMP specification names it for this.
 */
static char *execute_on(int qmp_fd, const char *command, const char *arguments)
{
    gint64 deadline = g_get_monotonic_time() + COMMAND_TIMEOUT_MS * G_TIME_SPAN_MILLISECOND;
    g_autofree char *line =
        g_strdup_printf("\xff{\"execute\": \"%s\", \"arguments\": %s, \"id\": \"%s\"}\n", command,
                        arguments, COMMAND_ID);

    return send_all(qmp_fd, line, deadline) ? read_answer(qmp_fd, deadline) : NULL;
}

/* The spare is QEMU's own connection: a proxy that lives is the only one to use it. */
static char *execute(const GuardianMonitors *monitors, const char *command, const char *arguments)
{
    char *answer = execute_on(monitors->qmp_fd, command, arguments);

    if (!answer && monitors->spare_fd >= 0) {
        answer = execute_on(monitors->spare_fd, command, arguments);
    }
    return answer;
}

static void resume_vm(const GuardianMonitors *monitors)
{
    g_autofree char *answer = execute(monitors, "cont", "{}");

    if (answer && strstr(answer, "\"return\"")) {
        fprintf(stderr, "stillframe: the snapshot ended while the guest was stopped; the guest was "
                        "resumed\n");
    } else {
        fprintf(stderr,
                "stillframe: the snapshot ended while the guest was stopped, and QEMU does not "
                "obey: look with \"query-status\" and continue the guest with \"cont\" on its "
                "monitor (answer: %s)\n",
                answer ? answer : "none");
    }
}

/* The set may not be there yet, or no more: the answer does not matter. */
static void remove_fdset(const GuardianMonitors *monitors, gint64 fdset)
{
    g_autofree char *arguments = g_strdup_printf("{\"fdset-id\": %" G_GINT64_FORMAT "}", fdset);

    /* A system call on one of its descriptors may still be under way; -1 comes when none is. */
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR) {
    }
    g_free(execute(monitors, "remove-fd", arguments));
}

static void undo(const GuardianShared *shared, const GuardianMonitors *monitors)
{
    gint64 fdset = __atomic_load_n(&shared->fdset, __ATOMIC_SEQ_CST);

    if (monitors->qmp_fd < 0) {
        return;
    }
    if (__atomic_load_n(&shared->frozen, __ATOMIC_SEQ_CST)) {
        resume_vm(monitors);
    }
    if (fdset >= 0) {
        remove_fdset(monitors, fdset);
    }
}

/* FALSE when the engine is gone. */
static gboolean serve_one(int socket, GuardianMonitors *monitors)
{
    GuardianRequest request;
    ssize_t got = TEMP_FAILURE_RETRY(recv(socket, &request, sizeof(request), 0));

    if (got != sizeof(request)) {
        return FALSE;
    }
    if (request.kind == GUARDIAN_SYSCALL) {
        start_syscall(socket, monitors, &request);
    } else {
        GuardianAnswer answer = { .serial = request.serial };
        close_monitors(monitors);
        send_answer(socket, &answer, -1);
    }
    return TRUE;
}

void guardian_process_main(int socket, GuardianMonitors monitors, GuardianShared *shared)
{
    ignore_signals();
    setsid();
    prctl(PR_SET_NAME, "sf-guardian");
    close_other_descriptors(socket, &monitors);
    while (serve_one(socket, &monitors)) {
    }
    undo(shared, &monitors);
    _exit(0);
}
