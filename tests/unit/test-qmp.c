/*
 * The QMP client: framing, and what it says about monitors that are busy, silent or no QMP.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "../../monitor/qmp-internal.h"
#include "real-qemu.h"
#include "util/autofd.h"

static void test_framer_any_pieces(void)
{
    static const char text[] = "{\"a\": [{\"b\": \"}\\\"]{\"}, 1]}\r\n{\"c\": 2}";
    const gsize first = strlen("{\"a\": [{\"b\": \"}\\\"]{\"}, 1]}");
    for (gsize step = 1; step < sizeof(text); step++) {
        QmpFramer framer = { 0 };
        gsize length = 0;
        for (gsize have = step; length == 0; have += step) {
            g_assert_cmpuint(have, <, sizeof(text) + step);
            length = qmp_framer_scan(&framer, text, MIN(have, sizeof(text) - 1));
        }
        g_assert_cmpuint(length, ==, first);
    }
}

static void test_framer_incomplete(void)
{
    QmpFramer framer = { 0 };
    g_assert_cmpuint(qmp_framer_scan(&framer, "{\"a\": \"}", 8), ==, 0);
    g_assert_cmpuint(framer.scanned, ==, 8);
}

/* The client's end of a socket pair whose other end is the test; the text is what "QEMU" says. */
static QmpClient *client_of_text(const char *text, int *other, guint timeout_ms, GError **errp)
{
    int ends[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), ==, 0);
    g_assert_cmpint(write(ends[1], text, strlen(text)), ==, (gssize)strlen(text));
    *other = ends[1];
    return qmp_client_new_from_fd(ends[0], timeout_ms, errp);
}

#define GREETING                                                                                   \
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 3, \"minor\": 1, \"major\": 10},"              \
    "\"package\": \"\"}, \"capabilities\": []}}\r\n"
#define DONE(id) "{\"return\": {}, \"id\": " #id "}\r\n"

static void test_scripted_errors(void)
{
    static const struct {
        const char *text;
        SfError code;
        const char *says;
    } cases[] = {
        { "", SF_ERROR_MONITOR_SILENT, "does not answer" },
        { "{\"QMP\": {\"version\"", SF_ERROR_MONITOR_SILENT, "does not answer" },
        { GREETING, SF_ERROR_MONITOR_SILENT, "qmp_capabilities" },
        { "QEMU 7.2.0 monitor - type 'help' for more information\r\n(qemu) ",
          SF_ERROR_MONITOR_PROTOCOL, "HMP" },
        { "HTTP/1.0 400 Bad Request\r\n", SF_ERROR_MONITOR_PROTOCOL, "HTTP/1.0" },
        { "{\"QMP\": }\r\n", SF_ERROR_MONITOR_PROTOCOL, "not QMP" },
        { "{\"return\": {}}\r\n", SF_ERROR_MONITOR_PROTOCOL, "greeting" },
        { "{\"QMP\": {\"version\": {\"qemu\": {\"major\": -1, \"minor\": 0, \"micro\": 0}}}}",
          SF_ERROR_MONITOR_PROTOCOL, "greeting" },
        { "{\"QMP\": {\"version\": 3}}", SF_ERROR_MONITOR_PROTOCOL, "greeting" },
        { GREETING "{\"error\": {\"class\": \"X\", \"desc\": \"no way\"}, \"id\": 1}\r\n",
          SF_ERROR_MONITOR_COMMAND, "no way" },
        { GREETING "{\"error\": 1, \"id\": 1}\r\n", SF_ERROR_MONITOR_PROTOCOL, "neither" },
    };
    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        sf_autofd other = -1;
        g_autoptr(QmpClient) client = client_of_text(cases[i].text, &other, 50, &error);
        g_test_message("%s", error ? error->message : "no error");
        g_assert_null(client);
        g_assert_error(error, SF_ERROR, (gint)cases[i].code);
        g_assert_nonnull(strstr(error->message, cases[i].says));
    }
}

/* A late answer to an older command, and events, come before the answer. */
static void test_stray_answer_and_events(void)
{
    g_autoptr(GError) error = NULL;
    sf_autofd other = -1;
    g_autoptr(QmpClient) client = client_of_text(
        GREETING DONE(1) "{\"event\": \"STOP\"}\r\n" DONE(
            1) "{\r\n    \"return\": \r\n{\"x\": 5},\r\n \"id\": 2\r\n}\r\n{\"event\": \"RESUME\", "
               "\"data\": {\"y\": 6}}\r\n",
        &other, 100, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(qmp_client_get_version(client), ==, 100103);

    g_autoptr(JsonNode) answer = qmp_client_execute(client, "query-x", NULL, &error);
    g_assert_no_error(error);
    g_assert_cmpint(json_object_get_int_member(json_node_get_object(answer), "x"), ==, 5);

    g_autoptr(JsonNode) resume = qmp_client_wait_event(client, "RESUME", 1000, &error);
    g_assert_no_error(error);
    g_assert_cmpint(json_object_get_int_member(json_node_get_object(resume), "y"), ==, 6);
    g_autoptr(JsonNode) stop = qmp_client_wait_event(client, "STOP", 1000, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(json_object_get_size(json_node_get_object(stop)), ==, 0);
    g_assert_null(qmp_client_wait_event(client, "STOP", 20, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_MONITOR_SILENT);
}

static void test_closed(void)
{
    g_autoptr(GError) error = NULL;
    sf_autofd other = -1;
    g_autoptr(QmpClient) client = client_of_text(GREETING DONE(1), &other, 100, &error);
    g_assert_no_error(error);
    sf_clear_fd(&other);
    g_assert_null(qmp_client_execute(client, "stop", NULL, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_MONITOR_CLOSED);
}

static void test_no_such_socket(void)
{
    g_autoptr(GError) error = NULL;
    g_assert_null(qmp_client_open("unix:/nonexistent/qmp", 100, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_FAILED);
    g_assert_nonnull(strstr(error->message, "/nonexistent/qmp"));
    g_clear_error(&error);
    g_assert_null(qmp_client_open("tcp:4444", 100, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_USAGE);
}

static void test_real_commands(void)
{
    if (!real_qemu_available()) {
        return;
    }
    RealQemu qemu;
    real_qemu_run(&qemu, NULL);
    g_autoptr(GError) error = NULL;
    g_autoptr(QmpClient) client = real_qemu_connect(&qemu);
    g_assert_cmpuint(qmp_client_get_version(client), >=, 70200);
    g_assert_true(qmp_client_can_send_fd(client));

    /* Larger than one read. */
    g_autoptr(JsonNode) schema = qmp_client_execute(client, "query-qmp-schema", NULL, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(json_array_get_length(json_node_get_array(schema)), >, 500);

    g_assert_null(qmp_client_execute(client, "no-such-command", NULL, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_MONITOR_COMMAND);
    g_clear_error(&error);

    g_autofree char *text = qmp_client_hmp(client, "info status", &error);
    g_assert_no_error(error);
    g_assert_nonnull(strstr(text, "paused"));

    g_autoptr(JsonNode) cont = qmp_client_execute(client, "cont", NULL, &error);
    g_assert_nonnull(cont);
    g_autoptr(JsonNode) resume = qmp_client_wait_event(client, "RESUME", 5000, &error);
    g_assert_nonnull(resume);
    real_qemu_clear(&qemu);
}

/* The number that add-fd answers is the same file in QEMU's descriptor table. */
static void test_real_add_fd(void)
{
    if (!real_qemu_available()) {
        return;
    }
    RealQemu qemu;
    real_qemu_run(&qemu, NULL);
    g_autoptr(GError) error = NULL;
    g_autoptr(QmpClient) client = real_qemu_connect(&qemu);
    g_autofree char *path = g_build_filename(qemu.folder, "file", NULL);
    sf_autofd fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    g_assert_cmpint(fd, >=, 0);

    gint64 fdset = -1;
    int remote = -1;
    g_assert_true(qmp_client_add_fd(client, fd, &fdset, &remote, &error));
    g_assert_no_error(error);
    g_autofree char *link = g_strdup_printf("/proc/%d/fd/%d", (int)qemu.pid, remote);
    struct stat here, there;
    g_assert_cmpint(fstat(fd, &here), ==, 0);
    g_assert_cmpint(stat(link, &there), ==, 0);
    g_assert_cmpuint(here.st_ino, ==, there.st_ino);

    /* QEMU (7.2 at least) lets a set go only while the VM runs. */
    g_autoptr(JsonNode) cont = qmp_client_execute(client, "cont", NULL, &error);
    g_assert_nonnull(cont);
    g_assert_true(qmp_client_remove_fdset(client, fdset, &error));
    g_assert_no_error(error);
    g_assert_false(qmp_client_remove_fdset(client, fdset, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_MONITOR_COMMAND);
    real_qemu_clear(&qemu);
}

static void test_real_busy_names_the_client(void)
{
    if (!real_qemu_available()) {
        return;
    }
    RealQemu qemu;
    real_qemu_run(&qemu, NULL);
    g_autoptr(GError) error = NULL;
    g_autoptr(QmpClient) first = real_qemu_connect(&qemu);
    g_assert_null(qmp_client_open(qemu.socket, 200, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_MONITOR_BUSY);
    g_autofree char *me = g_strdup_printf("process %d (test-qmp)", (int)getpid());
    g_test_message("%s", error->message);
    g_assert_nonnull(strstr(error->message, me));
    g_clear_error(&error);

    /* It is free again when the first one goes. */
    g_clear_pointer(&first, qmp_client_free);
    g_autoptr(QmpClient) second = real_qemu_connect(&qemu);
    g_assert_nonnull(second);
    real_qemu_clear(&qemu);
}

static void stop_process(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", (int)pid);
    kill(pid, SIGSTOP);
    for (guint i = 0; i < 1000; i++) {
        g_autofree char *text = NULL;
        g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
        if (strstr(text, ") T ")) {
            return;
        }
        g_usleep(1000);
    }
    g_error("process %d does not stop", (int)pid);
}

/* Not "busy", although QEMU has had no time to notice that its last client has gone. */
static void test_real_stopped_is_silent(void)
{
    if (!real_qemu_available()) {
        return;
    }
    RealQemu qemu;
    real_qemu_run(&qemu, NULL);
    stop_process(qemu.pid);
    g_autoptr(GError) error = NULL;
    g_assert_null(qmp_client_open(qemu.socket, 200, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_MONITOR_SILENT);
    kill(qemu.pid, SIGCONT);
    g_autoptr(QmpClient) client = real_qemu_connect(&qemu);
    g_assert_nonnull(client);
    real_qemu_clear(&qemu);
}

static void test_real_hmp_and_pretty_and_long_path(void)
{
    if (!real_qemu_available()) {
        return;
    }
    RealQemu qemu;
    real_qemu_init(&qemu);
    /* A path that a sockaddr_un cannot hold: QEMU binds it relative to its folder. */
    g_autofree char *name = g_strnfill(100, 'x');
    g_autofree char *option = g_strdup_printf("unix:%s,server=on,wait=off", name);
    const char *arguments[] = { "-qmp-pretty", option, "-monitor",
                                "unix:%s/hmp.sock,server=on,wait=off", NULL };
    real_qemu_start(&qemu, arguments);
    g_autofree char *pretty = g_build_filename(qemu.folder, name, NULL);
    g_autofree char *hmp = g_build_filename(qemu.folder, "hmp.sock", NULL);
    g_assert_cmpuint(strlen(pretty), >, 107);
    real_qemu_wait_for(hmp);
    real_qemu_wait_for(pretty);

    g_autoptr(GError) error = NULL;
    g_autoptr(QmpClient) client = qmp_client_open(pretty, QMP_GREETING_TIMEOUT_MS, &error);
    g_assert_no_error(error);
    g_autoptr(JsonNode) answer = qmp_client_execute(client, "query-commands", NULL, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(json_array_get_length(json_node_get_array(answer)), >, 100);

    g_assert_null(qmp_client_open(hmp, QMP_GREETING_TIMEOUT_MS, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_MONITOR_PROTOCOL);
    g_assert_nonnull(strstr(error->message, "HMP"));
    real_qemu_clear(&qemu);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qmp/framer/any-pieces", test_framer_any_pieces);
    g_test_add_func("/qmp/framer/incomplete", test_framer_incomplete);
    g_test_add_func("/qmp/scripted/errors", test_scripted_errors);
    g_test_add_func("/qmp/scripted/stray-answer-and-events", test_stray_answer_and_events);
    g_test_add_func("/qmp/scripted/closed", test_closed);
    g_test_add_func("/qmp/no-such-socket", test_no_such_socket);
    g_test_add_func("/qmp/real/commands", test_real_commands);
    g_test_add_func("/qmp/real/add-fd", test_real_add_fd);
    g_test_add_func("/qmp/real/busy-names-the-client", test_real_busy_names_the_client);
    g_test_add_func("/qmp/real/stopped-is-silent", test_real_stopped_is_silent);
    g_test_add_func("/qmp/real/hmp-pretty-long-path", test_real_hmp_and_pretty_and_long_path);
    return g_test_run();
}
