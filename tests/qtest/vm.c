/*
 * The test harness: one real QEMU each.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/process.h"
#include "util/autofd.h"

#define LAUNCH_TIMEOUT_MS 30000
#define TOOL_TIMEOUT_MS 60000

struct TestVm {
    TestDir *dir;
    GPtrArray *argv;
    char *socket; /* for the program under test */
    char *own_socket;
    QmpClient *qmp;
    pid_t pid;
    gboolean is_child; /* ours to wait for */
    gboolean has_monitor;
};

struct TestTool {
    TestDir *dir;
    pid_t pid;
};

/* ---- Processes ---- */

static int open_output(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC | O_APPEND, 0600);

    g_assert_no_errno(fd);
    return fd;
}

/* Runs @argv; standard output and error go to the two files (@out may be NULL: where errors go). */
static pid_t spawn(char **argv, const char *out, const char *err)
{
    sf_autofd err_fd = open_output(err);
    sf_autofd out_fd = out ? open_output(out) : -1;
    pid_t parent = getpid(), pid = fork();

    g_assert_no_errno(pid);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(127);
        }
        dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
        dup2(out_fd >= 0 ? out_fd : err_fd, STDOUT_FILENO);
        dup2(err_fd, STDERR_FILENO);
        execvp(argv[0], argv);
        dprintf(STDERR_FILENO, "cannot run %s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    return pid;
}

/* Waits for a child's end; FALSE after @timeout_ms. */
static gboolean wait_for_end(pid_t pid, guint timeout_ms, int *status)
{
    gint64 end = g_get_monotonic_time() + (gint64)timeout_ms * 1000;

    for (;;) {
        pid_t got = waitpid(pid, status, WNOHANG);

        if (got == pid) {
            return TRUE;
        }
        g_assert_true(got == 0 || errno == EINTR);
        if (g_get_monotonic_time() > end) {
            return FALSE;
        }
        g_usleep(2000);
    }
}

static char *read_file(const char *path)
{
    char *text = NULL;

    return g_file_get_contents(path, &text, NULL, NULL) ? text : g_strdup("");
}

/* ---- A virtual machine ---- */

static void add_arg(TestVm *vm, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void add_arg(TestVm *vm, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    g_ptr_array_add(vm->argv, g_strdup_vprintf(format, ap));
    va_end(ap);
}

static void add_monitor(TestVm *vm, const char *path)
{
    add_arg(vm, "-qmp");
    add_arg(vm, "unix:%s,server=on,wait=off", path);
}

TestVm *test_vm_new(TestVmFlags flags, const char *const *args)
{
    const char *qemu = g_getenv("STILLFRAME_QEMU");
    TestVm *vm = g_new0(TestVm, 1);

    vm->dir = test_dir_new();
    vm->argv = g_ptr_array_new_with_free_func(g_free);
    vm->socket = test_dir_file(vm->dir, "qmp.sock");
    vm->own_socket = test_dir_file(vm->dir, "harness.sock");
    vm->has_monitor = !(flags & TEST_VM_NO_MONITOR);

    add_arg(vm, "%s", qemu && *qemu ? qemu : "qemu-system-x86_64");
    add_arg(vm, "-display");
    add_arg(vm, "none");
    if (!(flags & TEST_VM_KEEP_DEVICES)) {
        add_arg(vm, "-nodefaults");
    }
    if (!(flags & TEST_VM_NO_ACCEL)) {
        add_arg(vm, "-accel");
        add_arg(vm, "tcg");
    }
    add_arg(vm, "-serial");
    add_arg(vm, "file:%s/serial", vm->dir->path);
    add_arg(vm, "-pidfile");
    add_arg(vm, "%s/qemu.pid", vm->dir->path);
    if (vm->has_monitor) {
        add_monitor(vm, vm->socket);
        add_monitor(vm, vm->own_socket);
    }
    for (; *args; args++) {
        add_arg(vm, "%s", *args);
    }
    g_ptr_array_add(vm->argv, NULL);
    return vm;
}

static void fail_with_stderr(TestVm *vm, const char *what)
{
    g_autofree char *text = test_vm_read_stderr(vm);

    g_error("%s; QEMU said: %s", what, *text ? text : "nothing");
}

/* Connects the harness's own monitor; QEMU listens some time after its start. */
static void connect_monitor(TestVm *vm)
{
    gint64 end = g_get_monotonic_time() + (gint64)LAUNCH_TIMEOUT_MS * 1000;

    while (vm->has_monitor && !vm->qmp) {
        g_autoptr(GError) err = NULL;

        vm->qmp = qmp_client_open(vm->own_socket, LAUNCH_TIMEOUT_MS, &err);
        if (!vm->qmp && !test_vm_is_alive(vm)) {
            fail_with_stderr(vm, "QEMU ended while it started");
        }
        if (!vm->qmp && g_get_monotonic_time() > end) {
            fail_with_stderr(vm, err->message);
        }
        if (!vm->qmp) {
            g_usleep(5000);
        }
    }
}

void test_vm_launch(TestVm *vm)
{
    g_autofree char *err = test_dir_file(vm->dir, "stderr");

    g_assert_cmpint(vm->pid, ==, 0);
    vm->pid = spawn((char **)vm->argv->pdata, NULL, err);
    vm->is_child = TRUE;
    connect_monitor(vm);
}

/* The strings up to the NULL, and the NULL. */
static GPtrArray *collect_args(va_list ap)
{
    GPtrArray *args = g_ptr_array_new();
    char *arg;

    do {
        arg = va_arg(ap, char *);
        g_ptr_array_add(args, arg);
    } while (arg);
    return args;
}

TestVm *test_vm_start(TestVmFlags flags, ...)
{
    va_list ap;

    va_start(ap, flags);
    g_autoptr(GPtrArray) args = collect_args(ap);
    va_end(ap);
    TestVm *vm = test_vm_new(flags, (const char *const *)args->pdata);
    test_vm_launch(vm);
    return vm;
}

static void launch_with_incoming(TestVm *vm, const char *uri)
{
    g_ptr_array_set_size(vm->argv, (gint)vm->argv->len - 1);
    add_arg(vm, "-incoming");
    add_arg(vm, "%s", uri);
    g_ptr_array_add(vm->argv, NULL);
    test_vm_launch(vm);
}

void test_vm_launch_incoming_defer(TestVm *vm)
{
    launch_with_incoming(vm, "defer");
}

void test_vm_launch_incoming(TestVm *vm, const char *uri)
{
    gint64 end;

    launch_with_incoming(vm, uri);

    /* QEMU ends with a message when the stream does not load. */
    end = g_get_monotonic_time() + (gint64)TOOL_TIMEOUT_MS * 1000;
    for (;;) {
        g_autoptr(GError) err = NULL;
        g_autoptr(JsonNode) answer = qmp_client_execute(vm->qmp, "query-status", NULL, &err);

        if (!answer) {
            fail_with_stderr(vm, "QEMU did not load the stream");
        }
        if (!g_str_equal(json_object_get_string_member(json_node_get_object(answer), "status"),
                         "inmigrate")) {
            return;
        }
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(5000);
    }
}

void test_vm_adopt(TestVm *vm)
{
    g_autofree char *path = test_dir_file(vm->dir, "qemu.pid");
    g_autofree char *text = read_file(path);

    vm->pid = (pid_t)g_ascii_strtoll(text, NULL, 10);
    vm->is_child = FALSE; /* it may have been, before it was ended and restored */
    g_assert_cmpint(vm->pid, >, 1);
    connect_monitor(vm);
}

void test_vm_kill(TestVm *vm)
{
    int status;

    g_clear_pointer(&vm->qmp, qmp_client_free);
    if (vm->pid <= 0) {
        return;
    }
    kill(vm->pid, SIGKILL);
    if (vm->is_child) {
        g_assert_true(wait_for_end(vm->pid, LAUNCH_TIMEOUT_MS, &status));
    } else {
        while (test_vm_is_alive(vm)) {
            g_usleep(2000);
        }
    }
    vm->pid = 0;
}

void test_vm_free(TestVm *vm)
{
    if (vm) {
        test_vm_kill(vm);
        test_dir_free(vm->dir);
        g_ptr_array_unref(vm->argv);
        g_free(vm->socket);
        g_free(vm->own_socket);
        g_free(vm);
    }
}

pid_t test_vm_get_pid(TestVm *vm)
{
    return vm->pid;
}

char **test_vm_get_argv(TestVm *vm)
{
    return (char **)vm->argv->pdata;
}

const char *test_vm_get_socket(TestVm *vm)
{
    g_assert_true(vm->has_monitor);
    return vm->socket;
}

TestDir *test_vm_get_dir(TestVm *vm)
{
    return vm->dir;
}

QmpClient *test_vm_get_qmp(TestVm *vm)
{
    return vm->qmp;
}

char *test_vm_read_stderr(TestVm *vm)
{
    g_autofree char *path = test_dir_file(vm->dir, "stderr");

    return read_file(path);
}

gboolean test_vm_is_alive(TestVm *vm)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", (int)vm->pid);
    g_autofree char *stat = read_file(path);
    const char *state = strrchr(stat, ')');

    /* A zombie has ended. */
    return vm->pid > 0 && state && strlen(state) > 2 && state[2] != 'Z' && state[2] != 'X';
}

static JsonNode *execute(TestVm *vm, const char *command, const char *format, va_list ap)
    G_GNUC_PRINTF(3, 0);
static JsonNode *execute(TestVm *vm, const char *command, const char *format, va_list ap)
{
    g_autoptr(GError) err = NULL;
    JsonObject *arguments = NULL;
    JsonNode *answer;

    g_assert_nonnull(vm->qmp);
    if (format) {
        g_autofree char *text = g_strdup_vprintf(format, ap);
        g_autoptr(JsonNode) node = NULL;

        node = json_from_string(g_strdelimit(text, "'", '"'), &err);
        g_assert_no_error(err);
        arguments = json_node_dup_object(node);
    }
    answer = qmp_client_execute(vm->qmp, command, arguments, &err);
    g_assert_no_error(err);
    return answer;
}

JsonNode *test_vm_qmp(TestVm *vm, const char *command, const char *arguments, ...)
{
    JsonNode *answer;
    va_list ap;

    va_start(ap, arguments);
    answer = execute(vm, command, arguments, ap);
    va_end(ap);
    return answer;
}

void test_vm_qmp_void(TestVm *vm, const char *command, const char *arguments, ...)
{
    va_list ap;

    va_start(ap, arguments);
    json_node_unref(execute(vm, command, arguments, ap));
    va_end(ap);
}

char *test_vm_hmp(TestVm *vm, const char *line)
{
    g_autoptr(GError) err = NULL;
    char *text = qmp_client_hmp(vm->qmp, line, &err);

    g_assert_no_error(err);
    return text;
}

char *test_vm_query_status(TestVm *vm)
{
    g_autoptr(JsonNode) answer = test_vm_qmp(vm, "query-status", NULL);

    return g_strdup(json_object_get_string_member(json_node_get_object(answer), "status"));
}

void test_vm_assert_status(TestVm *vm, const char *state)
{
    g_autofree char *status = NULL;

    for (int i = 0; i < 500; i++) {
        g_free(status);
        status = test_vm_query_status(vm);
        if (g_str_equal(status, state)) {
            return;
        }
        g_usleep(10000);
    }
    g_assert_cmpstr(status, ==, state);
}

void test_vm_assert_descriptors(TestVm *vm, guint expected)
{
    gint64 end = g_get_monotonic_time() + 5 * G_TIME_SPAN_SECOND;

    while (count_descriptors(vm->pid) != expected && g_get_monotonic_time() < end) {
        g_usleep(5000);
    }
    g_assert_cmpuint(count_descriptors(vm->pid), ==, expected);
}

char *test_vm_read_serial(TestVm *vm)
{
    g_autofree char *path = test_dir_file(vm->dir, "serial");

    return read_file(path);
}

gboolean test_vm_serial_wait_try(TestVm *vm, gsize from, const char *text, guint timeout_ms)
{
    gint64 end = g_get_monotonic_time() + (gint64)timeout_ms * 1000;

    for (;;) {
        g_autofree char *serial = test_vm_read_serial(vm);

        if (strlen(serial) >= from && strstr(serial + from, text)) {
            return TRUE;
        }
        if (!test_vm_is_alive(vm)) {
            fail_with_stderr(vm, "QEMU ended while its serial port was waited for");
        }
        if (g_get_monotonic_time() > end) {
            return FALSE;
        }
        g_usleep(5000);
    }
}

void test_vm_serial_wait(TestVm *vm, const char *text, guint timeout_ms)
{
    if (!test_vm_serial_wait_try(vm, 0, text, timeout_ms)) {
        g_autofree char *serial = test_vm_read_serial(vm);

        g_error("no \"%s\" on the serial port in %u ms; there is: %s", text, timeout_ms, serial);
    }
}

void test_vm_read_memory(TestVm *vm, guint64 address, gpointer buffer, gsize length)
{
    g_autofree char *line = g_strdup_printf("gpa2hva 0x%" G_GINT64_MODIFIER "x", address);
    g_autofree char *answer = test_vm_hmp(vm, line);
    const char *is = strstr(answer, " is ");
    struct iovec local = { .iov_base = buffer, .iov_len = length }, remote = { .iov_len = length };

    g_assert_nonnull(is);
    remote.iov_base = GSIZE_TO_POINTER(g_ascii_strtoull(is + 4, NULL, 16));
    g_assert_nonnull(remote.iov_base);
    g_assert_cmpint(process_vm_readv(vm->pid, &local, 1, &remote, 1, 0), ==, (gssize)length);
}

/* ---- The program under test ---- */

TestTool *test_tool_start_command(const char *const *argv)
{
    TestTool *tool = g_new0(TestTool, 1);
    g_autofree char *out = NULL, *err = NULL;

    tool->dir = test_dir_new();
    out = test_dir_file(tool->dir, "stdout");
    err = test_dir_file(tool->dir, "stderr");
    tool->pid = spawn((char **)argv, out, err);
    return tool;
}

TestTool *test_tool_start(const char *const *args)
{
    const char *program = g_getenv("STILLFRAME_BIN");
    g_autoptr(GPtrArray) argv = g_ptr_array_new();

    g_assert_nonnull(program);
    g_ptr_array_add(argv, (gpointer)program);
    for (; *args; args++) {
        g_ptr_array_add(argv, (gpointer)*args);
    }
    g_ptr_array_add(argv, NULL);
    return test_tool_start_command((const char *const *)argv->pdata);
}

TestTool *test_tool_start_faulty(const char *faults, const char *const *args)
{
    if (!faults) {
        return test_tool_start(args);
    }
    g_setenv("STILLFRAME_FAULTS", faults, TRUE);
    TestTool *tool = test_tool_start(args);
    g_unsetenv("STILLFRAME_FAULTS");
    return tool;
}

pid_t test_tool_get_pid(TestTool *tool)
{
    return tool->pid;
}

int test_tool_finish(TestTool *tool, guint timeout_ms, char **out, char **err)
{
    g_autofree char *out_path = test_dir_file(tool->dir, "stdout");
    g_autofree char *err_path = test_dir_file(tool->dir, "stderr");
    g_autofree char *said = NULL;
    gboolean ended;
    int status;

    ended = wait_for_end(tool->pid, timeout_ms, &status);
    if (!ended) {
        kill(tool->pid, SIGKILL);
        waitpid(tool->pid, &status, 0);
    }
    said = read_file(err_path);
    if (!ended) {
        g_error("stillframe did not end in %u ms; it said: %s", timeout_ms, said);
    }
    if (out) {
        *out = read_file(out_path);
    }
    if (err) {
        *err = g_steal_pointer(&said);
    }
    test_dir_free(tool->dir);
    g_free(tool);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int test_tool_runv(char **out, char **err, const char *const *args)
{
    return test_tool_finish(test_tool_start(args), TOOL_TIMEOUT_MS, out, err);
}

int test_tool_run(char **out, char **err, ...)
{
    va_list ap;

    va_start(ap, err);
    g_autoptr(GPtrArray) args = collect_args(ap);
    va_end(ap);
    return test_tool_runv(out, err, (const char *const *)args->pdata);
}

/* ---- Deciding what can run here ---- */

void test_skip_all(const char *reason)
{
    printf("1..0 # SKIP %s\n", reason);
    exit(0);
}

void test_take_qemu_argument(int argc, char **argv)
{
    const char *other = g_getenv("STILLFRAME_OTHER_QEMU");
    const char *const question[] = { other, "path", NULL };
    g_autofree char *why = NULL;

    if (argc < 2 || !g_str_equal(argv[1], "other")) {
        return;
    }
    if (!other) {
        test_skip_all("STILLFRAME_OTHER_QEMU is not set");
    }
    if (test_tool_finish(test_tool_start_command(question), TOOL_TIMEOUT_MS, NULL, &why) != 0) {
        test_skip_all(g_strdelimit(g_strchomp(why), "\n", ' '));
    }
    g_setenv("STILLFRAME_QEMU", other, TRUE);
}

gboolean test_have_kvm(char **reason)
{
    sf_autofd fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    sf_autofd machine = -1;

    if (fd < 0) {
        *reason = g_strdup_printf("/dev/kvm does not open: %s", g_strerror(errno));
        return FALSE;
    }
    machine = ioctl(fd, KVM_CREATE_VM, 0);
    if (machine < 0) {
        *reason = g_strdup_printf("/dev/kvm makes no VM: %s", g_strerror(errno));
        return FALSE;
    }
    return TRUE;
}

guint test_repeat(guint otherwise)
{
    const char *text = g_getenv("STILLFRAME_REPEAT");
    guint64 number;

    return text && g_ascii_string_to_unsigned(text, 10, 1, 100000, &number, NULL) ? (guint)number
                                                                                  : otherwise;
}

const char *test_guest_path(void)
{
    const char *path = g_getenv("STILLFRAME_GUEST");

    g_assert_nonnull(path);
    return path;
}
