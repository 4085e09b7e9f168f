/*
 * Promise: a QEMU started by "stillframe run" is the QEMU that the command line would have started
 * by itself (process, exit status, signals, terminal, process group), and its monitors are where
 * they were asked for and look the same.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "typist.h"
#include "vm.h"

#define PROMPT "(qemu) "

/* QEMU's arguments without devices; more follow, NULL at the end. By @runner's hands, if given. */
static GPtrArray *make_argv(gboolean by_us, ...)
{
    const char *qemu = g_getenv("STILLFRAME_QEMU");
    GPtrArray *argv = g_ptr_array_new();
    if (by_us) {
        g_ptr_array_add(argv, (gpointer)g_getenv("STILLFRAME_BIN"));
        g_ptr_array_add(argv, (gpointer) "run");
        g_ptr_array_add(argv, (gpointer) "--");
    }
    static const char *const always[] = { "-nodefaults", "-display", "none", "-accel",
                                          "tcg",         "-m",       "32",   NULL };
    g_ptr_array_add(argv, (gpointer)(qemu && *qemu ? qemu : "qemu-system-x86_64"));
    for (guint i = 0; always[i]; i++) {
        g_ptr_array_add(argv, (gpointer)always[i]);
    }
    va_list ap;
    va_start(ap, by_us);
    do {
        g_ptr_array_add(argv, va_arg(ap, char *));
    } while (argv->pdata[argv->len - 1]);
    va_end(ap);
    return argv;
}

/* Starts it with @dir as the place of temporary files. */
static TestTool *start(TestDir *dir, GPtrArray *argv)
{
    g_setenv("TMPDIR", dir->path, TRUE);
    TestTool *tool = test_tool_start_command((const char *const *)argv->pdata);
    g_unsetenv("TMPDIR");
    return tool;
}

/* Who served the monitors ends soon after QEMU and leaves nothing, whatever QEMU died of. */
static void assert_is_clean(TestDir *dir)
{
    guint left = 1;
    for (int i = 0; i < 500 && left > 0; i++) {
        g_autoptr(GDir) names = g_dir_open(dir->path, 0, NULL);
        left = 0;
        for (const char *name; (name = g_dir_read_name(names));) {
            left += g_str_has_prefix(name, "stillframe-run-") || g_str_has_suffix(name, ".sock");
        }
        g_usleep(10000);
    }
    g_assert_cmpuint(left, ==, 0);
}

/* Each of these is typed and what comes back compared. */
static const char *const keys[] = {
    "info status\n",
    "infoo\177 nam\033[De\033[D\033[D\033[C\004x\n",
    "\n",
    "\033[A\033[A\n",
    "unheard of\r",
    "info kvm\001\005 \010\013\n",
    "migrate_set_parameter max-bandwidth 3M\n",
    "info migrate_parameters\n",
    "migrate_set_capability events on\n",
    "info migrate_capabilities\n",
    "info migrate\n",
    "migrate\n",
    "migrate -d nonsense:\n",
    "help migrate\n",
    "stop\n",
    "info status\n",
};

/* What the monitor at @path shows while the keys are typed, until the VM is told to quit. */
static char *record_hmp(const char *path)
{
    Typist *typist = typist_connect(path);
    typist_expect(typist, PROMPT);
    for (guint i = 0; i < G_N_ELEMENTS(keys); i++) {
        typist_type(typist, keys[i]);
        typist_expect(typist, "\r\n");
        typist_expect(typist, PROMPT);
    }
    typist_type(typist, "quit\n");
    typist_expect_end(typist);
    char *heard = g_strdup(typist->heard->str);
    typist_finish(typist);
    return heard;
}

static char *record_run(gboolean by_us, const char *option, const char *more)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "hmp.sock");
    g_auto(GStrv) parts = g_strsplit(option, "%s", -1);
    g_autofree char *value = g_strjoinv(path, parts);
    g_autoptr(GPtrArray) argv = make_argv(by_us, more ? "-mon" : "-monitor", more ? more : value,
                                          more ? "-chardev" : NULL, value, NULL);
    TestTool *tool = start(dir, argv);
    char *heard = record_hmp(path);
    g_autofree char *said = NULL;
    g_assert_cmpint(test_tool_finish(tool, 20000, NULL, &said), ==, 0);
    assert_is_clean(dir);
    return heard;
}

static void compare(const char *option, const char *more)
{
    g_autofree char *own = record_run(FALSE, option, more);
    g_autofree char *ours = record_run(TRUE, option, more);
    gsize same = 0;
    while (own[same] && own[same] == ours[same]) {
        same++;
    }
    if (own[same] != ours[same]) {
        g_autofree char *left = g_strndup(own + same, 200);
        g_autofree char *right = g_strndup(ours + same, 200);
        g_autofree char *left_shown = g_strescape(left, NULL);
        g_autofree char *right_shown = g_strescape(right, NULL);
        g_error("from byte %zu on QEMU shows:\n%s\nwe show:\n%s", same, left_shown, right_shown);
    }
}

static void test_same_bytes(void)
{
    compare("unix:%s,server=on,wait=off", NULL);
    compare("socket,id=c,path=%s,server=on,wait=off", "chardev=c,mode=readline");
}

/* The exit status and standard error of both. */
static void compare_ends(const char *const *options, int signal_number)
{
    int status[2];
    char *said[2];
    for (int by_us = 0; by_us < 2; by_us++) {
        g_autoptr(TestDir) dir = test_dir_new();
        g_autofree char *path = test_dir_file(dir, "hmp.sock");
        g_autofree char *device = g_strdup_printf("unix:%s,server=on,wait=off", path);
        g_autoptr(GPtrArray) argv = make_argv(by_us, "-monitor", device, NULL);
        g_ptr_array_set_size(argv, (int)argv->len - 1);
        for (guint i = 0; options[i]; i++) {
            g_ptr_array_add(argv, (gpointer)options[i]);
        }
        g_ptr_array_add(argv, NULL);
        TestTool *tool = start(dir, argv);
        if (signal_number) {
            Typist *typist = typist_connect(path);
            typist_expect(typist, PROMPT);
            /* The process that was started, as with QEMU itself. */
            kill(test_tool_get_pid(tool), signal_number);
            typist_expect_end(typist);
            typist_finish(typist);
        }
        status[by_us] = test_tool_finish(tool, 20000, NULL, &said[by_us]);
        if (by_us) {
            assert_is_clean(dir);
        }
        g_strdelimit(said[by_us], "0123456789", 'N'); /* "from pid N" */
    }
    g_assert_cmpint(status[0], ==, status[1]);
    g_autofree char *own = g_strndup(said[0], strcspn(said[0], "("));
    g_assert_true(g_str_has_prefix(said[1], own));
    g_free(said[0]);
    g_free(said[1]);
}

static void test_exit_status(void)
{
    static const char *const none[] = { NULL };
    static const char *const wrong[] = { "-machine", "unheard-of", NULL };
    compare_ends(wrong, 0);
    compare_ends(none, SIGTERM);
    compare_ends(none, SIGINT);
    compare_ends(none, SIGKILL);
}

/* On a terminal: same process, its group in the foreground, Ctrl-C, and modes put right. */
static void test_terminal(void)
{
    for (int by_us = 0; by_us < 2; by_us++) {
        g_autoptr(TestDir) dir = test_dir_new();
        g_autoptr(GPtrArray) argv = make_argv(by_us, "-monitor", "stdio", NULL);
        g_setenv("TMPDIR", dir->path, TRUE);
        Typist *typist = typist_start((const char *const *)argv->pdata);
        g_unsetenv("TMPDIR");
        typist_expect(typist, PROMPT);
        typist_type(typist, "info name\n");
        typist_expect(typist, PROMPT);
        typist_type(typist, "stop\ninfo status\n");
        typist_expect(typist, "VM status: paused");
        g_autofree char *comm = g_strdup_printf("/proc/%d/comm", (int)typist->pid);
        g_autofree char *name = NULL;
        g_assert_true(g_file_get_contents(comm, &name, NULL, NULL));
        g_assert_true(g_str_has_prefix(name, "qemu-"));
        g_assert_cmpint(getpgid(typist->pid), ==, typist->pid);
        g_assert_cmpint(tcgetpgrp(typist->fd), ==, typist->pid);
        typist_type(typist, "\003");
        typist_expect(typist, "terminating on signal 2");
        g_assert_cmpint(typist_finish(typist), ==, 0);
        assert_is_clean(dir);
    }
}

/* The guest does not begin before the first client has come. */
static void test_wait(void)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "hmp.sock");
    g_autofree char *pid_path = test_dir_file(dir, "pid");
    g_autofree char *device = g_strdup_printf("unix:%s,server=on", path);
    g_autoptr(GPtrArray) argv = make_argv(TRUE, "-monitor", device, "-pidfile", pid_path, NULL);
    TestTool *tool = start(dir, argv);
    g_usleep(500000);
    g_assert_false(g_file_test(pid_path, G_FILE_TEST_EXISTS));
    Typist *typist = typist_connect(path);
    typist_expect(typist, PROMPT);
    g_assert_true(g_file_test(pid_path, G_FILE_TEST_EXISTS));
    typist_type(typist, "quit\n");
    typist_expect_end(typist);
    typist_finish(typist);
    g_assert_cmpint(test_tool_finish(tool, 20000, NULL, NULL), ==, 0);
    assert_is_clean(dir);
}

/* Clients come one after the other; what one said stays with the VM. */
static void test_clients(void)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "hmp.sock");
    g_autofree char *device = g_strdup_printf("unix:%s,server=on,wait=off", path);
    g_autoptr(GPtrArray) argv = make_argv(TRUE, "-monitor", device, NULL);
    TestTool *tool = start(dir, argv);
    for (int i = 0; i < 3; i++) {
        Typist *typist = typist_connect(path);
        typist_expect(typist, PROMPT);
        typist_type(typist, i == 0 ? "stop\n" : "info status\n");
        typist_expect(typist, i == 0 ? PROMPT : "VM status: paused");
        typist_type(typist, "half a li");
        typist_finish(typist);
    }
    Typist *last = typist_connect(path);
    typist_expect(last, PROMPT);
    typist_type(last, "quit\n");
    typist_expect_end(last);
    typist_finish(last);
    g_assert_cmpint(test_tool_finish(tool, 20000, NULL, NULL), ==, 0);
}

/* QEMU's daemon outlives the process that was started, and so do its monitors. */
static void test_daemon(void)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "hmp.sock");
    g_autofree char *device = g_strdup_printf("unix:%s,server=on,wait=off", path);
    g_autoptr(GPtrArray) argv = make_argv(TRUE, "-daemonize", "-monitor", device, NULL);
    TestTool *tool = start(dir, argv);
    g_assert_cmpint(test_tool_finish(tool, 20000, NULL, NULL), ==, 0);
    g_usleep(300000);
    for (int i = 0; i < 2; i++) {
        Typist *typist = typist_connect(path);
        typist_expect(typist, PROMPT);
        typist_type(typist, i == 0 ? "info status\n" : "quit\n");
        if (i == 0) {
            typist_expect(typist, "VM status: running");
        } else {
            typist_expect_end(typist);
        }
        typist_finish(typist);
    }
    assert_is_clean(dir);
}

/* Snapshots by each kind of monitor: HMP on a socket, QMP on another, of one VM. */
static void test_snapshot(void)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *hmp = test_dir_file(dir, "hmp.sock");
    g_autofree char *qmp = test_dir_file(dir, "qmp.sock");
    g_autofree char *image = test_dir_file(dir, "image");
    g_autofree char *hmp_device = g_strdup_printf("unix:%s,server=on,wait=off", hmp);
    g_autofree char *qmp_device = g_strdup_printf("unix:%s,server=on,wait=off", qmp);
    g_autofree char *line =
        g_strdup_printf("migrate_set_capability background-snapshot on\nmigrate file:%s\n", image);
    g_autoptr(GPtrArray) argv = make_argv(TRUE, "-monitor", hmp_device, "-qmp", qmp_device, NULL);
    TestTool *tool = start(dir, argv);
    Typist *typist = typist_connect(hmp);
    typist_expect(typist, PROMPT);
    typist_type(typist, line);
    typist_expect(typist, "migrate file:");
    typist_type(typist, "info migrate\n");
    typist_expect(typist, "Migration status: completed");
    g_assert_true(g_file_test(image, G_FILE_TEST_EXISTS));
    g_assert_cmpint(g_unlink(image), ==, 0);

    g_autoptr(GError) error = NULL;
    g_autoptr(QmpClient) client = qmp_client_open(qmp, 10000, &error);
    g_assert_no_error(error);
    JsonObject *arguments = json_object_new();
    g_autofree char *uri = g_strdup_printf("file:%s", image);
    json_object_set_string_member(arguments, "uri", uri);
    json_node_unref(qmp_client_execute(client, "migrate", arguments, &error));
    g_assert_no_error(error);
    for (int i = 0; i < 1000 && !g_file_test(image, G_FILE_TEST_EXISTS); i++) {
        g_usleep(10000);
    }
    g_autoptr(JsonNode) info = qmp_client_execute(client, "query-migrate", NULL, &error);
    g_assert_no_error(error);
    g_assert_nonnull(json_object_get_member(json_node_get_object(info), "stillframe"));
    g_assert_true(g_file_test(image, G_FILE_TEST_EXISTS));
    typist_type(typist, "quit\n");
    typist_expect_end(typist);
    typist_finish(typist);
    g_assert_cmpint(test_tool_finish(tool, 20000, NULL, NULL), ==, 0);
    assert_is_clean(dir);
}

/* ---- QMP, at standard input and output and at a TCP port ---- */

/* What a client of the plain kind says, and the last thing that it hears of each. */
static const struct {
    const char *say;
    const char *hear;
} messages[] = {
    { "{'execute': 'query-status'}\n", "CommandNotFound" }, /* before the negotiation */
    { "{'execute': 'qmp_capabilities'}\n", "\"return\"" },
    { "{'execute': 'query-status', 'id': 1}\n", "\"id\": 1" },
    { "{'execute': 'unheard-of', 'id': {'a': [2]}}\n", "CommandNotFound" },
    { "{'execute': 'human-monitor-command', 'arguments': {'command-line': 'info kvm'}}\r\n",
      "kvm support" },
    { "{'execute': 'query-migrate'} ", "\"return\"" },
    { "{'execute': 'stop'}{'execute': 'query-status'}\n", "\"paused\"" },
    { "{'execute': ]\n", "\"error\"" },
    { "{'execute': 'query-version', 'id': null}\n", "\"id\": null" },
};

static void talk_qmp(Typist *typist)
{
    typist_expect(typist, "\"QMP\"");
    typist_expect(typist, "\n");
    for (guint i = 0; i < G_N_ELEMENTS(messages); i++) {
        typist_type(typist, messages[i].say);
        typist_expect(typist, messages[i].hear);
        typist_expect(typist, "\n");
    }
}

/*
 * Everything so far, without times; then up to the end. What comes last is not always the same:
 * QEMU 7.2 itself may end before the answer to "quit" is out, or reset the connection.
 */
static char *hear_to_the_end(Typist *typist)
{
    g_autoptr(GRegex) times = g_regex_new("\"(seconds|microseconds)\": [0-9]+", 0, 0, NULL);
    g_autofree char *so_far = g_strndup(typist->heard->str, typist->read_to);
    typist_expect_end(typist);
    g_assert_nonnull(strstr(typist->heard->str + typist->read_to, "\"SHUTDOWN\""));
    return g_regex_replace(times, so_far, -1, 0, "\"\\1\": 0", 0, NULL);
}

/* The conversation and the exit status. Ended by @signal_number, or by "quit" where it is 0. */
static char *record_stdio(gboolean by_us, int signal_number, gboolean closes_input)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autoptr(GPtrArray) argv = make_argv(by_us, "-qmp", "stdio", NULL);
    g_setenv("TMPDIR", dir->path, TRUE);
    Typist *typist = typist_start_without_terminal((const char *const *)argv->pdata);
    g_unsetenv("TMPDIR");
    talk_qmp(typist);
    if (closes_input) {
        typist_type_end(typist);
        g_usleep(300000); /* nothing happens */
        g_assert_cmpint(kill(typist->pid, 0), ==, 0);
    }
    if (signal_number) {
        kill(typist->pid, signal_number);
    } else {
        typist_type(typist, "{'execute': 'quit'}\n");
    }
    g_autofree char *heard = hear_to_the_end(typist);
    int status = typist_finish(typist);
    if (by_us) {
        assert_is_clean(dir);
    }
    return g_strdup_printf("%sexit status %d\n", heard, status);
}

static void compare_stdio(int signal_number, gboolean closes_input)
{
    g_autofree char *own = record_stdio(FALSE, signal_number, closes_input);
    g_autofree char *ours = record_stdio(TRUE, signal_number, closes_input);
    g_assert_cmpstr(ours, ==, own);
}

static void test_qmp_stdio(void)
{
    compare_stdio(0, FALSE);
    compare_stdio(SIGTERM, FALSE);
    compare_stdio(SIGINT, FALSE);
    compare_stdio(SIGTERM, TRUE);
}

static guint16 find_free_port(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    g_assert_no_errno(bind(fd, (struct sockaddr *)&address, length));
    g_assert_no_errno(getsockname(fd, (struct sockaddr *)&address, &length));
    close(fd);
    return ntohs(address.sin_port);
}

/* Two clients, the second one of which says "quit". */
static char *record_tcp(gboolean by_us)
{
    g_autoptr(TestDir) dir = test_dir_new();
    guint16 port = find_free_port();
    g_autofree char *device = g_strdup_printf("tcp:127.0.0.1:%u,server=on,wait=off", port);
    g_autoptr(GPtrArray) argv = make_argv(by_us, "-qmp", device, NULL);
    TestTool *tool = start(dir, argv);
    Typist *first = typist_connect_tcp(port);
    talk_qmp(first);
    typist_finish(first);
    Typist *second = typist_connect_tcp(port);
    talk_qmp(second);
    typist_type(second, "{'execute': 'quit'}\n");
    g_autofree char *heard = hear_to_the_end(second);
    typist_finish(second);
    int status = test_tool_finish(tool, 20000, NULL, NULL);
    if (by_us) {
        assert_is_clean(dir);
    }
    return g_strdup_printf("%sexit status %d\n", heard, status);
}

static void test_qmp_tcp(void)
{
    g_autofree char *own = record_tcp(FALSE);
    g_autofree char *ours = record_tcp(TRUE);
    g_assert_cmpstr(ours, ==, own);
}

/* A port that somebody has: no QEMU is started. */
static void test_busy_port(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof(address);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *pid_path = test_dir_file(dir, "pid");
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_no_errno(bind(fd, (struct sockaddr *)&address, length));
    g_assert_no_errno(listen(fd, 1));
    g_assert_no_errno(getsockname(fd, (struct sockaddr *)&address, &length));
    g_autofree char *device =
        g_strdup_printf("tcp:127.0.0.1:%u,server=on,wait=off", ntohs(address.sin_port));
    g_autoptr(GPtrArray) argv = make_argv(TRUE, "-qmp", device, "-pidfile", pid_path, NULL);
    g_autofree char *said = NULL;
    g_assert_cmpint(test_tool_finish(start(dir, argv), 20000, NULL, &said), ==, 1);
    g_assert_nonnull(strstr(said, "cannot listen on tcp:127.0.0.1:"));
    g_assert_false(g_file_test(pid_path, G_FILE_TEST_EXISTS));
    assert_is_clean(dir);
    close(fd);
}

/* At a terminal, which shows what is typed and edits lines; and Ctrl-C. */
static char *record_terminal(gboolean by_us)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autoptr(GPtrArray) argv = make_argv(by_us, "-qmp", "stdio", NULL);
    g_setenv("TMPDIR", dir->path, TRUE);
    Typist *typist = typist_start((const char *const *)argv->pdata);
    g_unsetenv("TMPDIR");
    typist_expect(typist, "\"QMP\"");
    typist_expect(typist, "\n");
    typist_type(typist, "{'execute': 'qmp_capabilitiex\177s'}\n");
    typist_expect(typist, "{\"return\": {}}");
    typist_expect(typist, "\n");
    typist_type(typist, "{'execute': 'query-kvm'}\n");
    typist_expect(typist, "\"present\"");
    typist_expect(typist, "\n");
    char *heard = g_strndup(typist->heard->str, typist->read_to);
    typist_type(typist, "\003");
    typist_expect_end(typist);
    g_assert_nonnull(strstr(typist->heard->str, "terminating on signal 2"));
    g_assert_cmpint(typist_finish(typist), ==, 0);
    assert_is_clean(dir);
    return heard;
}

static void test_qmp_terminal(void)
{
    g_autofree char *own = record_terminal(FALSE);
    g_autofree char *ours = record_terminal(TRUE);
    g_assert_cmpstr(ours, ==, own);
}

/* An exit status that the machine chooses, here by the port of isa-debug-exit: 2 * 3 + 1. */
static void test_status_of_the_machine(void)
{
    for (int by_us = 0; by_us < 2; by_us++) {
        g_autoptr(TestDir) dir = test_dir_new();
        g_autofree char *path = test_dir_file(dir, "hmp.sock");
        g_autofree char *device = g_strdup_printf("unix:%s,server=on,wait=off", path);
        g_autoptr(GPtrArray) argv =
            make_argv(by_us, "-monitor", device, "-device", "isa-debug-exit", NULL);
        TestTool *tool = start(dir, argv);
        Typist *typist = typist_connect(path);
        typist_expect(typist, PROMPT);
        typist_type(typist, "o /b 0x501 3\n");
        typist_expect_end(typist);
        typist_finish(typist);
        g_assert_cmpint(test_tool_finish(tool, 20000, NULL, NULL), ==, 7);
        if (by_us) {
            assert_is_clean(dir);
        }
    }
}

/* Nothing for us to do, and a program that is not there. */
static void test_usage(void)
{
    g_autofree char *said = NULL, *plain = NULL, *missing = NULL;
    g_assert_cmpint(test_tool_run(NULL, &said, "run", NULL), ==, 2);
    g_assert_nonnull(strstr(said, "give QEMU's command line"));
    g_assert_cmpint(
        test_tool_run(NULL, &missing, "run", "--", "/nonexistent/qemu", "-monitor", "stdio", NULL),
        ==, 2);
    g_assert_nonnull(strstr(missing, "there is no program /nonexistent/qemu"));
    g_assert_cmpint(
        test_tool_run(NULL, &plain, "run", "--", "qemu-system-x86_64", "-version", NULL), ==, 0);
    g_assert_nonnull(strstr(plain, "no monitor among these arguments can be served"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_take_qemu_argument(argc, argv);
    g_test_add_func("/run/usage", test_usage);
    g_test_add_func("/run/same-bytes", test_same_bytes);
    g_test_add_func("/run/exit-status", test_exit_status);
    g_test_add_func("/run/terminal", test_terminal);
    g_test_add_func("/run/wait", test_wait);
    g_test_add_func("/run/clients", test_clients);
    g_test_add_func("/run/daemon", test_daemon);
    g_test_add_func("/run/snapshot", test_snapshot);
    g_test_add_func("/run/qmp/stdio", test_qmp_stdio);
    g_test_add_func("/run/qmp/tcp", test_qmp_tcp);
    g_test_add_func("/run/qmp/busy-port", test_busy_port);
    g_test_add_func("/run/qmp/terminal", test_qmp_terminal);
    g_test_add_func("/run/status-of-the-machine", test_status_of_the_machine);
    return g_test_run();
}
