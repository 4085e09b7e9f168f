/*
 * Attaching to a real QEMU: through every door, for every user who may; the guest does not notice;
 * an engine that is killed at any moment leaves the VM running and whole.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "attach/remote-syscall.h"
#include "attach/userfaultfd.h"
#include "tests/process.h"
#include "util/autofd.h"
#include "writer-guest.h"

#define NOBODY 65534
/* SeaBIOS's count of timer interrupts, 18.2 a second, from a PIT timer in QEMU's main loop. */
#define BIOS_TICKS_ADDRESS 0x46c
#define BIOS_TICKS_PER_SECOND 18.2

/* ---- The engine, as a process of its own ---- */

typedef struct Engine {
    TestVm *vm;
    uid_t uid;
    const char *device; /* a device node to be mounted over /dev/userfaultfd, or NULL */
} Engine;

/* What it found, in memory shared with the test. */
typedef struct Report {
    gboolean doors_open; /* attach_check_doors() */
    gboolean attached;
    gboolean api_works;
    UffdDoor door;
    int error_code;
    char check_message[1024];
    char message[1024];
} Report;

static Report *report_new(void)
{
    Report *report =
        mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    g_assert_true(report != MAP_FAILED);
    return report;
}

static void report_free(Report *report)
{
    munmap(report, sizeof(*report));
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Report, report_free)

static void become(const Engine *engine)
{
    if (engine->device) {
        g_assert_cmpint(unshare(CLONE_NEWNS), ==, 0);
        g_assert_cmpint(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), ==, 0);
        g_assert_cmpint(mount(engine->device, "/dev/userfaultfd", NULL, MS_BIND, NULL), ==, 0);
    }
    if (engine->uid != 0) {
        g_assert_cmpint(setresgid(engine->uid, engine->uid, engine->uid), ==, 0);
        g_assert_cmpint(setresuid(engine->uid, engine->uid, engine->uid), ==, 0);
    }
}

static gboolean api_works(int fd)
{
    struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP };
    return ioctl(fd, UFFDIO_API, &api) == 0;
}

static void engine_attach(const Engine *engine, Report *report)
{
    g_autoptr(GError) error = NULL, check_error = NULL;
    g_autoptr(QmpClient) qmp =
        qmp_client_open(test_vm_get_socket(engine->vm), QMP_GREETING_TIMEOUT_MS, &error);
    pid_t pid = test_vm_get_pid(engine->vm);

    g_assert_no_error(error);
    report->doors_open = attach_check_doors(pid, qmp_client_can_send_fd(qmp), &check_error);
    if (check_error) {
        g_strlcpy(report->check_message, check_error->message, sizeof(report->check_message));
    }
    g_autoptr(Guardian) guardian = guardian_start(qmp_client_get_fd(qmp), &error);
    g_assert_no_error(error);
    sf_autofd fd = attach_userfaultfd(guardian, pid, qmp, &report->door, &error);
    report->attached = fd >= 0;
    report->api_works = fd >= 0 && api_works(fd);
    if (error) {
        report->error_code = error->code;
        g_strlcpy(report->message, error->message, sizeof(report->message));
    }
}

static void wait_for_child(pid_t child)
{
    int status;
    g_assert_cmpint(TEMP_FAILURE_RETRY(waitpid(child, &status, 0)), ==, child);
    g_assert_cmpint(status, ==, 0);
}

static Report *run_engine(Engine engine)
{
    Report *report = report_new();
    pid_t child = fork();

    if (child == 0) {
        become(&engine);
        engine_attach(&engine, report);
        _exit(0);
    }
    wait_for_child(child);
    return report;
}

/* ---- The VM ---- */

/* A QEMU that runs as nobody, without capabilities: @program in front of it does that. */
static TestVm *start_vm_of_nobody(void)
{
    static const char *const args[] = { "-machine", "q35", "-m", "64", NULL };
    static const char script[] =
        "#!/bin/sh\n"
        "exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all "
        "\"${ATTACH_TEST_QEMU:-qemu-system-x86_64}\" \"$@\"\n";
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *program = test_dir_file(dir, "qemu-as-nobody");
    g_autofree char *before = g_strdup(g_getenv("STILLFRAME_QEMU"));

    g_assert_true(g_file_set_contents(program, script, -1, NULL));
    g_assert_cmpint(chmod(program, 0755), ==, 0);
    if (before) {
        g_setenv("ATTACH_TEST_QEMU", before, TRUE);
    }
    g_setenv("STILLFRAME_QEMU", program, TRUE);
    TestVm *vm = test_vm_new(TEST_VM_DEFAULT, args);
    g_assert_cmpint(chown(test_vm_get_dir(vm)->path, NOBODY, NOBODY), ==, 0);
    test_vm_launch(vm);
    if (before) {
        g_setenv("STILLFRAME_QEMU", before, TRUE);
    } else {
        g_unsetenv("STILLFRAME_QEMU");
    }
    return vm;
}

/* ---- The doors ---- */

static void assert_attached(const Report *report, UffdDoor door)
{
    g_assert_cmpstr(report->message, ==, "");
    g_assert_true(report->attached);
    g_assert_true(report->api_works);
    g_assert_cmpint(report->door, ==, door);
    g_assert_cmpstr(report->check_message, ==, "");
    g_assert_true(report->doors_open);
}

static void test_root_to_root(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    guint before = count_descriptors(test_vm_get_pid(vm));

    g_autoptr(Report) report = run_engine((Engine){ .vm = vm });
    assert_attached(report, UFFD_DOOR_SYSCALL);
    test_vm_assert_descriptors(vm, before);
    writer_guest_assert_goes_on(vm);
}

/* QEMU's own seccomp filter; the device is then tried first (see attach_userfaultfd()). */
static void test_sandboxed_qemu(void)
{
    g_autoptr(TestVm) vm =
        test_vm_start(TEST_VM_DEFAULT, "-machine", "q35", "-m", "64", "-sandbox",
                      "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
                      "-kernel", test_guest_path(), "-append", "ranges=0x1000000+0x400000", NULL);
    guint before = count_descriptors(test_vm_get_pid(vm));

    g_autoptr(Report) report = run_engine((Engine){ .vm = vm });
    assert_attached(report, UFFD_DOOR_DEVICE);
    test_vm_assert_descriptors(vm, before);

    /* And the system call, for a monitor that carries no descriptors. */
    g_autoptr(GError) error = NULL;
    g_autoptr(Guardian) guardian = guardian_start(-1, &error);
    UffdDoor door;
    sf_autofd fd = attach_userfaultfd(guardian, test_vm_get_pid(vm), NULL, &door, &error);
    g_assert_no_error(error);
    g_assert_cmpint(door, ==, UFFD_DOOR_SYSCALL);
    g_assert_true(api_works(fd));
    test_vm_assert_descriptors(vm, before);
    test_vm_assert_status(vm, "running");
}

/* On a VM that its host's administrator has stopped with a signal. */
static void test_stopped_process(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    g_autoptr(GError) error = NULL;
    g_autoptr(Guardian) guardian = guardian_start(-1, &error);
    UffdDoor door;

    kill(test_vm_get_pid(vm), SIGSTOP);
    sf_autofd fd = attach_userfaultfd(guardian, test_vm_get_pid(vm), NULL, &door, &error);
    g_assert_no_error(error);
    g_assert_true(api_works(fd));
    /* The thread needs a moment to stop again by itself, more on a busy machine. */
    gint64 deadline = g_get_monotonic_time() + 5 * G_TIME_SPAN_SECOND;
    while (read_state(test_vm_get_pid(vm)) != 'T') {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        g_usleep(1000);
    }
    kill(test_vm_get_pid(vm), SIGCONT);
    writer_guest_assert_goes_on(vm);
}

static gboolean unprivileged_userfaultfd(void)
{
    g_autofree char *text = NULL;
    return g_file_get_contents("/proc/sys/vm/unprivileged_userfaultfd", &text, NULL, NULL) &&
           text[0] == '1';
}

/* Makes a node of the device that everybody may open; NULL (after a skip) without the device. */
static char *make_device(TestDir *dir)
{
    struct stat info;

    if (stat("/dev/userfaultfd", &info) != 0) {
        g_test_skip("no /dev/userfaultfd (Linux before 6.1)");
        return NULL;
    }
    char *device = test_dir_file(dir, "userfaultfd");
    g_assert_cmpint(mknod(device, S_IFCHR | 0666, info.st_rdev), ==, 0);
    g_assert_cmpint(chmod(device, 0666), ==, 0);
    return device;
}

/* An engine of user @uid that finds everybody's device attaches to a QEMU that runs as nobody. */
static void assert_attaches_to_nobody(uid_t uid)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *device = make_device(dir);
    if (!device) {
        return;
    }
    g_autoptr(TestVm) vm = start_vm_of_nobody();
    guint before = count_descriptors(test_vm_get_pid(vm));

    g_autoptr(Report) report =
        run_engine((Engine){ .vm = vm, .uid = uid, .device = uid ? device : NULL });
    assert_attached(report, unprivileged_userfaultfd() ? UFFD_DOOR_SYSCALL : UFFD_DOOR_DEVICE);
    test_vm_assert_descriptors(vm, before);
    test_vm_assert_status(vm, "running");
}

static void test_root_to_nobody(void)
{
    assert_attaches_to_nobody(0);
}

static void test_nobody_to_nobody_with_device(void)
{
    assert_attaches_to_nobody(NOBODY);
}

static void assert_doors_named(const char *message)
{
    g_assert_nonnull(strstr(message, "1. ptrace access to QEMU: open"));
    g_assert_nonnull(strstr(message, "2. the userfaultfd system call inside QEMU: shut"));
    g_assert_nonnull(strstr(message, "vm.unprivileged_userfaultfd=1"));
    g_assert_nonnull(strstr(message, "3. /dev/userfaultfd, handed to QEMU: shut"));
    g_assert_nonnull(strstr(message, "Permission denied"));
    g_assert_nonnull(strstr(message, "setfacl"));
}

static void test_nobody_to_nobody_without_device(void)
{
    if (unprivileged_userfaultfd() || access("/dev/userfaultfd", F_OK) != 0) {
        g_test_skip("the second door is open to everybody here, or there is no third");
        return;
    }
    g_autoptr(TestVm) vm = start_vm_of_nobody();
    guint before = count_descriptors(test_vm_get_pid(vm));

    g_autoptr(Report) report = run_engine((Engine){ .vm = vm, .uid = NOBODY });
    g_assert_false(report->attached);
    g_assert_cmpint(report->error_code, ==, SF_ERROR_PERMISSION);
    g_test_message("%s", report->message);
    assert_doors_named(report->message);
    g_assert_false(report->doors_open);
    assert_doors_named(report->check_message);
    test_vm_assert_descriptors(vm, before);
    test_vm_assert_status(vm, "running");
}

/* ---- The guest does not notice ---- */

static gint compare_times(gconstpointer a, gconstpointer b)
{
    gint64 left = *(const gint64 *)a, right = *(const gint64 *)b;
    return left < right ? -1 : left > right;
}

static void tell_times(GArray *times, const char *what)
{
    g_array_sort(times, compare_times);
    g_test_message("%s: %u times, QEMU's thread stood still for p50 %" G_GINT64_FORMAT
                   " us, p99 %" G_GINT64_FORMAT " us, max %" G_GINT64_FORMAT " us",
                   what, times->len, g_array_index(times, gint64, times->len / 2),
                   g_array_index(times, gint64, times->len * 99 / 100),
                   g_array_index(times, gint64, times->len - 1));
}

static void attach_many_times(TestVm *vm, guint count, const char *what)
{
    RemoteCall call = { .number = SYS_userfaultfd,
                        .args = { O_CLOEXEC | O_NONBLOCK },
                        .take_fd = TRUE,
                        .timeout_ms = 5000 };
    g_autoptr(GArray) times = g_array_new(FALSE, FALSE, sizeof(gint64));

    for (guint i = 0; i < count; i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(RemoteThread) thread = remote_thread_new(test_vm_get_pid(vm), &error);
        RemoteResult result;
        g_assert_no_error(error);
        remote_thread_call(thread, &call, &result, &error);
        g_assert_no_error(error);
        g_assert_cmpint(result.taken_fd, >=, 0);
        close(result.taken_fd);
        g_array_append_val(times, result.stopped_us);
    }
    tell_times(times, what);
    /* Far above what it takes, far below what anybody would notice. */
    g_assert_cmpint(g_array_index(times, gint64, times->len / 2), <, 5000);
}

static void test_busy_vm_2000_times(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    guint before = count_descriptors(test_vm_get_pid(vm));
    guint64 counter = writer_guest_read_counter(vm);

    attach_many_times(vm, 2000, "busy guest (TCG)");
    g_assert_cmpuint(writer_guest_read_counter(vm), >, counter);
    test_vm_assert_descriptors(vm, before);
    writer_guest_assert_goes_on(vm);
    test_vm_assert_status(vm, "running");
}

static guint32 read_bios_ticks(TestVm *vm)
{
    guint32 ticks;
    test_vm_read_memory(vm, BIOS_TICKS_ADDRESS, &ticks, sizeof(ticks));
    return ticks;
}

/* SeaBIOS finds nothing to boot and waits: QEMU's main thread sleeps in poll between its timers. */
static void test_timers_go_on(void)
{
    g_autoptr(TestVm) vm = test_vm_start(TEST_VM_DEFAULT, "-machine", "pc", "-m", "64", NULL);
    gint64 deadline = g_get_monotonic_time() + 20 * G_TIME_SPAN_SECOND;

    while (read_bios_ticks(vm) < 40) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        g_usleep(20000);
    }
    guint before = count_descriptors(test_vm_get_pid(vm));
    guint32 ticks = read_bios_ticks(vm);
    gint64 start = g_get_monotonic_time();
    for (guint i = 0; i < 20; i++) {
        attach_many_times(vm, 100, "idle guest");
        g_usleep(50000);
    }
    double seconds = (double)(g_get_monotonic_time() - start) / G_TIME_SPAN_SECOND;
    double expected = seconds * BIOS_TICKS_PER_SECOND;
    double got = read_bios_ticks(vm) - ticks;
    g_test_message("%.0f timer ticks in %.2f s, %.1f expected", got, seconds, expected);
    g_assert_cmpfloat(got, >, expected * 0.8 - 2);
    g_assert_cmpfloat(got, <, expected * 1.2 + 2);
    test_vm_assert_descriptors(vm, before);
}

/* ---- The engine is killed ---- */

static void attach_for_ever(TestVm *vm)
{
    g_autoptr(QmpClient) qmp = NULL;

    for (guint i = 0;; i++) {
        g_autoptr(Guardian) guardian = guardian_start(qmp ? qmp_client_get_fd(qmp) : -1, NULL);
        UffdDoor door;
        int fd = attach_userfaultfd(guardian, test_vm_get_pid(vm), qmp, &door, NULL);
        sf_clear_fd(&fd);
        if (i % 3 == 2 && !qmp) {
            qmp = qmp_client_open(test_vm_get_socket(vm), QMP_GREETING_TIMEOUT_MS, NULL);
        }
    }
}

static void kill_after(pid_t child, gint32 max_us)
{
    g_usleep((gulong)g_test_rand_int_range(100, max_us));
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

static void kill_attaching_engines(TestVm *vm)
{
    guint before = count_descriptors(test_vm_get_pid(vm));

    for (guint i = 0; i < test_repeat(100); i++) {
        pid_t child = fork();
        if (child == 0) {
            attach_for_ever(vm);
        }
        kill_after(child, 20000);
        g_assert_true(test_vm_is_alive(vm));
    }
    test_vm_assert_descriptors(vm, before);
    test_vm_assert_status(vm, "running");
}

static void test_engine_killed_while_attaching(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);

    kill_attaching_engines(vm);
    writer_guest_assert_goes_on(vm);
}

static void test_engine_killed_while_attaching_by_device(void)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *device = make_device(dir);
    if (!device) {
        return;
    }
    g_autoptr(TestVm) vm = start_vm_of_nobody();
    kill_attaching_engines(vm);
}

typedef enum {
    DIE_ANYWHERE,
    DIE_IN_A_STRING,
    DIE_IN_AN_OBJECT,
    DIE_BEFORE_THE_NEWLINE,
} DeathPlace;

static void freeze_and_die(TestVm *vm, DeathPlace place)
{
    static const char *const partial[] = {
        [DIE_IN_A_STRING] = "{\"execute\": \"xen-save-dev",
        [DIE_IN_AN_OBJECT] = "{\"execute\": \"cont\", \"arguments\": {",
        [DIE_BEFORE_THE_NEWLINE] = "{\"execute\": \"stop\"}",
    };
    g_autoptr(GError) error = NULL;
    g_autoptr(QmpClient) qmp =
        qmp_client_open(test_vm_get_socket(vm), QMP_GREETING_TIMEOUT_MS, &error);
    g_assert_no_error(error);
    Guardian *guardian = guardian_start(qmp_client_get_fd(qmp), &error);
    g_assert_no_error(error);

    do {
        guardian_set_frozen(guardian, TRUE);
        json_node_unref(qmp_client_execute(qmp, "stop", NULL, &error));
        g_assert_no_error(error);
        if (place != DIE_ANYWHERE) {
            const char *text = partial[place];
            g_assert_cmpint(write(qmp_client_get_fd(qmp), text, strlen(text)), >, 0);
            raise(SIGKILL);
        }
        json_node_unref(qmp_client_execute(qmp, "cont", NULL, &error));
        g_assert_no_error(error);
        guardian_set_frozen(guardian, FALSE);
    } while (TRUE);
}

/* The monitor is free again when the guardian, too, has closed it: then its work is done. */
static void wait_until_monitor_is_free(TestVm *vm)
{
    g_autoptr(GError) error = NULL;
    qmp_client_free(qmp_client_open(test_vm_get_socket(vm), 10000, &error));
    g_assert_no_error(error);
}

static void test_engine_killed_while_frozen(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    guint before = count_descriptors(test_vm_get_pid(vm));
    guint rounds = test_repeat(50);

    for (guint i = 0; i < rounds; i++) {
        DeathPlace place = i < 12 ? 1 + i % 3 : DIE_ANYWHERE;
        gint64 start = g_get_monotonic_time();
        pid_t child = fork();
        if (child == 0) {
            dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
            freeze_and_die(vm, place);
        }
        if (place == DIE_ANYWHERE) {
            kill_after(child, 30000);
        } else {
            waitpid(child, NULL, 0);
        }
        wait_until_monitor_is_free(vm);
        g_autofree char *status = test_vm_query_status(vm);
        g_assert_cmpstr(status, ==, "running");
        g_assert_cmpint(g_get_monotonic_time() - start, <, 3 * G_TIME_SPAN_SECOND);
    }
    writer_guest_assert_goes_on(vm);
    test_vm_assert_descriptors(vm, before);
}

/* An engine that dies without having frozen the VM leaves a paused one paused. */
static void test_paused_vm_stays_paused(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);

    test_vm_qmp_void(vm, "stop", NULL);
    pid_t child = fork();
    if (child == 0) {
        g_autoptr(GError) error = NULL;
        g_autoptr(QmpClient) qmp =
            qmp_client_open(test_vm_get_socket(vm), QMP_GREETING_TIMEOUT_MS, &error);
        g_assert_no_error(error);
        g_assert_nonnull(guardian_start(qmp_client_get_fd(qmp), &error));
        raise(SIGKILL);
    }
    waitpid(child, NULL, 0);
    wait_until_monitor_is_free(vm);
    g_autofree char *status = test_vm_query_status(vm);
    g_assert_cmpstr(status, ==, "paused");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (geteuid() != 0) {
        test_skip_all("attaching as several users needs root");
    }
    g_test_add_func("/attach/root-to-root", test_root_to_root);
    g_test_add_func("/attach/sandboxed-qemu", test_sandboxed_qemu);
    g_test_add_func("/attach/stopped-process", test_stopped_process);
    g_test_add_func("/attach/root-to-nobody", test_root_to_nobody);
    g_test_add_func("/attach/nobody-to-nobody-with-device", test_nobody_to_nobody_with_device);
    g_test_add_func("/attach/nobody-to-nobody-without-device",
                    test_nobody_to_nobody_without_device);
    g_test_add_func("/attach/busy-vm-2000-times", test_busy_vm_2000_times);
    g_test_add_func("/attach/timers-go-on", test_timers_go_on);
    g_test_add_func("/attach/engine-killed-while-attaching", test_engine_killed_while_attaching);
    g_test_add_func("/attach/engine-killed-while-attaching-by-device",
                    test_engine_killed_while_attaching_by_device);
    g_test_add_func("/attach/engine-killed-while-frozen", test_engine_killed_while_frozen);
    g_test_add_func("/attach/paused-vm-stays-paused", test_paused_vm_stays_paused);
    return g_test_run();
}
