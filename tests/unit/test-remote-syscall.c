/*
 * System calls in another process: the result is right, and the process notices nothing, whatever
 * it was doing: computing, sleeping in the kernel, receiving signals, stopped.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/ptrace.h>
#include <time.h>

#include "attach/remote-syscall.h"
#include "target.h"
#include "util/autofd.h"

#define TIMEOUT_MS 5000

/* The SIGCHLD of this and the calls' own ptrace stops have nothing to do with each other. */
static gboolean try_call(pid_t pid, long number, gulong arg0, gulong arg1, gboolean take_fd,
                         RemoteResult *result, GError **errp)
{
    RemoteCall call = {
        .number = number, .args = { arg0, arg1 }, .take_fd = take_fd, .timeout_ms = TIMEOUT_MS
    };
    g_autoptr(RemoteThread) thread = remote_thread_new(pid, errp);

    return thread && remote_thread_call(thread, &call, result, errp);
}

static long call_ok(pid_t pid, long number, gulong arg0, gulong arg1)
{
    g_autoptr(GError) error = NULL;
    RemoteResult result;

    gboolean ok = try_call(pid, number, arg0, arg1, FALSE, &result, &error);
    g_assert_no_error(error);
    g_assert_true(ok);
    return result.value;
}

/* Known values in every register that the compiler gives us, checked after a while. */
static void loop_registers(Target *target)
{
    gulong wrong;

    asm volatile("mov $0x1111, %%rax\n mov $0x2222, %%rcx\n mov $0x3333, %%rdx\n"
                 "mov $0x4444, %%rsi\n mov $0x5555, %%rdi\n mov $0x6666, %%r8\n"
                 "mov $0x7777, %%r9\n mov $0x8888, %%r10\n mov $0x9999, %%r11\n"
                 "mov $200000, %%r12\n"
                 "1: dec %%r12\n jnz 1b\n"
                 "xor %%r12, %%r12\n"
                 "sub $0x1111, %%rax\n or %%rax, %%r12\n sub $0x2222, %%rcx\n or %%rcx, %%r12\n"
                 "sub $0x3333, %%rdx\n or %%rdx, %%r12\n sub $0x4444, %%rsi\n or %%rsi, %%r12\n"
                 "sub $0x5555, %%rdi\n or %%rdi, %%r12\n sub $0x6666, %%r8\n or %%r8, %%r12\n"
                 "sub $0x7777, %%r9\n or %%r9, %%r12\n sub $0x8888, %%r10\n or %%r10, %%r12\n"
                 "sub $0x9999, %%r11\n or %%r11, %%r12\n"
                 "mov %%r12, %0\n"
                 : "=r"(wrong)
                 :
                 : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "cc");
    target->failures += wrong != 0;
}

static void test_computing_thread_keeps_its_registers(void)
{
    g_autoptr(Target) target = target_start(loop_registers);

    for (guint i = 0; i < 500; i++) {
        g_assert_cmpint(call_ok(target->pid, SYS_getpid, 0, 0), ==, target->pid);
    }
    g_assert_cmpint(call_ok(target->pid, SYS_close, 12345, 0), ==, -EBADF);
    target_assert_progress(target, 10);
    g_assert_cmpuint(target->failures, ==, 0);
}

/* Each of these would end early, or with EINTR, if its system call were not restarted. */
static void loop_sleep(Target *target)
{
    struct timespec nap = { 0, 30 * 1000 * 1000 }, rest = { 0 };
    gint64 start = g_get_monotonic_time();

    target->failures += nanosleep(&nap, &rest) != 0;
    target->failures += poll(NULL, 0, 30) != 0;
    target->failures += ppoll(NULL, 0, &nap, NULL) != 0;
    target->failures += g_get_monotonic_time() - start < 90 * G_TIME_SPAN_MILLISECOND;
}

static void test_interrupted_sleep_is_restarted(void)
{
    g_autoptr(Target) target = target_start(loop_sleep);

    target_assert_progress(target, 1);
    for (guint i = 0; i < 500; i++) {
        g_assert_cmpint(call_ok(target->pid, SYS_getpid, 0, 0), ==, target->pid);
        g_usleep(1000);
    }
    target_assert_progress(target, 2);
    g_assert_cmpuint(target->failures, ==, 0);
}

/* target->value is the write end of the pipe that it reads. */
static void loop_read(Target *target)
{
    static int pipe_fds[2] = { -1, -1 };
    char bytes[8];

    if (pipe_fds[0] < 0) {
        target->failures += pipe(pipe_fds) != 0;
        target->value = (guint64)pipe_fds[1];
    }
    target->failures += read(pipe_fds[0], bytes, sizeof(bytes)) != 3;
}

static void test_interrupted_read_is_restarted(void)
{
    g_autoptr(Target) target = target_start(loop_read);

    wait_for_state(target->pid, 'S');
    for (guint i = 0; i < 100; i++) {
        g_assert_cmpint(call_ok(target->pid, SYS_getpid, 0, 0), ==, target->pid);
    }
    g_assert_cmpuint(target->progress, ==, 0);
    g_autofree char *path = g_strdup_printf("/proc/%d/fd/%d", (int)target->pid, (int)target->value);
    sf_autofd writer = open(path, O_WRONLY | O_CLOEXEC);
    g_assert_cmpint(writer, >=, 0);
    g_assert_cmpint(write(writer, "abc", 3), ==, 3);
    target_assert_reaches(target, 1);
    g_assert_cmpuint(target->failures, ==, 0);
}

static Target *handler_target;

/* Real-time signals queue: each value must come, once, in its order. */
static void count_signal(int signal, siginfo_t *info, void *context)
{
    handler_target->failures += (guint64)info->si_value.sival_int != handler_target->value;
    handler_target->value++;
}

static void loop_signals(Target *target)
{
    struct sigaction action = { .sa_sigaction = count_signal, .sa_flags = SA_SIGINFO };
    struct timespec nap = { 0, 100 * 1000 };

    if (!handler_target) {
        handler_target = target;
        sigaction(SIGRTMIN, &action, NULL);
    }
    loop_registers(target);
    nanosleep(&nap, NULL);
}

static void test_no_signal_is_lost(void)
{
    const int count = 2000;
    g_autoptr(Target) target = target_start(loop_signals);

    target_assert_progress(target, 1);
    pid_t sender = fork();
    if (sender == 0) {
        for (int i = 0; i < count; i++) {
            union sigval value = { .sival_int = i };
            struct timespec nap = { 0, 50 * 1000 };
            sigqueue(target->pid, SIGRTMIN, value);
            nanosleep(&nap, NULL);
        }
        _exit(0);
    }
    while (waitpid(sender, NULL, WNOHANG) == 0) {
        g_assert_cmpint(call_ok(target->pid, SYS_getpid, 0, 0), ==, target->pid);
    }
    target_assert_progress(target, 2);
    g_assert_cmpuint(target->value, ==, (guint64)count);
    g_assert_cmpuint(target->failures, ==, 0);
}

static void test_stopped_process_stays_stopped(void)
{
    g_autoptr(Target) target = target_start(loop_registers);

    target_assert_progress(target, 1);
    kill(target->pid, SIGSTOP);
    wait_for_state(target->pid, 'T');
    for (guint i = 0; i < 50; i++) {
        g_assert_cmpint(call_ok(target->pid, SYS_getpid, 0, 0), ==, target->pid);
        wait_for_state(target->pid, 'T');
    }
    guint64 before = target->progress;
    g_usleep(20000);
    g_assert_cmpuint(target->progress, ==, before);
    kill(target->pid, SIGCONT);
    target_assert_progress(target, 10);
    g_assert_cmpuint(target->failures, ==, 0);
}

/* A SIGSTOP that comes in the middle of a call stops the process after it. */
static void test_stop_during_a_call_is_kept(void)
{
    g_autoptr(Target) target = target_start(loop_registers);

    for (guint i = 0; i < 200; i++) {
        pid_t stopper = fork();
        if (stopper == 0) {
            struct timespec nap = { 0, (long)(i * 1000) };
            nanosleep(&nap, NULL);
            kill(target->pid, SIGSTOP);
            _exit(0);
        }
        while (waitpid(stopper, NULL, WNOHANG) == 0) {
            g_assert_cmpint(call_ok(target->pid, SYS_getpid, 0, 0), ==, target->pid);
        }
        wait_for_state(target->pid, 'T');
        kill(target->pid, SIGCONT);
        target_assert_progress(target, 1);
    }
    g_assert_cmpuint(target->failures, ==, 0);
}

static void test_descriptor_is_taken_and_closed_there(void)
{
    g_autoptr(Target) target = target_start(loop_sleep);
    g_autoptr(GError) error = NULL;
    RemoteResult result;
    guint64 value;

    target_assert_progress(target, 1);
    guint before = count_descriptors(target->pid);
    guint before_here = count_descriptors(getpid());
    for (guint i = 0; i < 20; i++) {
        try_call(target->pid, SYS_eventfd2, 7, EFD_CLOEXEC, TRUE, &result, &error);
        g_assert_no_error(error);
        g_assert_cmpint(result.taken_fd, >=, 0);
        g_assert_cmpint(fcntl(result.taken_fd, F_GETFD), ==, FD_CLOEXEC);
        g_assert_cmpint(read(result.taken_fd, &value, sizeof(value)), ==, sizeof(value));
        g_assert_cmpuint(value, ==, 7);
        close(result.taken_fd);
    }
    g_assert_cmpuint(count_descriptors(target->pid), ==, before);
    g_assert_cmpuint(count_descriptors(getpid()), ==, before_here);
    /* A failed call has no descriptor. */
    try_call(target->pid, SYS_eventfd2, 7, 0xbad, TRUE, &result, &error);
    g_assert_no_error(error);
    g_assert_cmpint(result.value, ==, -EINVAL);
    g_assert_cmpint(result.taken_fd, ==, -1);
}

/* Never returns: jumps to "jmp ." in a 32-bit code segment. */
static void loop_32_bit(Target *target)
{
    unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

    code[0] = 0xeb;
    code[1] = 0xfe;
    target->value = 1;
    asm volatile("pushq $0x23\n pushq %0\n lretq\n" : : "r"(code) : "memory");
}

static void test_32_bit_code_is_refused(void)
{
    g_autoptr(Target) target = target_start(loop_32_bit);
    g_autoptr(GError) error = NULL;
    RemoteResult result;

    while (target->value == 0) {
        g_usleep(500);
    }
    g_usleep(20000);
    g_assert_cmpint(waitpid(target->pid, NULL, WNOHANG), ==, 0);
    try_call(target->pid, SYS_getpid, 0, 0, FALSE, &result, &error);
    g_assert_error(error, SF_ERROR, SF_ERROR_UNSUPPORTED);
    g_assert_nonnull(strstr(error->message, "32-bit"));
    g_assert_cmpint(waitpid(target->pid, NULL, WNOHANG), ==, 0);
    g_assert_cmpint(read_state(target->pid), ==, 'R');
}

static void test_other_tracer_is_named(void)
{
    g_autoptr(Target) target = target_start(loop_sleep);
    g_autoptr(GError) error = NULL;
    RemoteResult result;
    int ready[2];
    char byte;

    g_assert_cmpint(pipe(ready), ==, 0);
    pid_t tracer = fork();
    if (tracer == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        prctl(PR_SET_NAME, "other-tracer");
        _exit(ptrace(PTRACE_SEIZE, target->pid, NULL, NULL) < 0 || write(ready[1], "x", 1) != 1 ||
              pause() < 0);
    }
    g_assert_cmpint(read(ready[0], &byte, 1), ==, 1);
    try_call(target->pid, SYS_getpid, 0, 0, FALSE, &result, &error);
    g_assert_error(error, SF_ERROR, SF_ERROR_PERMISSION);
    g_autofree char *who = g_strdup_printf("%d (other-tracer)", (int)tracer);
    g_assert_nonnull(strstr(error->message, who));
    kill(tracer, SIGKILL);
    waitpid(tracer, NULL, 0);
    close(ready[0]);
    close(ready[1]);
    g_assert_cmpint(call_ok(target->pid, SYS_getpid, 0, 0), ==, target->pid);
}

static void test_ended_process(void)
{
    g_autoptr(GError) error = NULL;
    RemoteResult result;
    pid_t pid = fork();

    if (pid == 0) {
        _exit(0);
    }
    wait_for_state(pid, 'Z');
    g_assert_false(try_call(pid, SYS_getpid, 0, 0, FALSE, &result, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_VM_GONE);
    g_clear_error(&error);
    waitpid(pid, NULL, 0);
    g_assert_false(try_call(pid, SYS_getpid, 0, 0, FALSE, &result, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_VM_GONE);
}

static void test_killed_during_the_call(void)
{
    for (guint i = 0; i < 100; i++) {
        g_autoptr(Target) target = target_start(loop_registers);
        g_autoptr(GError) error = NULL;
        RemoteResult result = { 0 };
        pid_t killer = fork();
        if (killer == 0) {
            struct timespec nap = { 0, (long)(i * 20000) };
            nanosleep(&nap, NULL);
            kill(target->pid, SIGKILL);
            _exit(0);
        }
        while (try_call(target->pid, SYS_getpid, 0, 0, FALSE, &result, &error)) {
            g_assert_cmpint(result.value, ==, target->pid);
        }
        g_assert_error(error, SF_ERROR, SF_ERROR_VM_GONE);
        waitpid(killer, NULL, 0);
    }
}

static void test_thread_that_does_not_stop(void)
{
    g_autoptr(Target) target = target_start(target_loop_uninterruptible);
    g_autoptr(GError) error = NULL;
    RemoteCall call = { .number = SYS_getpid, .timeout_ms = 200 };
    RemoteResult result;

    wait_for_state(target->pid, 'D');
    RemoteThread *thread = remote_thread_new(target->pid, &error);
    g_assert_no_error(error);
    g_assert_false(remote_thread_call(thread, &call, &result, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_FAILED);
    g_assert_nonnull(strstr(error->message, "did not stop"));
    g_assert_nonnull(strstr(error->message, "D ("));
    target->value = 1;
    remote_thread_free(thread);
    target_assert_reaches(target, 1);
}

/* A call that never ends is broken off, and the thread goes on as if nothing had been. */
static void test_call_that_does_not_return(void)
{
    g_autoptr(Target) target = target_start(loop_sleep);
    g_autoptr(GError) error = NULL;
    RemoteCall call = { .number = SYS_pause, .timeout_ms = 100 };
    RemoteResult result;

    RemoteThread *thread = remote_thread_new(target->pid, &error);
    g_assert_no_error(error);
    g_assert_false(remote_thread_call(thread, &call, &result, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_FAILED);
    remote_thread_free(thread);
    target_assert_progress(target, 2);
    g_assert_cmpuint(target->failures, ==, 0);
}

static void install_filter(guint32 action)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_eventfd2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { G_N_ELEMENTS(filter), filter };

    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) {
        _exit(1);
    }
}

static void count_sigsys(int signal, siginfo_t *info, void *context)
{
    handler_target->value++;
}

/* After the first round the handler must still be there, and must have been called only by us. */
static void loop_trapping_filter(Target *target)
{
    struct sigaction action = { .sa_sigaction = count_sigsys, .sa_flags = SA_SIGINFO };

    if (target->progress == 0) {
        handler_target = target;
        sigaction(SIGSYS, &action, NULL);
        install_filter(SECCOMP_RET_TRAP);
    }
    guint64 before = target->value;
    loop_registers(target);
    syscall(SYS_eventfd2, 0, 0);
    target->failures += target->value != before + 1;
}

static void loop_refusing_filter(Target *target)
{
    if (target->progress == 0) {
        install_filter(SECCOMP_RET_ERRNO | EPERM);
    }
    loop_registers(target);
}

static void check_filter(TargetLoop loop, long expected)
{
    g_autoptr(Target) target = target_start(loop);

    target_assert_progress(target, 1);
    for (guint i = 0; i < 50; i++) {
        g_autoptr(GError) error = NULL;
        RemoteResult result;
        try_call(target->pid, SYS_eventfd2, 0, 0, TRUE, &result, &error);
        g_assert_no_error(error);
        g_assert_cmpint(result.value, ==, expected);
        g_assert_cmpint(result.taken_fd, ==, -1);
    }
    target_assert_progress(target, 5);
    g_assert_cmpuint(target->failures, ==, 0);
}

static void test_seccomp_filter_that_refuses(void)
{
    check_filter(loop_refusing_filter, -EPERM);
}

static void test_seccomp_filter_that_traps(void)
{
    check_filter(loop_trapping_filter, -ENOSYS);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/remote-syscall/computing-thread-keeps-its-registers",
                    test_computing_thread_keeps_its_registers);
    g_test_add_func("/remote-syscall/interrupted-sleep-is-restarted",
                    test_interrupted_sleep_is_restarted);
    g_test_add_func("/remote-syscall/interrupted-read-is-restarted",
                    test_interrupted_read_is_restarted);
    g_test_add_func("/remote-syscall/no-signal-is-lost", test_no_signal_is_lost);
    g_test_add_func("/remote-syscall/stopped-process-stays-stopped",
                    test_stopped_process_stays_stopped);
    g_test_add_func("/remote-syscall/stop-during-a-call-is-kept", test_stop_during_a_call_is_kept);
    g_test_add_func("/remote-syscall/descriptor-is-taken-and-closed-there",
                    test_descriptor_is_taken_and_closed_there);
    g_test_add_func("/remote-syscall/32-bit-code-is-refused", test_32_bit_code_is_refused);
    g_test_add_func("/remote-syscall/other-tracer-is-named", test_other_tracer_is_named);
    g_test_add_func("/remote-syscall/ended-process", test_ended_process);
    g_test_add_func("/remote-syscall/killed-during-the-call", test_killed_during_the_call);
    g_test_add_func("/remote-syscall/thread-that-does-not-stop", test_thread_that_does_not_stop);
    g_test_add_func("/remote-syscall/call-that-does-not-return", test_call_that_does_not_return);
    g_test_add_func("/remote-syscall/seccomp-filter-that-refuses",
                    test_seccomp_filter_that_refuses);
    g_test_add_func("/remote-syscall/seccomp-filter-that-traps", test_seccomp_filter_that_traps);
    return g_test_run();
}
