/*
 * The doors into a QEMU process, tried on a stranger: a process of the same user that is no
 * descendant of this one, since Yama treats descendants otherwise.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "attach/guardian.h"
#include "attach/userfaultfd.h"
#include "probes.h"
#include "userfaultfd-compat.h"
#include "util/autofd.h"
#include "util/fault-injection.h"

#define DEVICE "/dev/userfaultfd"
#define YAMA "/proc/sys/kernel/yama/ptrace_scope"
#define SYSCTL "/proc/sys/vm/unprivileged_userfaultfd"
#define UFFD_FLAGS (O_CLOEXEC | O_NONBLOCK)

#define SYSCALL_REMEDY                                                                             \
    "not needed where /dev/userfaultfd is open; else, as root: sysctl "                            \
    "vm.unprivileged_userfaultfd=1"
#define DEVICE_REMEDY                                                                              \
    "needed where the system call is shut; as root: setfacl -m u:USER:r " DEVICE                   \
    " (Linux 6.1 or later)"

/* It lives until the other end of its pipe is closed, by us or by our death. */
typedef struct Stranger {
    pid_t pid;
    int pipe;
} Stranger;

static void G_GNUC_NORETURN live_as_stranger(int in, int out)
{
    char byte;

    close(out);
    while (read(in, &byte, 1) < 0 && errno == EINTR) {
    }
    _exit(0);
}

static void stranger_clear(Stranger *stranger)
{
    sf_clear_fd(&stranger->pipe);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Stranger, stranger_clear)

/* By a child that exits at once, so that its child gets another parent. */
static gboolean stranger_start(Stranger *stranger)
{
    int ends[2], told[2];

    stranger->pipe = -1;
    if (pipe2(ends, O_CLOEXEC) < 0 || pipe2(told, O_CLOEXEC) < 0) {
        return FALSE;
    }
    pid_t between = fork();
    if (between == 0) {
        pid_t pid = fork();
        if (pid == 0) {
            live_as_stranger(ends[0], ends[1]);
        }
        _exit(write(told[1], &pid, sizeof(pid)) == sizeof(pid) ? 0 : 1);
    }
    close(ends[0]);
    close(told[1]);
    sf_autofd in = told[0];
    stranger->pipe = ends[1];
    return between > 0 && waitpid(between, NULL, 0) == between &&
           read(in, &stranger->pid, sizeof(stranger->pid)) == sizeof(stranger->pid) &&
           stranger->pid > 0;
}

/* -1 where there is no Yama. */
static int read_yama(void)
{
    g_autofree char *text = NULL;
    int scope =
        g_file_get_contents(YAMA, &text, NULL, NULL) ? (int)g_ascii_strtoll(text, NULL, 10) : -1;

    return (int)fault_value("yama-scope", (guint64)scope);
}

static char *describe_yama(int scope)
{
    return scope < 0 ? g_strdup("no Yama")
                     : g_strdup_printf("kernel.yama.ptrace_scope is %d", scope);
}

static const char *ptrace_remedy(int scope)
{
    if (scope >= 3) {
        return "ptrace is forbidden until the next boot (kernel.yama.ptrace_scope is 3)";
    }
    if (scope > 0 && geteuid() != 0) {
        return "run as root; or, as root: sysctl kernel.yama.ptrace_scope=0";
    }
    return "run as root, or as the user who runs QEMU";
}

void probe_ptrace(CheckRow *row, guint64 features, int unused)
{
    g_auto(Stranger) stranger = { 0 };
    g_autoptr(GError) error = NULL;
    int scope = read_yama();
    g_autofree char *yama = describe_yama(scope);

    if (!stranger_start(&stranger)) {
        check_row_answer(row, CHECK_UNTRIED, NULL, "no process to try it on");
    } else if (fault_injected("no-ptrace")) {
        check_row_answer(row, CHECK_NO, ptrace_remedy(scope), "switched off for a test (%s)", yama);
    } else if (!attach_check_ptrace(stranger.pid, &error)) {
        check_row_answer(row, CHECK_NO, ptrace_remedy(scope), "%s (%s)", error->message, yama);
    } else {
        check_row_answer(row, CHECK_YES, NULL, "%s (%s)",
                         geteuid() == 0 ? "any user's QEMU" : "this user's own QEMUs", yama);
    }
}

/* Makes a userfaultfd inside the stranger; *result is its system call's. */
static gboolean try_remote(const Stranger *stranger, long number, const gulong args[6],
                           long *result, GError **errp)
{
    g_autoptr(Guardian) guardian = guardian_start(-1, errp);
    sf_autofd fd = -1;

    return guardian &&
           guardian_remote_syscall(guardian, stranger->pid, number, args, TRUE, result, &fd, errp);
}

static void answer_remote(CheckRow *row, long result, const GError *error, const char *remedy,
                          const char *note)
{
    if (error) {
        check_row_answer(row, CHECK_UNTRIED, NULL, "%s", error->message);
    } else if (result < 0) {
        check_row_answer(row, CHECK_NO, remedy, "%s", g_strerror((int)-result));
    } else {
        check_row_answer(row, CHECK_YES, NULL, "%s", note);
    }
}

static gboolean everybody_may(void)
{
    g_autofree char *text = NULL;

    return g_file_get_contents(SYSCTL, &text, NULL, NULL) && g_ascii_strtoull(text, NULL, 10) == 1;
}

void probe_uffd_syscall(CheckRow *row, guint64 features, int unused)
{
    const gulong args[6] = { UFFD_FLAGS };
    g_auto(Stranger) stranger = { 0 };
    g_autoptr(GError) error = NULL;
    long result = -EPERM;

    if (!stranger_start(&stranger)) {
        check_row_answer(row, CHECK_UNTRIED, NULL, "no process to try it in");
        return;
    }
    if (!fault_injected("no-uffd-syscall")) {
        try_remote(&stranger, SYS_userfaultfd, args, &result, &error);
    }
    answer_remote(row, result, error, SYSCALL_REMEDY,
                  everybody_may() ? "vm.unprivileged_userfaultfd is 1"
                                  : "a QEMU with CAP_SYS_PTRACE, as one of root's is");
}

void probe_uffd_device(CheckRow *row, guint64 features, int unused)
{
    g_auto(Stranger) stranger = { 0 };
    g_autoptr(GError) error = NULL;
    /* The stranger inherits it, in place of QEMU's add-fd. */
    sf_autofd device = open(DEVICE, O_RDONLY | O_CLOEXEC);
    int err = errno;
    long result;

    if (fault_injected("no-uffd-device")) {
        sf_clear_fd(&device);
        err = ENOENT;
    }
    if (device < 0) {
        check_row_answer(row, CHECK_NO, DEVICE_REMEDY, "it does not open: %s", g_strerror(err));
        return;
    }
    const gulong args[6] = { (gulong)device, USERFAULTFD_IOC_NEW, UFFD_FLAGS };
    if (!stranger_start(&stranger)) {
        check_row_answer(row, CHECK_UNTRIED, NULL, "no process to try it in");
        return;
    }
    try_remote(&stranger, SYS_ioctl, args, &result, &error);
    answer_remote(row, result, error, DEVICE_REMEDY, "any QEMU, if its monitor is a unix socket");
}
