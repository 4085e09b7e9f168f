/*
 * Finding monitors from a process and the process from a monitor; real QEMUs in all the forms in
 * which a monitor can be given.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "attach/qemu-options.h"
#include "attach/qemu-process.h"
#include "real-qemu.h"
#include "util/autofd.h"

static void test_options(void)
{
    g_autoptr(GHashTable) options =
        qemu_options_parse("a,,b,server,nowait,path=/x,,y=1,mode=control,path=/last", "id");
    g_assert_cmpstr(g_hash_table_lookup(options, "id"), ==, "a,b");
    g_assert_true(qemu_options_get_bool(options, "server"));
    g_assert_false(qemu_options_get_bool(options, "wait"));
    g_assert_false(qemu_options_get_bool(options, "absent"));
    g_assert_cmpstr(g_hash_table_lookup(options, "path"), ==, "/last");
    g_assert_cmpstr(g_hash_table_lookup(options, "mode"), ==, "control");

    g_autoptr(GHashTable) json = qemu_options_parse(
        "{\"id\": \"c\", \"backend\": {\"data\": {\"addr\": {\"type\": \"unix\", \"data\": "
        "{\"path\": \"/p,q\"}}, \"server\": true}, \"type\": \"socket\"}}",
        NULL);
    g_assert_cmpstr(g_hash_table_lookup(json, "id"), ==, "c");
    g_assert_cmpstr(g_hash_table_lookup(json, "type"), ==, "socket");
    g_assert_cmpstr(g_hash_table_lookup(json, "path"), ==, "/p,q");
    g_assert_true(qemu_options_get_bool(json, "server"));

    g_autoptr(GHashTable) broken = qemu_options_parse("{\"id\": ", NULL);
    g_assert_cmpuint(g_hash_table_size(broken), ==, 0);
}

static void test_sizes(void)
{
    static const struct {
        const char *text;
        guint64 size;
    } cases[] = {
        { "512", 512ULL << 20 },
        { "1G", 1ULL << 30 },
        { "1.5g", 3ULL << 29 },
        { "64k", 64ULL << 10 },
        { "4096b", 4096 },
        { "2T", 2ULL << 40 },
        { "", 0 },
        { "G", 0 },
        { "1GB", 0 },
        { "-1G", 0 },
        { "99999999999E", 0 },
        { "nan", 0 },
        { "0", 0 },
    };
    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_test_message("%s", cases[i].text);
        g_assert_cmpuint(qemu_options_parse_size(cases[i].text), ==, cases[i].size);
    }
}

static QemuProcess *inspect(pid_t pid)
{
    g_autoptr(GError) error = NULL;
    QemuProcess *process = qemu_process_inspect(pid, &error);
    g_assert_no_error(error);
    return process;
}

/* A QMP client of the monitor at @address, whose process must be @pid. */
static void assert_leads_back(const char *address, pid_t pid)
{
    g_autoptr(GError) error = NULL;
    g_test_message("%s", address);
    g_autoptr(QmpClient) client = qmp_client_open(address, QMP_GREETING_TIMEOUT_MS, &error);
    g_assert_no_error(error);
    g_assert_cmpint(qemu_process_of_socket(qmp_client_get_fd(client), &error), ==, pid);
    g_assert_no_error(error);
}

static guint free_tcp_port(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof(address);
    sf_autofd fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(fd, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    g_assert_cmpint(getsockname(fd, (struct sockaddr *)&address, &length), ==, 0);
    return ntohs(address.sin_port);
}

/* Every form on one command line; the monitors must come out in its order, HMP apart. */
static void test_all_forms(void)
{
    if (!real_qemu_available()) {
        return;
    }
    RealQemu qemu;
    real_qemu_init(&qemu);
    g_autofree char *tcp = g_strdup_printf("tcp:127.0.0.1:%u,server=on,wait=off", free_tcp_port());
    g_autofree char *tcp_address = g_strndup(tcp, strcspn(tcp, ","));
    const char *arguments[] = { "-name",
                                "guest=a,,b,debug-threads=on",
                                "-m",
                                "size=64M,slots=2,maxmem=1G",
                                "-mon",
                                "chardev=late,mode=control",
                                "-qmp",
                                "unix:relative.sock,server,nowait",
                                "--qmp-pretty",
                                "unix:%s/pretty,,comma,server=on,wait=off",
                                "-qmp",
                                tcp,
                                "-chardev",
                                "socket,id=late,path=%s/late.sock,server=on,wait=off",
                                "-chardev",
                                "socket,id=human,path=%s/human.sock,server=on,wait=off",
                                "-mon",
                                "human",
                                "-monitor",
                                "unix:%s/hmp.sock,server=on,wait=off",
                                NULL };
    real_qemu_start(&qemu, arguments);
    g_autofree char *last = g_build_filename(qemu.folder, "hmp.sock", NULL);
    real_qemu_wait_for(last);
    g_free(qemu.socket);
    qemu.socket = g_build_filename(qemu.folder, "relative.sock", NULL);
    real_qemu_wait_until_it_listens(&qemu);

    g_autoptr(QemuProcess) process = inspect(qemu.pid);
    g_assert_cmpstr(process->name, ==, "a,b");
    g_assert_cmpstr(process->program, ==, REAL_QEMU_PROGRAM);
    g_assert_cmpuint(process->memory, ==, 64 << 20);
    g_assert_cmpuint(process->uid, ==, geteuid());
    static const char *const qmp[] = { "late.sock", "relative.sock", "pretty,comma" };
    g_assert_cmpuint(process->qmp->len, ==, 4);
    for (guint i = 0; i < G_N_ELEMENTS(qmp); i++) {
        g_autofree char *address = g_strdup_printf("unix:%s/%s", qemu.folder, qmp[i]);
        g_assert_cmpstr(process->qmp->pdata[i], ==, address);
    }
    g_assert_cmpstr(process->qmp->pdata[3], ==, tcp_address);
    g_assert_cmpuint(process->hmp->len, ==, 2);
    for (guint i = 0; i < process->qmp->len; i++) {
        assert_leads_back(process->qmp->pdata[i], qemu.pid);
    }
    real_qemu_clear(&qemu);
}

/* A monitor that QEMU is the client of is no way in for us. */
static void test_client_monitors_do_not_count(void)
{
    if (!real_qemu_available()) {
        return;
    }
    RealQemu qemu;
    real_qemu_init(&qemu);
    g_autoptr(GError) error = NULL;
    g_autoptr(GSocketListener) listener = g_socket_listener_new();
    guint16 port = g_socket_listener_add_any_inet_port(listener, NULL, &error);
    g_assert_no_error(error);
    g_autofree char *tcp = g_strdup_printf("tcp:localhost:%u", port);
    const char *arguments[] = { "-qmp", tcp, "-serial", "none", NULL };
    real_qemu_start(&qemu, arguments);
    g_autoptr(GSocketConnection) connection =
        g_socket_listener_accept(listener, NULL, NULL, &error);
    g_assert_nonnull(connection);
    g_autoptr(QemuProcess) process = inspect(qemu.pid);
    g_assert_cmpuint(process->qmp->len, ==, 0);
    g_assert_cmpstr(process->name, ==, REAL_QEMU_PROGRAM);
    g_assert_cmpuint(process->memory, ==, 0);
    real_qemu_clear(&qemu);
}

/* libvirt's way: QEMU inherits a listening socket, and only its number is among the arguments. */
static void test_inherited_listener(void)
{
    if (!real_qemu_available()) {
        return;
    }
    RealQemu qemu;
    real_qemu_init(&qemu);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    g_strlcpy(address.sun_path, qemu.socket, sizeof(address.sun_path));
    sf_autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(fd, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    g_assert_cmpint(listen(fd, 1), ==, 0);

    g_autoptr(GError) error = NULL;
    g_autoptr(GSubprocessLauncher) launcher = g_subprocess_launcher_new(G_SUBPROCESS_FLAGS_NONE);
    g_subprocess_launcher_set_child_setup(launcher, real_qemu_die_with_test, NULL, NULL);
    g_subprocess_launcher_take_fd(launcher, sf_steal_fd(&fd), 33);
    qemu.process = g_subprocess_launcher_spawn(
        launcher, &error, REAL_QEMU_PROGRAM, "-S", "-nodefaults", "-display", "none", "-chardev",
        "socket,id=charmonitor,fd=33,server=on,wait=off", "-mon",
        "chardev=charmonitor,id=monitor,mode=control", NULL);
    g_assert_no_error(error);
    qemu.pid = (pid_t)g_ascii_strtoll(g_subprocess_get_identifier(qemu.process), NULL, 10);
    real_qemu_wait_until_it_listens(&qemu);

    g_autoptr(QemuProcess) process = inspect(qemu.pid);
    g_autofree char *expected = g_strconcat("unix:", qemu.socket, NULL);
    g_assert_cmpuint(process->qmp->len, ==, 1);
    g_assert_cmpstr(process->qmp->pdata[0], ==, expected);
    /* SO_PEERCRED would name this test: it called listen(). */
    assert_leads_back(process->qmp->pdata[0], qemu.pid);
    real_qemu_clear(&qemu);
}

static pid_t read_pid_file(const char *path)
{
    g_autofree char *text = NULL;
    for (guint i = 0; i < 2000; i++) {
        g_clear_pointer(&text, g_free);
        if (g_file_get_contents(path, &text, NULL, NULL) && *text) {
            return (pid_t)g_ascii_strtoll(text, NULL, 10);
        }
        g_usleep(5000);
    }
    g_error("no pid in %s", path);
}

/*
 * -daemonize: the process that called listen() has gone, and the working directory is "/", so
 * a relative path must be found by where the daemon was started.
 */
static void test_daemon(void)
{
    if (!real_qemu_available()) {
        return;
    }
    RealQemu qemu;
    real_qemu_init(&qemu);
    g_autofree char *pid_file = g_build_filename(qemu.folder, "pid", NULL);
    g_autoptr(GError) error = NULL;
    g_autoptr(GSubprocessLauncher) launcher =
        g_subprocess_launcher_new(G_SUBPROCESS_FLAGS_STDOUT_SILENCE);
    g_subprocess_launcher_set_cwd(launcher, qemu.folder);
    g_subprocess_launcher_setenv(launcher, "PWD", qemu.folder, TRUE);
    g_autoptr(GSubprocess) starter = g_subprocess_launcher_spawn(
        launcher, &error, REAL_QEMU_PROGRAM, "-S", "-nodefaults", "-display", "none", "-daemonize",
        "-pidfile", pid_file, "-qmp", "unix:qmp.sock,server=on,wait=off", NULL);
    g_assert_no_error(error);
    g_assert_true(g_subprocess_wait_check(starter, NULL, &error));
    qemu.pid = read_pid_file(pid_file);

    g_autoptr(QemuProcess) process = qemu_process_inspect(qemu.pid, &error);
    char *address = process && process->qmp->len ? g_strdup(process->qmp->pdata[0]) : NULL;
    g_autofree char *expected = g_strconcat("unix:", qemu.socket, NULL);
    g_autoptr(QmpClient) client = address ? qmp_client_open(address, 3000, &error) : NULL;
    pid_t found = client ? qemu_process_of_socket(qmp_client_get_fd(client), &error) : 0;
    /* It is nobody's child: end it before anything can fail. */
    kill(qemu.pid, SIGKILL);
    g_assert_no_error(error);
    g_assert_cmpstr(address, ==, expected);
    g_assert_cmpint(found, ==, qemu.pid);
    g_free(address);
    real_qemu_clear(&qemu);
}

static void test_list_has_it(void)
{
    if (!real_qemu_available()) {
        return;
    }
    RealQemu qemu;
    real_qemu_run(&qemu, NULL);
    g_autoptr(GPtrArray) list = qemu_process_list();
    guint seen = 0;
    for (guint i = 0; i < list->len; i++) {
        const QemuProcess *process = list->pdata[i];
        seen += process->pid == qemu.pid;
        g_assert_cmpint(process->pid, !=, getpid());
    }
    g_assert_cmpuint(seen, ==, 1);
    real_qemu_clear(&qemu);
}

static void test_not_qemu(void)
{
    g_autoptr(GError) error = NULL;
    g_assert_null(qemu_process_inspect(getpid(), &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_NOT_QEMU);
    g_assert_nonnull(strstr(error->message, "test-qemu-process"));
    g_clear_error(&error);

    pid_t child = fork();
    if (child == 0) {
        _exit(0);
    }
    siginfo_t info;
    g_assert_cmpint(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), ==, 0);
    g_assert_null(qemu_process_inspect(child, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_NOT_QEMU);
    g_clear_error(&error);
    waitpid(child, NULL, 0);
    g_assert_null(qemu_process_inspect(child, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_NO_PROCESS);
    g_clear_error(&error);

    int ends[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), ==, 0);
    g_assert_cmpint(qemu_process_of_socket(ends[0], &error), ==, 0);
    g_assert_error(error, SF_ERROR, SF_ERROR_NOT_QEMU);
    close(ends[0]);
    close(ends[1]);
}

/* The tests of a TCP monitor that serves another client, in both families. */
static void test_tcp_busy(void)
{
    if (!real_qemu_available()) {
        return;
    }
    RealQemu qemu;
    real_qemu_init(&qemu);
    g_autofree char *tcp = g_strdup_printf("tcp::%u,server=on,wait=off", free_tcp_port());
    const char *arguments[] = { "-qmp", tcp, NULL };
    real_qemu_start(&qemu, arguments);
    g_autofree char *address = NULL;
    g_autoptr(QmpClient) first = NULL;
    for (guint i = 0; i < 2000 && !first; i++) {
        g_usleep(5000);
        g_autoptr(QemuProcess) process = qemu_process_inspect(qemu.pid, NULL);
        if (process && process->qmp->len) {
            g_free(address);
            address = g_strdup(process->qmp->pdata[0]);
            first = qmp_client_open(address, QMP_GREETING_TIMEOUT_MS, NULL);
        }
    }
    g_assert_nonnull(first);
    g_assert_cmpint(qemu_process_of_socket(qmp_client_get_fd(first), NULL), ==, qemu.pid);

    g_autoptr(GError) error = NULL;
    g_assert_null(qmp_client_open(address, 200, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_MONITOR_BUSY);
    g_autofree char *me = g_strdup_printf("process %d", (int)getpid());
    g_test_message("%s", error->message);
    g_assert_nonnull(strstr(error->message, me));
    g_clear_error(&error);

    int fd = -1;
    g_assert_false(qmp_client_can_send_fd(first));
    g_assert_null(qmp_client_execute_with_fd(first, "add-fd", NULL, fd, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_UNSUPPORTED);
    real_qemu_clear(&qemu);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qemu-process/options", test_options);
    g_test_add_func("/qemu-process/sizes", test_sizes);
    g_test_add_func("/qemu-process/not-qemu", test_not_qemu);
    g_test_add_func("/qemu-process/all-forms", test_all_forms);
    g_test_add_func("/qemu-process/client-monitors-do-not-count",
                    test_client_monitors_do_not_count);
    g_test_add_func("/qemu-process/inherited-listener", test_inherited_listener);
    g_test_add_func("/qemu-process/daemon", test_daemon);
    g_test_add_func("/qemu-process/list-has-it", test_list_has_it);
    g_test_add_func("/qemu-process/tcp-busy", test_tcp_busy);
    return g_test_run();
}
