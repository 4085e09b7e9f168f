/*
 * Runs a probe in a process of its own: a kernel that leaves a writer waiting, or answers a write
 * with a signal, must not take the table with it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "check-row.h"
#include "util/autofd.h"
#include "util/fault-injection.h"

/* Far more than it takes, unless the processor that runs KVM is emulated itself. */
#define PROBE_TIMEOUT_MS 15000
/* A process that was killed is gone at once, unless it hangs in the kernel. */
#define KILL_TIMEOUT_MS 2000
/* Enough for every answer: a result, and two texts with a zero behind each. */
#define ANSWER_MAX 4096

#define HANG_REMEDY "report this as a bug, with the version of the kernel"

static void G_GNUC_NORETURN run_child(CheckRow *row, CheckProbe probe, guint64 features,
                                      int argument, pid_t parent, int out)
{
    g_autoptr(GString) answer = g_string_new(NULL);

    /* Whatever ends the program ends its probes. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(1);
    }
    probe(row, features, argument);
    g_string_append_c(answer, (char)('0' + row->result));
    g_string_append_len(answer, row->note, (gssize)strlen(row->note) + 1);
    g_string_append_len(answer, row->remedy, (gssize)strlen(row->remedy) + 1);
    _exit(write(out, answer->str, answer->len) == (gssize)answer->len ? 0 : 1);
}

/* Reads up to the end; -1 if that does not come before @deadline. */
static gssize read_answer(int in, char *buffer, gsize size, gint64 deadline)
{
    gsize length = 0;

    while (length < size) {
        gint64 left_ms = (deadline - g_get_monotonic_time()) / 1000;
        struct pollfd readable = { .fd = in, .events = POLLIN };
        if (left_ms <= 0) {
            return -1;
        }
        if (poll(&readable, 1, (int)left_ms) <= 0) {
            continue;
        }
        gssize got = read(in, buffer + length, size - length);
        if (got == 0) {
            return (gssize)length;
        }
        if (got > 0) {
            length += (gsize)got;
        }
    }
    return (gssize)length;
}

/* FALSE where the process cannot be reaped: it hangs in the kernel. */
static gboolean reap(pid_t pid, int *status)
{
    gint64 deadline = g_get_monotonic_time() + KILL_TIMEOUT_MS * 1000;

    while (waitpid(pid, status, WNOHANG) == 0) {
        if (g_get_monotonic_time() > deadline) {
            return FALSE;
        }
        g_usleep(1000);
    }
    return TRUE;
}

/* Whether @buffer holds a whole answer; then it is taken over. */
static gboolean take_answer(CheckRow *row, const char *buffer, gssize length)
{
    const char *end = buffer + MAX(length, 0);
    const char *note = buffer + 1;
    const char *note_end = length > 1 ? memchr(note, '\0', (gsize)(end - note)) : NULL;
    const char *remedy = note_end ? note_end + 1 : NULL;

    if (!remedy || remedy == end || !memchr(remedy, '\0', (gsize)(end - remedy)) ||
        buffer[0] < '0' || buffer[0] > '0' + CHECK_UNTRIED) {
        return FALSE;
    }
    check_row_answer(row, (CheckResult)(buffer[0] - '0'), remedy, "%s", note);
    return TRUE;
}

static void wait_for_answer(CheckRow *row, pid_t pid, int in)
{
    gint64 timeout_ms = (gint64)fault_value("check-timeout-ms", PROBE_TIMEOUT_MS);
    char buffer[ANSWER_MAX];
    int status = 0;

    gssize length =
        read_answer(in, buffer, sizeof(buffer), g_get_monotonic_time() + timeout_ms * 1000);
    if (length < 0) {
        kill(pid, SIGKILL);
    }
    gboolean gone = reap(pid, &status);
    if (length < 0) {
        check_row_answer(row, CHECK_NO, HANG_REMEDY, "it hangs: no answer within %g s, %s",
                         (double)timeout_ms / 1000, gone ? "ended" : "and it cannot be ended");
    } else if (WIFSIGNALED(status)) {
        check_row_answer(row, CHECK_NO, HANG_REMEDY, "it was ended by signal %d (%s)",
                         WTERMSIG(status), g_strsignal(WTERMSIG(status)));
    } else if (!take_answer(row, buffer, length)) {
        check_row_answer(row, CHECK_NO, HANG_REMEDY, "it ended without an answer");
    }
}

void check_process_run(CheckRow *row, CheckProbe probe, guint64 features, int argument)
{
    pid_t parent = getpid();
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0) {
        check_row_answer(row, CHECK_UNTRIED, NULL, "no pipe: %s", g_strerror(errno));
        return;
    }
    sf_autofd in = ends[0];
    sf_autofd out = ends[1];
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        run_child(row, probe, features, argument, parent, out);
    }
    sf_clear_fd(&out);
    if (pid < 0) {
        check_row_answer(row, CHECK_UNTRIED, NULL, "no process: %s", g_strerror(errno));
        return;
    }
    wait_for_answer(row, pid, in);
}
