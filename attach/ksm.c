/*
 * KSM, held off. Several holds may exist at a time, of several processes: each has a shared lock on
 * the kernel's switch, and whoever leaves last switches it on again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "attach/ksm.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/autofd.h"
#include "util/fault-injection.h"

#define FOLDER "/sys/kernel/mm/ksm/"
#define RUN FOLDER "run"

struct KsmHold {
    pid_t keeper;     /* 0: KSM was off */
    int pipe;         /* its other end is the keeper's */
    gboolean watched; /* pages of the process may be merged */
    guint64 full_scans;
    guint64 pages_scanned;
};

static guint64 read_number(const char *path)
{
    g_autofree char *text = NULL;

    return g_file_get_contents(path, &text, NULL, NULL) ? g_ascii_strtoull(text, NULL, 10) : 0;
}

/* Of the switch: 0 stopped, 1 running, 2 unmerging everything. A new read each time. */
static gboolean is_running(int run)
{
    char value = '0';

    return pread(run, &value, 1, 0) == 1 && value == '1';
}

/* The kernel answers when ksmd is not in the middle of anything. */
static gboolean set_running(int run, gboolean on)
{
    return pwrite(run, on ? "1\n" : "0\n", 2, 0) == 2;
}

/* /proc/PID/ksm_stat says "ksm_mergeable: no" since 6.15; older kernels cannot be asked. */
static gboolean may_merge(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/ksm_stat", (int)pid);
    g_autofree char *text = NULL;

    return !g_file_get_contents(path, &text, NULL, NULL) || !strstr(text, "ksm_mergeable: no");
}

/* On behalf of all who hold it: nobody else has the lock, so it is ours to switch. */
static void let_go(int run)
{
    if (flock(run, LOCK_EX | LOCK_NB) == 0) {
        set_running(run, TRUE);
    }
}

G_NORETURN static void keep(int pipe, int run)
{
    static const int ignored[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE };
    char byte;

    for (guint i = 0; i < G_N_ELEMENTS(ignored); i++) {
        signal(ignored[i], SIG_IGN);
    }
    setsid();
    prctl(PR_SET_NAME, "sf-ksm");
    /* Nothing of the engine's may live on in here. */
    dup2(pipe, STDIN_FILENO);
    dup2(run, STDOUT_FILENO);
    close_range(STDOUT_FILENO + 1, UINT_MAX, 0);
    while (read(STDIN_FILENO, &byte, 1) < 0 && errno == EINTR) {
    }
    let_go(STDOUT_FILENO);
    _exit(0);
}

static gboolean start_keeper(KsmHold *hold, int run, GError **errp)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot make a pipe");
    }
    hold->keeper = fork();
    if (hold->keeper == 0) {
        close(ends[1]);
        keep(ends[0], run);
    }
    int err = errno;
    close(ends[0]);
    hold->pipe = ends[1];
    if (hold->keeper < 0) {
        hold->keeper = 0;
        return sf_error_set_errno(errp, SF_ERROR_FAILED, err,
                                  "cannot fork the process that switches KSM on again");
    }
    return TRUE;
}

/*
 * Takes a share of the lock. *held: KSM runs, or is held off by others already. A conversion of the
 * lock that fails loses it, so that the switch is to be looked at anew afterwards.
 */
static gboolean join(int run, gboolean *held)
{
    if (flock(run, LOCK_SH) < 0) {
        return FALSE;
    }
    *held = is_running(run) || flock(run, LOCK_EX | LOCK_NB) < 0;
    return flock(run, LOCK_SH) == 0;
}

static gboolean begin(KsmHold *hold, GError **errp)
{
    sf_autofd run = open(RUN, O_RDWR | O_CLOEXEC);
    gboolean held = FALSE;

    if (run < 0) {
        int err = errno;
        return read_number(RUN) != 1 ||
               sf_error_set_errno(errp, SF_ERROR_PERMISSION, err,
                                  "KSM is merging this VM's memory, which undoes the write "
                                  "protection of a snapshot, and may not be held off from here: "
                                  "run stillframe as root, or as root: echo 0 > " RUN
                                  ", or start QEMU with -machine mem-merge=off. Opening the "
                                  "switch");
    }
    if (!join(run, &held)) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot lock %s", RUN);
    }
    if (!held) {
        return TRUE;
    }
    /* The keeper first: from the moment that KSM is off somebody must be there to switch it on. */
    return start_keeper(hold, run, errp) &&
           (!is_running(run) || set_running(run, FALSE) ||
            sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot switch KSM off with %s", RUN));
}

KsmHold *ksm_hold_new(pid_t pid, GError **errp)
{
    g_autoptr(KsmHold) hold = g_new0(KsmHold, 1);

    hold->pipe = -1;
    hold->watched = access(RUN, F_OK) == 0 && may_merge(pid);
    if (hold->watched && !fault_injected("ksm-not-held") && !begin(hold, errp)) {
        return NULL;
    }
    hold->full_scans = read_number(FOLDER "full_scans");
    hold->pages_scanned = read_number(FOLDER "pages_scanned");
    return g_steal_pointer(&hold);
}

gboolean ksm_hold_check(KsmHold *hold, GError **errp)
{
    if (!hold->watched) {
        return TRUE;
    }
    if (read_number(FOLDER "full_scans") == hold->full_scans &&
        read_number(FOLDER "pages_scanned") == hold->pages_scanned) {
        return TRUE;
    }
    g_set_error(errp, SF_ERROR, SF_ERROR_FAILED,
                "KSM was switched on while the snapshot was taken, which undoes its write "
                "protection; try again, and see to it that nobody writes to %s meanwhile",
                RUN);
    return FALSE;
}

void ksm_hold_free(KsmHold *hold)
{
    if (!hold) {
        return;
    }
    sf_clear_fd(&hold->pipe);
    while (hold->keeper > 0 && waitpid(hold->keeper, NULL, 0) < 0 && errno == EINTR) {
    }
    g_free(hold);
}
