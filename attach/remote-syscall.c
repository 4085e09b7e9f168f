/*
 * Borrows the main thread of another process for a system call, with ptrace. The target's memory
 * is not written: the thread is pointed at a system call instruction that is already there. All
 * its signals but SIGKILL and SIGSTOP are blocked meanwhile, so that none is lost or handled on
 * borrowed registers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "attach/remote-syscall.h"

#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "attach/proc-status.h"
#include "attach/proc.h"
#include "util/autofd.h"

/* The code segment of a 64-bit process on x86-64 Linux; a 32-bit one has 0x23. */
#define USER_CS_64 0x33
#define SYSCALL_STOP (SIGTRAP | 0x80) /* with PTRACE_O_TRACESYSGOOD */
#define SCAN_PIECE (64 * 1024)
#define SYS_SECCOMP_CODE 1 /* si_code of a SIGSYS made by a seccomp filter */

typedef enum {
    STOP_EVENT,   /* PTRACE_EVENT_STOP: interrupted, or in a group-stop */
    STOP_SIGNAL,  /* a signal is about to be delivered */
    STOP_SYSCALL, /* at the entry or the exit of a system call */
    STOP_GONE,    /* the thread exists no more */
    STOP_TIMEOUT, /* it did not stop */
} Stop;

struct RemoteThread {
    pid_t pid;
    int pidfd;
    guint64 syscall_address;
    guint timeout_ms;
    gint64 deadline; /* monotonic microseconds, 0 = none */
    gint64 stopped_since;
    int signal; /* of the last stop, if that was STOP_SIGNAL */
    int resend; /* a signal that was taken out of the queue and must come back */
    gboolean seized;
    gboolean stopped;
    gboolean in_signal_path; /* the last stop was one in which a system call is restarted */
    gboolean borrowed;       /* the registers and the signal mask are not the thread's own */
    struct user_regs_struct saved_regs;
    guint64 saved_mask;
};

/* Finding a system call instruction. */

static const char *find_syscall_bytes(const char *bytes, size_t length)
{
    return memmem(bytes, length, "\x0f\x05", 2);
}

/* Any two bytes 0f 05 in executable memory will do, also inside a longer instruction. */
static guint64 scan_mapping(pid_t pid, const ProcMapping *mapping)
{
    g_autofree char *piece = g_malloc(SCAN_PIECE);

    /* The pieces overlap by one byte, for an instruction across their border. */
    for (guint64 at = mapping->start; at < mapping->end; at += SCAN_PIECE - 1) {
        size_t length = MIN(SCAN_PIECE, mapping->end - at);
        struct iovec here = { piece, length };
        struct iovec there = { (void *)(uintptr_t)at, length };
        ssize_t got = process_vm_readv(pid, &here, 1, &there, 1, 0);
        const char *found = got > 0 ? find_syscall_bytes(piece, (size_t)got) : NULL;
        if (found) {
            return at + (guint64)(found - piece);
        }
        if (got < (ssize_t)length) {
            return 0;
        }
    }
    return 0;
}

static gboolean mapping_is_code(const ProcMapping *mapping)
{
    return mapping->executable && mapping->readable && !g_str_equal(mapping->path, "[vsyscall]");
}

/* The vdso always has one, and is a page or two; the C library is the next best place. */
static int mapping_rank(const ProcMapping *mapping)
{
    if (g_str_equal(mapping->path, "[vdso]")) {
        return 0;
    }
    return strstr(mapping->path, "/libc.") || strstr(mapping->path, "/ld-") ? 1 : 2;
}

static guint64 find_syscall_instruction(pid_t pid, GPtrArray *maps)
{
    for (int rank = 0; rank <= 2; rank++) {
        for (guint i = 0; i < maps->len; i++) {
            const ProcMapping *mapping = g_ptr_array_index(maps, i);
            if (!mapping_is_code(mapping) || mapping_rank(mapping) != rank) {
                continue;
            }
            guint64 address = scan_mapping(pid, mapping);
            if (address != 0) {
                return address;
            }
        }
    }
    return 0;
}

/* Errors. */

static gboolean fail_gone(const RemoteThread *thread, GError **errp)
{
    g_set_error(errp, SF_ERROR, SF_ERROR_VM_GONE, "process %d ended while it was being attached to",
                (int)thread->pid);
    return FALSE;
}

/* A ptrace request fails with ESRCH when the thread was killed under our hands. */
static gboolean fail_ptrace(const RemoteThread *thread, const char *request, GError **errp)
{
    if (errno == ESRCH) {
        return fail_gone(thread, errp);
    }
    return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "%s on process %d failed", request,
                              (int)thread->pid);
}

static gboolean fail_timeout(const RemoteThread *thread, GError **errp)
{
    g_autofree char *state = proc_status_field(thread->pid, "State");
    g_set_error(
        errp, SF_ERROR, SF_ERROR_FAILED,
        "the main thread of process %d did not stop within %u ms; its state is %s. It waits "
        "in the kernel and cannot be interrupted, usually for a disk or a network file "
        "system that does not answer. Try again when that is over",
        (int)thread->pid, thread->timeout_ms, state ? state : "unknown");
    return FALSE;
}

static gboolean fail_seize(const RemoteThread *thread, int err, GError **errp)
{
    g_autofree char *state = proc_status_field(thread->pid, "State");
    pid_t tracer = (pid_t)proc_status_number(thread->pid, "TracerPid", 10, 0);

    if (state && state[0] == 'Z') {
        g_set_error(errp, SF_ERROR, SF_ERROR_VM_GONE, "the main thread of process %d has ended",
                    (int)thread->pid);
        return FALSE;
    }
    if (err == ESRCH || !state) {
        return fail_gone(thread, errp);
    }
    if (tracer != 0) {
        g_autofree char *who = proc_describe(tracer);
        g_set_error(errp, SF_ERROR, SF_ERROR_PERMISSION,
                    "process %d is traced already, by process %s: end that one first",
                    (int)thread->pid, who);
        return FALSE;
    }
    return sf_error_set_errno(errp, SF_ERROR_PERMISSION, err, "no ptrace access to process %d",
                              (int)thread->pid);
}

/* Stops. */

static Stop classify_stop(RemoteThread *thread, int status)
{
    if (!WIFSTOPPED(status)) {
        thread->seized = thread->stopped = FALSE;
        return STOP_GONE;
    }
    thread->stopped = TRUE;
    thread->in_signal_path = TRUE;
    thread->signal = 0;
    if (status >> 16 == PTRACE_EVENT_STOP) {
        return STOP_EVENT;
    }
    if (WSTOPSIG(status) == SYSCALL_STOP) {
        thread->in_signal_path = FALSE;
        return STOP_SYSCALL;
    }
    thread->signal = WSTOPSIG(status);
    return STOP_SIGNAL;
}

/*
 * Waits for the next stop until the deadline. A stop raises SIGCHLD, which is blocked here; the
 * slices are for the case that another thread of this process takes the signal away.
 */
static Stop wait_for_stop(RemoteThread *thread)
{
    const struct timespec slice = { 0, G_TIME_SPAN_MILLISECOND * 1000 };
    sigset_t child;

    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    for (;;) {
        int status;
        pid_t got = waitpid(thread->pid, &status, WNOHANG | __WALL);
        if (got == thread->pid) {
            return classify_stop(thread, status);
        }
        if (got < 0 && errno != EINTR) {
            thread->seized = thread->stopped = FALSE;
            return STOP_GONE;
        }
        if (thread->deadline != 0 && g_get_monotonic_time() > thread->deadline) {
            return STOP_TIMEOUT;
        }
        sigtimedwait(&child, NULL, &slice);
    }
}

static gboolean resume(RemoteThread *thread, enum __ptrace_request request, int signal,
                       GError **errp)
{
    if (ptrace(request, thread->pid, NULL, (void *)(intptr_t)signal) < 0) {
        return fail_ptrace(thread, "resuming", errp);
    }
    thread->stopped = FALSE;
    return TRUE;
}

static gboolean interrupt(RemoteThread *thread, GError **errp)
{
    if (ptrace(PTRACE_INTERRUPT, thread->pid, NULL, NULL) < 0) {
        return fail_ptrace(thread, "PTRACE_INTERRUPT", errp);
    }
    return TRUE;
}

/*
 * Which signal to pass on from a signal stop on borrowed registers. All signals are blocked but
 * SIGSTOP, which has no handler and may act at once: the thread joins the group-stop and goes on
 * for us. SIGSYS comes from a seccomp filter that forbids our call and is swallowed, unless
 * somebody sent it. Anything else was forced by our own doing.
 */
static int signal_to_pass(RemoteThread *thread)
{
    siginfo_t info;

    if (thread->signal == SIGSTOP) {
        return SIGSTOP;
    }
    if (ptrace(PTRACE_GETSIGINFO, thread->pid, NULL, &info) == 0 && info.si_code <= 0) {
        thread->resend = thread->signal;
    }
    return 0;
}

/* From a stop at a system call to one where the kernel may still restart the interrupted call. */
static gboolean settle(RemoteThread *thread, GError **errp)
{
    int signal = 0;

    if (thread->in_signal_path) {
        return TRUE;
    }
    if (!interrupt(thread, errp)) {
        return FALSE;
    }
    for (;;) {
        if (!resume(thread, PTRACE_CONT, signal, errp)) {
            return FALSE;
        }
        signal = 0;
        switch (wait_for_stop(thread)) {
        case STOP_EVENT:
            return TRUE;
        case STOP_SIGNAL:
            signal = signal_to_pass(thread);
            break;
        case STOP_SYSCALL:
            break;
        case STOP_GONE:
            return fail_gone(thread, errp);
        case STOP_TIMEOUT:
            return fail_timeout(thread, errp);
        }
    }
}

/* Borrowing and giving back. */

/* Whether a seccomp filter has just put SIGSYS in the place of a system call of the thread. */
static gboolean refused_with_sigsys(RemoteThread *thread)
{
    struct __ptrace_peeksiginfo_args args = { .off = 0, .nr = 1 };
    siginfo_t info;

    /* Signals that are blocked may stand before it in the queue. */
    while (ptrace(PTRACE_PEEKSIGINFO, thread->pid, &args, &info) == 1) {
        if (info.si_signo == SIGSYS && info.si_code == SYS_SECCOMP_CODE) {
            return TRUE;
        }
        args.off++;
    }
    return FALSE;
}

static gboolean stop_thread(RemoteThread *thread, GError **errp)
{
    /* SEIZE, not ATTACH: no SIGSTOP is sent, and a group-stop is left as it is. */
    if (ptrace(PTRACE_SEIZE, thread->pid, NULL, (void *)PTRACE_O_TRACESYSGOOD) < 0) {
        return fail_seize(thread, errno, errp);
    }
    thread->seized = TRUE;
    thread->stopped_since = g_get_monotonic_time();
    if (!interrupt(thread, errp)) {
        return FALSE;
    }
    for (;;) {
        switch (wait_for_stop(thread)) {
        case STOP_EVENT:
            if (!refused_with_sigsys(thread)) {
                return TRUE;
            }
            /* The thread's own SIGSYS comes first, lest it be taken for one of ours. */
            if (!resume(thread, PTRACE_CONT, 0, errp)) {
                return FALSE;
            }
            break;
        case STOP_SIGNAL:
        case STOP_SYSCALL:
            /* Still the thread's own registers: a signal takes its course. */
            if (!interrupt(thread, errp) || !resume(thread, PTRACE_CONT, thread->signal, errp)) {
                return FALSE;
            }
            break;
        case STOP_GONE:
            return fail_gone(thread, errp);
        case STOP_TIMEOUT:
            return fail_timeout(thread, errp);
        }
    }
}

static gboolean set_registers(RemoteThread *thread, struct user_regs_struct *regs, GError **errp)
{
    struct iovec vec = { regs, sizeof(*regs) };

    if (ptrace(PTRACE_SETREGSET, thread->pid, (void *)NT_PRSTATUS, &vec) < 0) {
        return fail_ptrace(thread, "PTRACE_SETREGSET", errp);
    }
    return TRUE;
}

static gboolean get_registers(RemoteThread *thread, struct user_regs_struct *regs, GError **errp)
{
    struct iovec vec = { regs, sizeof(*regs) };

    if (ptrace(PTRACE_GETREGSET, thread->pid, (void *)NT_PRSTATUS, &vec) < 0) {
        return fail_ptrace(thread, "PTRACE_GETREGSET", errp);
    }
    if (vec.iov_len != sizeof(*regs) || regs->cs != USER_CS_64) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "process %d runs 32-bit code: only a 64-bit QEMU can be attached to",
                    (int)thread->pid);
        return FALSE;
    }
    return TRUE;
}

static gboolean set_signal_mask(RemoteThread *thread, guint64 mask, GError **errp)
{
    /* The kernel's signal set has 8 bytes, and the size goes where others have an address. */
    if (ptrace(PTRACE_SETSIGMASK, thread->pid, (void *)sizeof(mask), &mask) < 0) {
        return fail_ptrace(thread, "PTRACE_SETSIGMASK", errp);
    }
    return TRUE;
}

/*
 * SIGSYS is let through even if the thread blocks it: a signal that the kernel forces, as seccomp
 * does, loses its handler for good where it is blocked.
 */
static gboolean borrow(RemoteThread *thread, GError **errp)
{
    const guint64 sigsys = G_GUINT64_CONSTANT(1) << (SIGSYS - 1);
    guint64 *mask = &thread->saved_mask;

    if (!get_registers(thread, &thread->saved_regs, errp)) {
        return FALSE;
    }
    if (ptrace(PTRACE_GETSIGMASK, thread->pid, (void *)sizeof(*mask), mask) < 0) {
        return fail_ptrace(thread, "PTRACE_GETSIGMASK", errp);
    }
    thread->borrowed = TRUE;
    return set_signal_mask(thread, ~sigsys, errp);
}

/*
 * Gives everything back and detaches; nothing to do for a thread that is gone. The registers
 * are set in a stop inside the kernel's signal handling: only there does it look at orig_rax
 * afterwards and restart the call that the interruption ended with ERESTART*.
 */
static gboolean give_back(RemoteThread *thread, GError **errp)
{
    const gboolean was_borrowed = thread->borrowed;

    if (!thread->seized || !thread->stopped) {
        return TRUE;
    }
    if (was_borrowed) {
        if (!settle(thread, errp) || !set_registers(thread, &thread->saved_regs, errp) ||
            !set_signal_mask(thread, thread->saved_mask, errp)) {
            return FALSE;
        }
        thread->borrowed = FALSE;
    }
    /* A signal that came before anything was borrowed takes its course. */
    if (!resume(thread, PTRACE_DETACH, was_borrowed ? 0 : thread->signal, errp)) {
        return FALSE;
    }
    thread->seized = FALSE;
    if (thread->resend != 0) {
        syscall(SYS_tgkill, thread->pid, thread->pid, thread->resend);
        thread->resend = 0;
    }
    return TRUE;
}

/* Running the call. */

static gboolean run_to_syscall_stop(RemoteThread *thread, GError **errp)
{
    int signal = 0;

    for (;;) {
        if (!resume(thread, PTRACE_SYSCALL, signal, errp)) {
            return FALSE;
        }
        signal = 0;
        switch (wait_for_stop(thread)) {
        case STOP_SYSCALL:
            return TRUE;
        case STOP_EVENT:
            break;
        case STOP_SIGNAL:
            signal = signal_to_pass(thread);
            if (signal == 0 && thread->resend == 0) {
                g_set_error(errp, SF_ERROR, SF_ERROR_FAILED,
                            "process %d could not run a system call instruction: %s",
                            (int)thread->pid, g_strsignal(thread->signal));
                return FALSE;
            }
            break;
        case STOP_GONE:
            return fail_gone(thread, errp);
        case STOP_TIMEOUT:
            return fail_timeout(thread, errp);
        }
    }
}

/* Swallows that SIGSYS; the thread then stands in its signal stop. */
static gboolean drop_sigsys(RemoteThread *thread, GError **errp)
{
    do {
        if (!resume(thread, PTRACE_CONT, 0, errp)) {
            return FALSE;
        }
        switch (wait_for_stop(thread)) {
        case STOP_GONE:
            return fail_gone(thread, errp);
        case STOP_TIMEOUT:
            return fail_timeout(thread, errp);
        default:
            break;
        }
    } while (thread->signal != SIGSYS);
    return TRUE;
}

static gboolean run_syscall(RemoteThread *thread, long number, const gulong args[6], long *value,
                            GError **errp)
{
    struct user_regs_struct regs = thread->saved_regs;

    regs.rip = thread->syscall_address;
    regs.rax = (gulong)number;
    regs.rdi = args[0];
    regs.rsi = args[1];
    regs.rdx = args[2];
    regs.r10 = args[3];
    regs.r8 = args[4];
    regs.r9 = args[5];
    /* "Not in a system call": else the kernel would restart the interrupted one, on our rip. */
    regs.orig_rax = (gulong)-1;
    if (!set_registers(thread, &regs, errp) || !run_to_syscall_stop(thread, errp) ||
        !run_to_syscall_stop(thread, errp)) {
        return FALSE;
    }
    if (refused_with_sigsys(thread)) {
        *value = -ENOSYS;
        return drop_sigsys(thread, errp);
    }
    if (!get_registers(thread, &regs, errp)) {
        return FALSE;
    }
    *value = (long)regs.rax;
    return TRUE;
}

static gboolean take_descriptor(RemoteThread *thread, gboolean keep, RemoteResult *result,
                                GError **errp)
{
    const gulong close_args[6] = { (gulong)result->value };
    sf_autofd fd = (int)syscall(SYS_pidfd_getfd, thread->pidfd, (int)result->value, 0);
    int err = errno;
    long closed;

    if ((!keep || fd < 0) && !run_syscall(thread, SYS_close, close_args, &closed, errp)) {
        return FALSE;
    }
    if (fd < 0) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, err,
                                  "pidfd_getfd of descriptor %ld of process %d failed",
                                  result->value, (int)thread->pid);
    }
    result->taken_fd = sf_steal_fd(&fd);
    return TRUE;
}

static gboolean run_on_stopped_thread(RemoteThread *thread, const RemoteCall *call,
                                      RemoteResult *result, GError **errp)
{
    return borrow(thread, errp) &&
           run_syscall(thread, call->number, call->args, &result->value, errp) &&
           (!call->take_fd || result->value < 0 ||
            take_descriptor(thread, call->keep_fd, result, errp));
}

gboolean remote_thread_call(RemoteThread *thread, const RemoteCall *call, RemoteResult *result,
                            GError **errp)
{
    sigset_t child, before;

    *result = (RemoteResult){ .taken_fd = -1 };
    thread->timeout_ms = call->timeout_ms;
    thread->deadline = g_get_monotonic_time() + call->timeout_ms * G_TIME_SPAN_MILLISECOND;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &child, &before);
    gboolean ok = stop_thread(thread, errp) && run_on_stopped_thread(thread, call, result, errp);
    /* The first error is the one that tells; a thread that cannot be let go is gone. */
    gboolean returned = give_back(thread, ok ? errp : NULL);
    result->stopped_us = g_get_monotonic_time() - thread->stopped_since;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!(ok && returned)) {
        sf_clear_fd(&result->taken_fd);
    }
    return ok && returned;
}

RemoteThread *remote_thread_new(pid_t pid, GError **errp)
{
    g_autoptr(RemoteThread) thread = g_new0(RemoteThread, 1);

    thread->pid = pid;
    thread->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (thread->pidfd < 0) {
        int err = errno;
        sf_error_set_errno(errp, err == ESRCH ? SF_ERROR_VM_GONE : SF_ERROR_FAILED, err,
                           "cannot open process %d", (int)pid);
        return NULL;
    }
    g_autoptr(GPtrArray) maps = proc_read_maps(pid, errp);
    if (!maps) {
        return NULL;
    }
    thread->syscall_address = find_syscall_instruction(pid, maps);
    if (thread->syscall_address == 0) {
        char byte;
        struct iovec here = { &byte, 1 }, there = { NULL, 1 };
        if (process_vm_readv(pid, &here, 1, &there, 1, 0) < 0 && errno != EFAULT) {
            fail_seize(thread, errno, errp);
        } else {
            g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                        "found no system call instruction in process %d", (int)pid);
        }
        return NULL;
    }
    return g_steal_pointer(&thread);
}

void remote_thread_free(RemoteThread *thread)
{
    if (!thread) {
        return;
    }
    thread->deadline = 0;
    if (thread->seized && !thread->stopped) {
        ptrace(PTRACE_INTERRUPT, thread->pid, NULL, NULL);
        wait_for_stop(thread);
    }
    give_back(thread, NULL);
    sf_clear_fd(&thread->pidfd);
    g_free(thread);
}
