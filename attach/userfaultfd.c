/*
 * Opens a userfaultfd inside QEMU: its ioctls act on the memory of the process that made it. Two
 * ways of making it, and three doors that may be shut, each with its remedy in the error.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "attach/userfaultfd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "attach/proc-status.h"
#include "userfaultfd-compat.h"
#include "util/autofd.h"
#include "util/fault-injection.h"

#define DEVICE "/dev/userfaultfd"
#define SYSCTL "/proc/sys/vm/unprivileged_userfaultfd"
#define UFFD_FLAGS (O_CLOEXEC | O_NONBLOCK)

/*
 * The number of the descriptor set that carries the device: a fixed one, far from those that QEMU
 * and libvirt count up from 0, so that whatever a killed engine left is found and removed.
 */
#define FDSET 21318

/* Why each door is shut; NULL = open. */
typedef struct Doors {
    char *ptrace;
    char *syscall;
    char *device;
} Doors;

static void doors_clear(Doors *doors)
{
    g_free(doors->ptrace);
    g_free(doors->syscall);
    g_free(doors->device);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Doors, doors_clear)

#define PTRACE_REMEDY                                                                              \
    "run stillframe as root or as the user who runs QEMU (then QEMU must be dumpable, and where "  \
    "the sysctl kernel.yama.ptrace_scope is there it must be 0)"
#define SYSCALL_REMEDY                                                                             \
    "as root: sysctl vm.unprivileged_userfaultfd=1; or give QEMU CAP_SYS_PTRACE when it is started"
#define DEVICE_REMEDY                                                                              \
    "as root: setfacl -m u:USER:r " DEVICE                                                         \
    " for the user who runs stillframe, or run it as root; "                                       \
    "the QMP monitor must be a unix socket (Linux 6.1 or later)"

#define NO_FD_PASSING "the monitor is not a unix socket, so no descriptor can be sent through it"

static void append_door(GString *text, guint number, const char *name, const char *shut,
                        const char *remedy)
{
    g_string_append_printf(text, "\n  %u. %s: ", number, name);
    if (shut) {
        g_string_append_printf(text, "shut: %s. To open it, %s", shut, remedy);
    } else {
        g_string_append(text, "open");
    }
}

static void set_doors_error(GError **errp, pid_t pid, const Doors *doors)
{
    g_autoptr(GString) text = g_string_new(NULL);

    g_string_printf(
        text,
        "cannot open a userfaultfd inside process %d. It takes door 1, and then 2 or 3:", (int)pid);
    append_door(text, 1, "ptrace access to QEMU", doors->ptrace, PTRACE_REMEDY);
    append_door(text, 2, "the userfaultfd system call inside QEMU", doors->syscall, SYSCALL_REMEDY);
    append_door(text, 3, DEVICE ", handed to QEMU", doors->device, DEVICE_REMEDY);
    g_string_append(text, "\nRun \"stillframe check\" to see which are open to you at all");
    g_set_error_literal(errp, SF_ERROR, SF_ERROR_PERMISSION, text->str);
}

static int open_device(char **shut)
{
    int fd = open(DEVICE, O_RDONLY | O_CLOEXEC);
    int err = errno;

    if (fault_injected("no-uffd-device")) {
        sf_clear_fd(&fd);
        err = EACCES;
    }
    if (fd < 0) {
        *shut = g_strdup_printf("cannot open it: %s", g_strerror(err));
    }
    return fd;
}

/* Looking without touching. */

/* The kernel wants the capability in the first user namespace, whose map covers all ids. */
static gboolean has_ptrace_capability(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/uid_map", (int)pid);
    g_autofree char *map = NULL;
    guint64 effective = proc_status_number(pid, "CapEff", 16, 0);
    guint first, outside, count;

    return (effective & (G_GUINT64_CONSTANT(1) << CAP_SYS_PTRACE)) &&
           g_file_get_contents(path, &map, NULL, NULL) &&
           sscanf(map, "%u %u %u", &first, &outside, &count) == 3 && first == 0 && outside == 0 &&
           count == G_MAXUINT;
}

static char *look_at_syscall(pid_t pid)
{
    g_autofree char *setting = NULL;

    if (fault_injected("no-uffd-syscall")) {
        return g_strdup("switched off for a test");
    }
    if (!g_file_get_contents(SYSCTL, &setting, NULL, NULL)) {
        return g_strdup("this kernel is older than 5.2, or has no CONFIG_USERFAULTFD");
    }
    if (g_ascii_strtoull(setting, NULL, 10) == 1 || has_ptrace_capability(pid)) {
        return NULL;
    }
    return g_strdup("QEMU has no CAP_SYS_PTRACE, and vm.unprivileged_userfaultfd is 0");
}

static char *look_at_device(gboolean can_send_fd)
{
    char *shut = NULL;

    if (!can_send_fd) {
        return g_strdup(NO_FD_PASSING);
    }
    int fd = open_device(&shut);
    sf_clear_fd(&fd);
    return shut;
}

gboolean attach_check_ptrace(pid_t pid, GError **errp)
{
    char byte;
    struct iovec here = { &byte, 1 }, there = { NULL, 1 };
    pid_t tracer = (pid_t)proc_status_number(pid, "TracerPid", 10, 0);

    if (tracer != 0) {
        g_autofree char *who = proc_describe(tracer);
        g_set_error(errp, SF_ERROR, SF_ERROR_PERMISSION,
                    "process %d is traced already, by process %s", (int)pid, who);
        return FALSE;
    }
    /*
     * The kernel asks the same question as for PTRACE_ATTACH (Yama's too) before it looks at the
     * address: EFAULT for the null page is a yes.
     */
    if (process_vm_readv(pid, &here, 1, &there, 1, 0) >= 0 || errno == EFAULT) {
        return TRUE;
    }
    int err = errno;
    return sf_error_set_errno(errp, err == ESRCH ? SF_ERROR_NO_PROCESS : SF_ERROR_PERMISSION, err,
                              "no ptrace access to process %d", (int)pid);
}

gboolean attach_check_doors(pid_t pid, gboolean can_send_fd, GError **errp)
{
    g_auto(Doors) doors = { NULL };
    g_autoptr(GError) error = NULL;

    if (!attach_check_ptrace(pid, &error)) {
        if (!g_error_matches(error, SF_ERROR, SF_ERROR_PERMISSION)) {
            g_propagate_error(errp, g_steal_pointer(&error));
            return FALSE;
        }
        doors.ptrace = g_strdup(error->message);
    }
    doors.syscall = look_at_syscall(pid);
    doors.device = look_at_device(can_send_fd);
    if (!doors.ptrace && (!doors.syscall || !doors.device)) {
        return TRUE;
    }
    set_doors_error(errp, pid, &doors);
    return FALSE;
}

/* Opening. */

/* What is opened, and who gets it. */
typedef struct Opening {
    Guardian *guardian;
    pid_t pid;
    QmpClient *qmp;
    int *remote; /* where QEMU keeps its copy: the number that it has there; NULL: it keeps none */
    int fd;      /* ours */
} Opening;

static gboolean call_in_qemu(Opening *opening, long number, const gulong args[6], long *result,
                             GError **errp)
{
    if (!opening->remote) {
        return guardian_remote_syscall(opening->guardian, opening->pid, number, args, TRUE, result,
                                       &opening->fd, errp);
    }
    gboolean done = guardian_remote_share_fd(opening->guardian, opening->pid, number, args, result,
                                             &opening->fd, errp);
    *opening->remote = done ? (int)*result : -1;
    return done;
}

/* FALSE with *errp NULL: the door is shut, and *shut says why. */
static gboolean open_by_syscall(Opening *opening, char **shut, GError **errp)
{
    const gulong args[6] = { UFFD_FLAGS };
    long result = -EPERM;

    if (!fault_injected("no-uffd-syscall") &&
        !call_in_qemu(opening, SYS_userfaultfd, args, &result, errp)) {
        return FALSE;
    }
    if (result >= 0) {
        return TRUE;
    }
    /* ENOSYS is what a container's seccomp filter may answer. */
    if (result == -EPERM || result == -EACCES || result == -ENOSYS) {
        *shut = g_strdup_printf("it answers: %s", g_strerror((int)-result));
        return FALSE;
    }
    return sf_error_set_errno(errp, SF_ERROR_FAILED, (int)-result,
                              "userfaultfd() inside process %d failed", (int)opening->pid);
}

/* add-fd into our set; gives the descriptor's number in QEMU, or -1. */
static int send_device(QmpClient *qmp, int device, GError **errp)
{
    JsonObject *arguments = json_object_new();

    json_object_set_int_member(arguments, "fdset-id", FDSET);
    g_autoptr(JsonNode) answer = qmp_client_execute_with_fd(qmp, "add-fd", arguments, device, errp);
    if (!answer) {
        return -1;
    }
    gint64 number =
        JSON_NODE_HOLDS_OBJECT(answer)
            ? json_object_get_int_member_with_default(json_node_get_object(answer), "fd", -1)
            : -1;
    if (number < 0 || number > G_MAXINT) {
        g_set_error_literal(errp, SF_ERROR, SF_ERROR_MONITOR_PROTOCOL,
                            "the answer to add-fd has no descriptor number");
        return -1;
    }
    return (int)number;
}

/* Only an open device is left behind if it fails, and the next attach removes that. */
static void remove_device(QmpClient *qmp)
{
    g_autoptr(GError) ignored = NULL;
    qmp_client_remove_fdset(qmp, FDSET, &ignored);
}

static gboolean make_by_device(Opening *opening, int device, char **shut, GError **errp)
{
    g_autoptr(GError) refused = NULL;
    gulong args[6] = { 0, USERFAULTFD_IOC_NEW, UFFD_FLAGS };
    int remote_device = send_device(opening->qmp, device, &refused);
    long result;

    if (remote_device < 0) {
        *shut = g_strdup_printf("QEMU did not take it: %s", refused->message);
        return FALSE;
    }
    args[0] = (gulong)remote_device;
    gboolean done = call_in_qemu(opening, SYS_ioctl, args, &result, errp);
    remove_device(opening->qmp);
    if (done && result < 0) {
        *shut = g_strdup_printf("USERFAULTFD_IOC_NEW answers: %s", g_strerror((int)-result));
    }
    return done && result >= 0;
}

static gboolean open_by_device(Opening *opening, char **shut, GError **errp)
{
    if (!opening->qmp || !qmp_client_can_send_fd(opening->qmp)) {
        *shut = g_strdup(NO_FD_PASSING);
        return FALSE;
    }
    sf_autofd device = open_device(shut);
    if (device < 0) {
        return FALSE;
    }
    guardian_set_fdset(opening->guardian, FDSET);
    gboolean made = make_by_device(opening, device, shut, errp);
    guardian_set_fdset(opening->guardian, -1);
    return made;
}

/*
 * A seccomp filter may kill a process for a system call that it does not expect, and cannot be
 * asked. The ioctl of the device is one that QEMU itself needs.
 */
static gboolean device_is_safer(pid_t pid, QmpClient *qmp)
{
    return proc_status_number(pid, "Seccomp", 10, 0) != 0 && qmp && qmp_client_can_send_fd(qmp);
}

/* Behind a first door that is shut, the others can only be looked at. */
static void look_at_the_rest(pid_t pid, QmpClient *qmp, Doors *doors)
{
    if (!doors->syscall) {
        doors->syscall = look_at_syscall(pid);
    }
    if (!doors->device) {
        doors->device = look_at_device(qmp && qmp_client_can_send_fd(qmp));
    }
}

static gboolean try_door(Opening *opening, UffdDoor door, Doors *doors, GError **errp)
{
    return door == UFFD_DOOR_SYSCALL ? open_by_syscall(opening, &doors->syscall, errp)
                                     : open_by_device(opening, &doors->device, errp);
}

static int open_in_qemu(Opening *opening, UffdDoor *door, GError **errp)
{
    const gboolean device_first = device_is_safer(opening->pid, opening->qmp);
    g_auto(Doors) doors = { NULL };

    for (int turn = 0; turn < 2; turn++) {
        g_autoptr(GError) error = NULL;
        UffdDoor this = (turn == 0) == device_first ? UFFD_DOOR_DEVICE : UFFD_DOOR_SYSCALL;
        if (try_door(opening, this, &doors, &error)) {
            *door = this;
            return opening->fd;
        }
        if (g_error_matches(error, SF_ERROR, SF_ERROR_PERMISSION)) {
            doors.ptrace = g_strdup(error->message);
            look_at_the_rest(opening->pid, opening->qmp, &doors);
            break;
        }
        if (error) {
            g_propagate_error(errp, g_steal_pointer(&error));
            return -1;
        }
    }
    set_doors_error(errp, opening->pid, &doors);
    return -1;
}

int attach_userfaultfd(Guardian *guardian, pid_t pid, QmpClient *qmp, UffdDoor *door, GError **errp)
{
    Opening opening = { .guardian = guardian, .pid = pid, .qmp = qmp, .fd = -1 };

    return open_in_qemu(&opening, door, errp);
}

int attach_userfaultfd_shared(Guardian *guardian, pid_t pid, QmpClient *qmp, UffdDoor *door,
                              int *remote, GError **errp)
{
    Opening opening = { .guardian = guardian, .pid = pid, .qmp = qmp, .remote = remote, .fd = -1 };

    return open_in_qemu(&opening, door, errp);
}
