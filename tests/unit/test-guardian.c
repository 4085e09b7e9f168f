/*
 * The guardian does what must be finished, holds nothing that is not its own, and ends with the
 * engine. Resuming a real VM is in tests/qtest/test-attach.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "attach/guardian.h"
#include "target.h"
#include "tests/faults.h"
#include "util/autofd.h"

static const gulong no_args[6];

/* A loop that mostly sleeps. */
static void loop_nap(Target *target)
{
    struct timespec nap = { 0, 2 * 1000 * 1000 };
    target->failures += nanosleep(&nap, NULL) != 0;
}

/* The children of this process that bear the guardian's name. */
static pid_t find_guardian(void)
{
    g_autofree char *path =
        g_strdup_printf("/proc/self/task/%d/children", (int)syscall(SYS_gettid));
    g_autofree char *text = NULL;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_auto(GStrv) pids = g_strsplit(g_strstrip(text), " ", -1);
    for (char **pid = pids; *pid; pid++) {
        g_autofree char *comm_path = g_strdup_printf("/proc/%s/comm", *pid);
        g_autofree char *comm = NULL;
        if (g_file_get_contents(comm_path, &comm, NULL, NULL) &&
            g_str_equal(comm, "sf-guardian\n")) {
            return (pid_t)g_ascii_strtoll(*pid, NULL, 10);
        }
    }
    return 0;
}

static Guardian *start(int qmp_fd)
{
    g_autoptr(GError) error = NULL;
    Guardian *guardian = guardian_start(qmp_fd, &error);
    g_assert_no_error(error);
    return guardian;
}

static void assert_getpid(Guardian *guardian, Target *target)
{
    g_autoptr(GError) error = NULL;
    long result = 0;

    guardian_remote_syscall(guardian, target->pid, SYS_getpid, no_args, FALSE, &result, NULL,
                            &error);
    g_assert_no_error(error);
    g_assert_cmpint(result, ==, target->pid);
}

static void test_runs_calls_and_takes_descriptors(void)
{
    g_autoptr(Target) target = target_start(loop_nap);
    g_autoptr(Guardian) guardian = start(-1);
    guint before = count_descriptors(target->pid);
    guint before_here = count_descriptors(getpid());

    for (guint64 i = 1; i <= 100; i++) {
        const gulong args[6] = { i };
        g_autoptr(GError) error = NULL;
        sf_autofd fd = -1;
        guint64 value;
        long result;
        guardian_remote_syscall(guardian, target->pid, SYS_eventfd2, args, TRUE, &result, &fd,
                                &error);
        g_assert_no_error(error);
        g_assert_cmpint(fcntl(fd, F_GETFD), ==, FD_CLOEXEC);
        g_assert_cmpint(read(fd, &value, sizeof(value)), ==, sizeof(value));
        g_assert_cmpuint(value, ==, i);
    }
    assert_getpid(guardian, target);
    g_assert_cmpuint(count_descriptors(target->pid), ==, before);
    g_assert_cmpuint(count_descriptors(getpid()), ==, before_here);
    target_assert_progress(target, 2);
    g_assert_cmpuint(target->failures, ==, 0);
}

/* When the answer is there, the engine's copy of the descriptor is the only one. */
static void test_keeps_no_copy_of_a_descriptor(void)
{
    g_autoptr(Target) target = target_start(loop_nap);
    g_autoptr(Guardian) guardian = start(-1);
    g_autoptr(GError) error = NULL;
    const gulong args[6] = { AF_UNIX, SOCK_STREAM };
    sf_autofd fd = -1;
    long result;

    guardian_remote_syscall(guardian, target->pid, SYS_socket, args, TRUE, &result, &fd, &error);
    g_assert_no_error(error);
    g_usleep(20000); /* the time between its sendmsg() and its close() */
    g_assert_cmpuint(count_descriptors(find_guardian()), ==, 4);
}

static void test_errors_keep_their_kind(void)
{
    g_autoptr(Guardian) guardian = start(-1);
    g_autoptr(GError) error = NULL;
    long result;
    int fd = -1;
    pid_t pid = fork();

    if (pid == 0) {
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    g_assert_false(
        guardian_remote_syscall(guardian, pid, SYS_getpid, no_args, TRUE, &result, &fd, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_VM_GONE);
    g_assert_cmpint(fd, ==, -1);
}

static void test_holds_only_what_it_needs(void)
{
    int monitor[2];
    sf_autofd kept_from_it = open("/dev/null", O_RDONLY);

    g_assert_cmpint(kept_from_it, >=, 0);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, monitor), ==, 0);
    g_autoptr(Guardian) guardian = start(monitor[0]);
    pid_t pid = 0;
    while ((pid = find_guardian()) == 0) {
        g_usleep(500);
    }
    g_usleep(20000);
    /* 0, 1, 2, the engine's socket, the monitor */
    g_assert_cmpuint(count_descriptors(pid), ==, 5);
    g_assert_cmpint(getsid(pid), ==, pid);

    /* The monitor connection ends when both its holders have closed it. */
    struct pollfd peer = { .fd = monitor[1], .events = POLLIN };
    close(monitor[0]);
    g_assert_cmpint(poll(&peer, 1, 50), ==, 0);
    guardian_release_monitor(guardian);
    g_assert_cmpint(poll(&peer, 1, 0), ==, 1);
    g_assert_cmpint(read(monitor[1], &pid, 1), ==, 0);
    close(monitor[1]);
}

static void test_survives_signals_of_the_terminal(void)
{
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE };
    g_autoptr(Target) target = target_start(loop_nap);
    g_autoptr(Guardian) guardian = start(-1);

    assert_getpid(guardian, target);
    for (guint i = 0; i < G_N_ELEMENTS(signals); i++) {
        kill(find_guardian(), signals[i]);
        assert_getpid(guardian, target);
    }
}

static void test_ends_with_the_engine(void)
{
    int monitor[2];
    char byte;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, monitor), ==, 0);
    Guardian *guardian = start(monitor[0]);
    close(monitor[0]);
    /* Nothing to resume: nothing is sent. */
    guardian_set_frozen(guardian, TRUE);
    guardian_set_frozen(guardian, FALSE);
    guardian_stop(guardian);
    g_assert_cmpint(find_guardian(), ==, 0);
    g_assert_cmpint(waitpid(-1, NULL, WNOHANG), ==, -1);
    g_assert_cmpint(errno, ==, ECHILD);
    g_assert_cmpint(read(monitor[1], &byte, 1), ==, 0);
    close(monitor[1]);
    guardian_stop(NULL);
}

/* An engine that could not resume the VM, for whatever reason, leaves that to the guardian. */
static void test_resumes_what_is_frozen(void)
{
    static const char answer[] = "{\"return\": {}, \"id\": \"stillframe-guardian\"}\n";
    int monitor[2];
    char command[256];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, monitor), ==, 0);
    Guardian *guardian = start(monitor[0]);
    close(monitor[0]);
    g_assert_cmpint(write(monitor[1], answer, strlen(answer)), ==, strlen(answer));
    guardian_set_frozen(guardian, TRUE);
    guardian_stop(guardian);
    ssize_t got = read(monitor[1], command, sizeof(command) - 1);
    g_assert_cmpint(got, >, 0);
    command[got] = '\0';
    g_assert_nonnull(strstr(command, "\"execute\": \"cont\""));
    g_assert_cmpint(read(monitor[1], command, 1), ==, 0);
    close(monitor[1]);
}

static void test_guardian_that_was_killed(void)
{
    g_autoptr(Target) target = target_start(loop_nap);
    g_autoptr(Guardian) guardian = start(-1);
    g_autoptr(GError) error = NULL;
    long result;

    assert_getpid(guardian, target);
    kill(find_guardian(), SIGKILL);
    g_assert_false(guardian_remote_syscall(guardian, target->pid, SYS_getpid, no_args, FALSE,
                                           &result, NULL, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_FAILED);
    g_assert_nonnull(strstr(error->message, "guardian"));
}

/* A QEMU thread that does not stop: an error in bounded time, and later calls work again. */
static void test_waits_a_bounded_time(void)
{
    /* In a real build it takes longer than a unit test may. */
    if (!test_need_faults()) {
        return;
    }
    g_autoptr(Target) target = target_start(target_loop_uninterruptible);
    g_autoptr(Guardian) guardian = start(-1);
    g_autoptr(GError) error = NULL;
    long result;

    wait_for_state(target->pid, 'D');
    g_assert_false(guardian_remote_syscall(guardian, target->pid, SYS_getpid, no_args, FALSE,
                                           &result, NULL, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_FAILED);
    g_assert_nonnull(strstr(error->message, "did not stop"));
    target->value = 1;
    target_assert_progress(target, 2);
    assert_getpid(guardian, target);
}

/* The engine dies while the thread's registers are not its own. */
static void test_engine_killed_in_the_middle(void)
{
    g_autoptr(Target) target = target_start(loop_nap);

    target_assert_progress(target, 1);
    guint before = count_descriptors(target->pid);
    for (guint i = 0; i < 100; i++) {
        pid_t engine = fork();
        if (engine == 0) {
            Guardian *guardian = start(-1);
            for (;;) {
                sf_autofd fd = -1;
                long result;
                guardian_remote_syscall(guardian, target->pid, SYS_eventfd2, no_args, TRUE, &result,
                                        &fd, NULL);
            }
        }
        g_usleep((gulong)g_test_rand_int_range(500, 8000));
        kill(engine, SIGKILL);
        waitpid(engine, NULL, 0);
    }
    target_assert_progress(target, 5);
    g_assert_cmpuint(target->failures, ==, 0);
    g_assert_cmpuint(count_descriptors(target->pid), ==, before);
}

int main(int argc, char **argv)
{
    g_setenv("STILLFRAME_FAULTS", "guardian-timeout-ms=700", TRUE);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/guardian/runs-calls-and-takes-descriptors",
                    test_runs_calls_and_takes_descriptors);
    g_test_add_func("/guardian/keeps-no-copy-of-a-descriptor", test_keeps_no_copy_of_a_descriptor);
    g_test_add_func("/guardian/errors-keep-their-kind", test_errors_keep_their_kind);
    g_test_add_func("/guardian/holds-only-what-it-needs", test_holds_only_what_it_needs);
    g_test_add_func("/guardian/survives-signals-of-the-terminal",
                    test_survives_signals_of_the_terminal);
    g_test_add_func("/guardian/ends-with-the-engine", test_ends_with_the_engine);
    g_test_add_func("/guardian/resumes-what-is-frozen", test_resumes_what_is_frozen);
    g_test_add_func("/guardian/guardian-that-was-killed", test_guardian_that_was_killed);
    g_test_add_func("/guardian/waits-a-bounded-time", test_waits_a_bounded_time);
    g_test_add_func("/guardian/engine-killed-in-the-middle", test_engine_killed_in_the_middle);
    return g_test_run();
}
