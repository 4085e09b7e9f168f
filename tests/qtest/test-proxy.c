/*
 * Promise: a client written for QEMU does not notice the proxy. What passes through is byte for
 * byte QEMU's, whatever is sent; with background-snapshot on, migrate and its family behave as
 * QEMU's do and make a right image.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "proxy-harness.h"
#include "tests/process.h"
#include "util/autofd.h"

#define MIB (1024 * 1024ULL)

/* ---- Pass-through ---- */

/* Recorded: what each kind of client sends, one message a line; each line is answered once. */

/* libvirt 9.0, connecting to a domain that runs. */
static const char *const libvirt_lines[] = {
    "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]},\"id\":\"libvirt-1\"}\r\n",
    "{\"execute\":\"query-migrate-capabilities\",\"id\":\"libvirt-2\"}\r\n",
    "{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":[{\"capability\":"
    "\"events\",\"state\":true}]},\"id\":\"libvirt-3\"}\r\n",
    "{\"execute\":\"query-chardev\",\"id\":\"libvirt-4\"}\r\n",
    "{\"execute\":\"query-hotpluggable-cpus\",\"id\":\"libvirt-5\"}\r\n",
    "{\"execute\":\"qom-list\",\"arguments\":{\"path\":\"/machine/unattached\"},\"id\":\"libvirt-7\"}"
    "\r\n",
    "{\"execute\":\"query-named-block-nodes\",\"arguments\":{\"flat\":true},\"id\":\"libvirt-8\"}\r\n",
    "{\"execute\":\"query-jobs\",\"id\":\"libvirt-9\"}\r\n",
    "{\"execute\":\"query-migrate\",\"id\":\"libvirt-10\"}\r\n",
    "{\"execute\":\"migrate-set-parameters\",\"arguments\":{\"max-bandwidth\":9223372036853727232},"
    "\"id\":\"libvirt-11\"}\r\n",
    "{\"execute\":\"query-migrate-parameters\",\"id\":\"libvirt-12\"}\r\n",
    "{\"exec-oob\":\"migrate-pause\",\"id\":\"libvirt-13\"}\r\n",
    "{\"execute\":\"query-qmp-schema\",\"id\":\"libvirt-14\"}\r\n",
    "{\"execute\":\"stop\",\"id\":\"libvirt-15\"}\r\n",
    "{\"execute\":\"cont\",\"id\":\"libvirt-16\"}\r\n",
    "{\"execute\":\"migrate-set-parameters\",\"arguments\":{\"max-bandwidth\":134217728},"
    "\"id\":\"libvirt-17\"}\r\n",
    "{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":[{\"capability\":"
    "\"events\",\"state\":false}]},\"id\":\"libvirt-18\"}\r\n",
    NULL
};

/* qmp-shell: no ids, mistakes, and HMP inside. */
static const char *const shell_lines[] = {
    "{\"execute\": \"query-status\"}\n",
    "{\"execute\": \"qmp_capabilities\"}\n",
    "{\"execute\": \"qmp_capabilities\"}\n",
    "{\"execute\": \"query-staus\"}\n",
    "{\"execute\": \"query-name\", \"arguments\": {\"x\": 1}}\n",
    "{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": \"info migrate\"}}\n",
    "{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": \"info block\"}}\n",
    "{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": \"migrate\"}}\n",
    "{\"execute\": \"migrate\", \"arguments\": {\"uri\": \"nonsense:\"}}\n",
    "{\"execute\": \"migrate\"}\n",
    "{\"execute\": \"migrate_cancel\"}\n",
    "{\"execute\": \"migrate-set-capabilities\"}\n",
    "{\"execute\": \"migrate-set-capabilities\", \"arguments\": {\"capabilities\": 3}}\n",
    "{\"execute\": \"getfd\", \"arguments\": {\"fdname\": \"x\"}}\n",
    NULL
};

/* Somebody at socat: QEMU takes single quotes, white space and any id, and so must we. */
static const char *const typed_lines[] = {
    "{'execute':'qmp_capabilities'}\n",
    "\n\n  {\n 'execute'\t:\n'query-name' }\n",
    "{'execute':'query-migrate', 'id': {'a': [1, 2.5, null, true, 'x\\'y']}}",
    "{'execute':'query-status', 'id': 9223372036854775807}\n",
    "{'execute': 'query-status', 'id': '\\u0041'}\n",
    "{'e\\u0078ecute': 'query-migrate'}\n",
    "{'execute': 'query-migrate', 'control': 1}\n",
    "{'execute': 'query-migrate', 'arguments': []}\n",
    "{'exec-oob': 'query-status'}\n",
    NULL
};

static guint count_answers(const char *text)
{
    guint count = 0;

    for (const char *at = text; (at = strchr(at, '\n')); at++) {
        count++;
    }
    const char *event = text;
    while ((event = strstr(event, "\"event\": "))) {
        event++;
        count--;
    }
    return count;
}

/* Sends line by line and waits for each answer. */
static char *hold_conversation(const char *path, const char *const *lines)
{
    g_autoptr(RawQmp) raw = raw_qmp_connect(path);
    gsize from = raw_qmp_wait(raw, 0, "\"QMP\"");

    for (; *lines; lines++) {
        guint before = count_answers(raw_qmp_text(raw));
        raw_qmp_say(raw, *lines);
        while (count_answers(raw_qmp_text(raw)) == before) {
            from = raw_qmp_wait(raw, from, "\n");
        }
    }
    return raw_qmp_text_without_times(raw);
}

/* All of it in one piece: the answers come in the same order. */
static char *hold_at_once(const char *path, const char *const *lines)
{
    g_autoptr(RawQmp) raw = raw_qmp_connect(path);
    g_autofree char *all = g_strjoinv("", (char **)lines);

    raw_qmp_wait(raw, 0, "\"QMP\"");
    raw_qmp_say(raw, all);
    raw_qmp_say(raw, "{'execute': 'query-name', 'id': 'the last'}\n");
    raw_qmp_wait(raw, 0, "the last");
    return raw_qmp_text_without_times(raw);
}

static void assert_same_text(const char *direct, const char *proxied)
{
    if (strcmp(direct, proxied)) {
        g_error("QEMU says:\n%s\nthrough the proxy:\n%s", direct, proxied);
    }
}

static void test_conversations(void)
{
    static const char *const *const clients[] = { libvirt_lines, shell_lines, typed_lines };
    g_autoptr(ProxiedVm) proxied = proxied_vm_start_empty(NULL);
    const char *own = test_vm_get_socket(proxied->vm);

    /* The proxy's first look at QEMU is over when it serves. */
    g_autoptr(RawQmp) first = raw_qmp_open(proxied->socket);
    g_clear_pointer(&first, raw_qmp_free);
    for (guint i = 0; i < G_N_ELEMENTS(clients); i++) {
        /* Once for what it changes in QEMU: the status of the last migration. */
        g_free(hold_conversation(own, clients[i]));
        g_autofree char *direct = hold_conversation(own, clients[i]);
        g_autofree char *through = hold_conversation(proxied->socket, clients[i]);
        assert_same_text(direct, through);
    }
    /* libvirt's has an out-of-band command, which may overtake. */
    for (guint i = 1; i < G_N_ELEMENTS(clients); i++) {
        g_autofree char *direct = hold_at_once(own, clients[i]);
        g_autofree char *through = hold_at_once(proxied->socket, clients[i]);
        assert_same_text(direct, through);
    }
}

static void test_garbage(void)
{
    static const char *const pieces[] = {
        "}",
        "]]",
        "{]",
        "[1]",
        "{\"execute\":}",
        "\"text\"",
        "17 abc -",
        "{\"a\":1 \"b\"}",
        "\x01\x02",
        "{\"execute\": \"x\ny\"}",
        "\xff\xfe",
        "{\"execute\": \"\xff\"}",
        "{@}",
        "nul",
        "{'a': tru}",
        "{\"execute\": \"query-name\", \"id\": 007}",
        "[[[[[[]]]]",
        "{\"x\": \"\\q\"}",
        "%s",
        "{\"a\":\x80}",
    };
    g_autoptr(ProxiedVm) proxied = proxied_vm_start_empty(NULL);
    const char *paths[] = { test_vm_get_socket(proxied->vm), proxied->socket };

    g_autoptr(RawQmp) first = raw_qmp_open(proxied->socket);
    g_clear_pointer(&first, raw_qmp_free);
    for (guint i = 0; i < G_N_ELEMENTS(pieces); i++) {
        g_autofree char *text[2] = { NULL, NULL };
        for (guint k = 0; k < 2; k++) {
            g_autoptr(RawQmp) raw = raw_qmp_open(paths[k]);
            raw_qmp_say(raw, pieces[i]);
            /* 0xff brings the parser back from wherever it is. */
            raw_qmp_say(raw, "\n\xff\n{\"execute\": \"query-migrate\", \"id\": \"after\"}\n");
            raw_qmp_wait(raw, 0, "after");
            text[k] = g_strdup(raw_qmp_text(raw));
        }
        assert_same_text(text[0], text[1]);
        g_free(text[1]);
    }
}

/* As deep as a client likes: QEMU has a limit, and nothing of ours may break before. */
static void test_nested_message(void)
{
    g_autoptr(ProxiedVm) proxied = proxied_vm_start_empty(NULL);
    g_autofree char *deep = g_strnfill(50000, '[');
    g_autofree char *back = g_strnfill(50000, ']');

    /* Finished and unfinished. */
    for (guint i = 0; i < 2; i++) {
        g_autoptr(RawQmp) raw = raw_qmp_open(proxied->socket);
        raw_qmp_say(raw, "{\"execute\": \"migrate\", \"x\": ");
        raw_qmp_say(raw, deep);
        raw_qmp_say(raw, i == 0 ? back : "");
        raw_qmp_say(raw, i == 0 ? "}" : "");
        raw_qmp_say(raw, "\n\xff\n{\"execute\": \"query-name\", \"id\": \"after\"}\n");
        raw_qmp_wait(raw, 0, "after");
    }
}

/* Half a message, and the client goes: the next one is not concerned. */
static void test_half_a_message(void)
{
    g_autoptr(ProxiedVm) proxied = proxied_vm_start_empty(NULL);

    for (guint i = 0; i < 3; i++) {
        g_autoptr(RawQmp) raw = raw_qmp_open(proxied->socket);
        raw_qmp_say(raw, "{\"execute\": \"migra");
    }
    g_autoptr(RawQmp) raw = raw_qmp_open(proxied->socket);
    raw_qmp_must(raw, "{'execute': 'query-status'}");
}

static guint64 peak_memory(pid_t pid)
{
    g_autofree char *text = read_status(pid, "VmHWM");

    return g_ascii_strtoull(text, NULL, 10) * 1024;
}

/* A message that is longer than what the proxy looks at: QEMU's answer. */
static char *send_long(const char *path)
{
    g_autoptr(RawQmp) raw = raw_qmp_open(path);
    g_autofree char *text = g_strnfill(320 * 1024, 'a');

    raw_qmp_say(raw, "{\"execute\": \"query-name\", \"arguments\": {\"x\": \"");
    raw_qmp_say(raw, text);
    raw_qmp_say(raw, "\"}}\n{\"execute\": \"query-name\", \"id\": \"behind\"}\n");
    raw_qmp_wait(raw, 0, "behind");
    return g_strdup(raw_qmp_text(raw));
}

static void test_long_message(void)
{
    g_autoptr(ProxiedVm) proxied = proxied_vm_start_empty(NULL);

    g_autoptr(RawQmp) first = raw_qmp_open(proxied->socket);
    g_clear_pointer(&first, raw_qmp_free);
    g_autofree char *direct = send_long(test_vm_get_socket(proxied->vm));
    g_autofree char *through = send_long(proxied->socket);
    assert_same_text(direct, through);
}

/*
 * 100 MB: QEMU reads its monitor byte by byte and would be at it for an hour. So is it through the
 * proxy, which holds the client back and nothing of it; QEMU's monitor serves the next one.
 */
static void test_huge_message(void)
{
    g_autoptr(ProxiedVm) proxied = proxied_vm_start_empty(NULL);
    g_autofree char *piece = g_strnfill(MIB, 'a');
    gint64 end = g_get_monotonic_time() + 2 * G_TIME_SPAN_SECOND;
    guint64 sent = 0;

    g_autoptr(RawQmp) raw = raw_qmp_open(proxied->socket);
    raw_qmp_say(raw, "{\"execute\": \"query-name\", \"arguments\": {\"x\": \"");
    while (sent < 100 * MIB && g_get_monotonic_time() < end) {
        sent += raw_qmp_send_some(raw, piece, MIB);
    }
    g_assert_cmpuint(sent, <, 100 * MIB);
    g_assert_cmpuint(peak_memory(test_tool_get_pid(proxied->proxy)), <, 64 * MIB);
    g_clear_pointer(&raw, raw_qmp_free);
    raw = raw_qmp_open(proxied->socket);
    raw_qmp_must(raw, "{'execute': 'query-status'}");
    g_assert_cmpuint(peak_memory(test_tool_get_pid(proxied->proxy)), <, 64 * MIB);
}

/* A client that never reads its answers is held back, not stored. */
static void test_client_that_does_not_read(void)
{
    g_autoptr(ProxiedVm) proxied = proxied_vm_start_empty(NULL);
    g_autoptr(RawQmp) raw = raw_qmp_open(proxied->socket);
    pid_t pid = test_tool_get_pid(proxied->proxy);
    g_autofree char *command = g_strdup("{\"execute\": \"query-qmp-schema\"}\n"); /* 0.2 MB each */

    for (guint i = 0; i < 400; i++) {
        raw_qmp_say(raw, command);
    }
    g_usleep(500000);
    g_assert_cmpuint(peak_memory(pid), <, 64 * MIB);
    raw_qmp_say(raw, "{\"execute\": \"query-name\", \"id\": \"end\"}\n");
    raw_qmp_wait(raw, 0, "\"end\"");
}

/* ---- migrate ---- */

static void assert_order(const char *text, ...) G_GNUC_NULL_TERMINATED;
static void assert_order(const char *text, ...)
{
    const char *at = text, *word;
    va_list ap;

    va_start(ap, text);
    while ((word = va_arg(ap, const char *))) {
        const char *found = strstr(at, word);
        if (!found) {
            g_error("no %s where it should stand in: %s", word, text);
        }
        at = found + strlen(word);
    }
    va_end(ap);
}

static gsize wait_status(RawQmp *raw, gsize from, const char *status)
{
    g_autofree char *text = g_strdup_printf("{\"status\": \"%s\"}", status);

    return raw_qmp_wait(raw, from, text);
}

static JsonObject *query_migrate(RawQmp *raw)
{
    g_autofree char *text = raw_qmp_run(raw, "{'execute': 'query-migrate'}");
    g_autoptr(JsonNode) node = json_from_string(text, NULL);

    return json_object_ref(json_object_get_object_member(json_node_get_object(node), "return"));
}

static void check_info(RawQmp *raw)
{
    g_autoptr(JsonObject) info = query_migrate(raw);
    JsonObject *ram = json_object_get_object_member(info, "ram");
    JsonObject *own = json_object_get_object_member(info, "stillframe");

    g_assert_cmpstr(json_object_get_string_member(info, "status"), ==, "completed");
    gint64 total = json_object_get_int_member(ram, "total");
    g_assert_cmpint(total, >=, (gint64)(96 * MIB));
    g_assert_cmpint(json_object_get_int_member(ram, "remaining"), ==, 0);
    g_assert_cmpint(json_object_get_int_member(ram, "normal") +
                        json_object_get_int_member(ram, "duplicate"),
                    ==, total / 4096);
    g_assert_cmpint(json_object_get_int_member(ram, "transferred"), >=, (gint64)(48 * MIB));
    g_assert_true(json_object_has_member(info, "downtime"));
    g_assert_true(json_object_has_member(own, "faults"));
}

static void test_migrate_file(void)
{
    g_autoptr(ProxiedVm) proxied = proxied_vm_start(NULL);
    g_autoptr(RawQmp) raw = proxied_vm_open_on(proxied);
    g_autofree char *path = proxied_vm_file(proxied, "vm.sf");
    gsize from = strlen(raw_qmp_text(raw));

    raw_qmp_must(raw, "{'execute': 'migrate', 'arguments': {'uri': 'file:%s'}}", path);
    wait_status(raw, from, "completed");
    assert_order(raw_qmp_text(raw) + from, "\"setup\"", "\"return\"", NULL);
    assert_order(raw_qmp_text(raw) + from, "\"setup\"", "\"active\"", "\"STOP\"", "\"RESUME\"",
                 "\"completed\"", NULL);
    check_info(raw);
    writer_guest_check_image(path, 0);
    writer_guest_assert_goes_on(proxied->vm);
    writer_guest_assert_loads(path, "running");
}

/* The same fields as the running QEMU's own background snapshot has, and one more. */
static char *member_names(JsonObject *object)
{
    g_autoptr(GList) names = json_object_get_members(object);
    g_autoptr(GString) text = g_string_new(NULL);

    names = g_list_sort(names, (GCompareFunc)strcmp);
    for (GList *link = names; link; link = link->next) {
        if (strcmp(link->data, "stillframe")) {
            g_string_append_printf(text, "%s ", (char *)link->data);
        }
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}

static char *names_after_snapshot(const char *socket)
{
    g_autoptr(RawQmp) raw = raw_qmp_open(socket);
    gsize from = strlen(raw_qmp_text(raw));

    raw_qmp_must(raw, "{'execute': 'migrate-set-capabilities', 'arguments': {'capabilities': ["
                      "{'capability': 'background-snapshot', 'state': true}, "
                      "{'capability': 'events', 'state': true}]}}");
    raw_qmp_must(raw, "{'execute': 'migrate', 'arguments': {'uri': 'exec:cat >/dev/null'}}");
    wait_status(raw, from, "completed");
    g_autoptr(JsonObject) info = query_migrate(raw);
    g_autofree char *outer = member_names(info);
    g_autofree char *inner = member_names(json_object_get_object_member(info, "ram"));
    raw_qmp_must(raw, "{'execute': 'migrate-set-capabilities', 'arguments': {'capabilities': ["
                      "{'capability': 'background-snapshot', 'state': false}]}}");
    return g_strconcat(outer, "ram: ", inner, NULL);
}

static void test_same_fields(void)
{
    g_autoptr(ProxiedVm) proxied = proxied_vm_start_empty(NULL);

    g_autofree char *ours = names_after_snapshot(proxied->socket);
    g_autofree char *theirs = names_after_snapshot(test_vm_get_socket(proxied->vm));
    g_assert_cmpstr(ours, ==, theirs);
}

static void test_refusals(void)
{
    g_autoptr(ProxiedVm) proxied = proxied_vm_start_empty(NULL);
    static const struct {
        const char *command, *answer;
    } cases[] = {
        { "{'execute': 'migrate', 'arguments': {'uri': 'nonsense:x'}}", "migration protocol" },
        { "{'execute': 'migrate', 'arguments': {'uri': 3}}", "expected: string" },
        { "{'execute': 'migrate', 'arguments': {'uri': 'exec:x', 'y': 1}}", "'y' is unexpected" },
        { "{'execute': 'migrate', 'arguments': {}}", "uri" },
        { "{'execute': 'migrate', 'arguments': {'uri': 'fd:nix'}}",
          "File descriptor named 'nix' has not been found" },
        { "{'execute': 'migrate', 'arguments': {'uri': 'file:/nonexistent/x'}}", "No such file" },
        { "{'execute': 'migrate-set-capabilities', 'arguments': {'capabilities': ["
          "{'capability': 'multifd', 'state': true}]}}",
          "Background-snapshot is not compatible with multifd" },
        { "{'execute': 'migrate-set-capabilities', 'arguments': {'capabilities': ["
          "{'capability': 'nix', 'state': true}]}}",
          "does not accept value 'nix'" },
    };

    g_autoptr(RawQmp) raw = proxied_vm_open_on(proxied);
    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *answer = raw_qmp_run(raw, "%s", cases[i].command);
        if (!strstr(answer, cases[i].answer) || !strstr(answer, "GenericError")) {
            g_error("%s was answered: %s", cases[i].command, answer);
        }
    }
    g_autofree char *caps = raw_qmp_run(raw, "{'execute': 'query-migrate-capabilities'}");
    g_assert_nonnull(strstr(caps, "{\"state\": true, \"capability\": \"background-snapshot\"}"));
    g_assert_nonnull(strstr(caps, "{\"state\": false, \"capability\": \"multifd\"}"));
    test_vm_assert_status(proxied->vm, "running");
}

/* In the middle, twice in a row; then it works. */
static void test_cancel(void)
{
    g_autoptr(ProxiedVm) proxied = proxied_vm_start(NULL);
    g_autoptr(RawQmp) raw = proxied_vm_open_on(proxied);
    g_autofree char *path = proxied_vm_file(proxied, "vm.sf");

    for (guint i = 0; i < 2; i++) {
        gsize from = strlen(raw_qmp_text(raw));
        raw_qmp_must(raw, "{'execute': 'migrate', 'arguments': {'uri': 'exec:sleep 60'}}");
        wait_status(raw, from, "active");
        raw_qmp_wait(raw, from, "\"RESUME\"");
        raw_qmp_must(raw, "{'execute': 'migrate_cancel'}");
        raw_qmp_must(raw, "{'execute': 'migrate_cancel'}");
        wait_status(raw, from, "cancelled");
        assert_order(raw_qmp_text(raw) + from, "\"cancelling\"", "\"return\"", "\"cancelled\"",
                     NULL);
        g_autoptr(JsonObject) info = query_migrate(raw);
        g_assert_cmpstr(json_object_get_string_member(info, "status"), ==, "cancelled");
    }
    gsize from = strlen(raw_qmp_text(raw));
    raw_qmp_must(raw, "{'execute': 'migrate', 'arguments': {'uri': 'file:%s'}}", path);
    wait_status(raw, from, "completed");
    writer_guest_check_image(path, 0);
    writer_guest_assert_goes_on(proxied->vm);
}

/* Loads the mapped-ram image at @path in a QEMU that knows the format. */
static void assert_mapped_loads(const char *path)
{
    TestVm *vm = writer_guest_new("-incoming", "defer", NULL);

    test_vm_launch(vm);
    if (qmp_client_get_version(test_vm_get_qmp(vm)) >= 90000) {
        test_vm_qmp_void(vm, "migrate-set-capabilities",
                         "{'capabilities': [{'capability': 'mapped-ram', 'state': true}]}");
        test_vm_qmp_void(vm, "migrate-incoming", "{'uri': 'file:%s'}", path);
        test_vm_assert_status(vm, "running");
        writer_guest_assert_goes_on(vm);
    }
    test_vm_free(vm);
}

/* What QEMU's own background snapshot writes as zeros, on every version. */
static void test_mapped_ram(void)
{
    g_autoptr(ProxiedVm) proxied = proxied_vm_start(NULL);
    g_autoptr(RawQmp) raw = proxied_vm_open_on(proxied);
    g_autofree char *path = proxied_vm_file(proxied, "vm.sf");

    raw_qmp_must(raw, "{'execute': 'migrate-set-capabilities', 'arguments': {'capabilities': ["
                      "{'capability': 'mapped-ram', 'state': true}]}}");
    g_autofree char *caps = raw_qmp_run(raw, "{'execute': 'query-migrate-capabilities'}");
    g_assert_nonnull(strstr(caps, "{\"state\": true, \"capability\": \"mapped-ram\"}"));
    g_autofree char *pipe =
        raw_qmp_run(raw, "{'execute': 'migrate', 'arguments': {'uri': 'exec:cat >/dev/null'}}");
    g_assert_nonnull(strstr(pipe, "GenericError"));
    gsize from = strlen(raw_qmp_text(raw));
    raw_qmp_must(raw, "{'execute': 'migrate', 'arguments': {'uri': 'file:%s'}}", path);
    wait_status(raw, from, "completed");
    writer_guest_check_image(path, 0);
    writer_guest_assert_goes_on(proxied->vm);
    assert_mapped_loads(path);
}

/* The names in QEMU, descriptors in a set, and an argument vector. */
static void test_descriptors(void)
{
    g_autoptr(ProxiedVm) proxied = proxied_vm_start(NULL);
    g_autoptr(RawQmp) raw = proxied_vm_open_on(proxied);
    g_autofree char *path = proxied_vm_file(proxied, "by-name");
    g_autofree char *set_path = proxied_vm_file(proxied, "by-set");
    sf_autofd file = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    sf_autofd set = open(set_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    guint before = count_descriptors(test_vm_get_pid(proxied->vm));

    raw_qmp_say_fd(
        raw,
        "{\"execute\": \"getfd\", \"arguments\": {\"fdname\": \"migrate\"}, \"id\": \"get\"}\n",
        file);
    raw_qmp_wait(raw, 0, "\"id\": \"get\"");
    gsize from = strlen(raw_qmp_text(raw));
    raw_qmp_must(raw, "{'execute': 'migrate', 'arguments': {'uri': 'fd:migrate'}}");
    from = wait_status(raw, from, "completed");
    writer_guest_check_image(path, 0);
    test_vm_assert_descriptors(proxied->vm, before);

    raw_qmp_say_fd(
        raw, "{\"execute\": \"add-fd\", \"arguments\": {\"fdset-id\": 7}, \"id\": \"add\"}\n", set);
    raw_qmp_wait(raw, 0, "\"id\": \"add\"");
    raw_qmp_must(raw,
                 "{'execute': 'migrate', 'arguments': {'uri': 'file:/dev/fdset/7,offset=4096'}}");
    wait_status(raw, from, "completed");
    writer_guest_check_image(set_path, 4096);
}

/* Whoever reads the pipe sees its end as soon as the snapshot is told to be complete. */
static void test_pipe_ends(void)
{
    g_autoptr(ProxiedVm) proxied = proxied_vm_start_empty(NULL);
    g_autoptr(RawQmp) raw = proxied_vm_open_on(proxied);
    int ends[2];

    g_assert_no_errno(pipe2(ends, O_CLOEXEC));
    raw_qmp_say_fd(
        raw, "{\"execute\": \"getfd\", \"arguments\": {\"fdname\": \"p\"}, \"id\": \"get\"}\n",
        ends[1]);
    close(ends[1]);
    raw_qmp_wait(raw, 0, "\"id\": \"get\"");
    raw_qmp_must(raw, "{'execute': 'migrate', 'arguments': {'uri': 'fd:p'}}");
    g_autofree char *piece = g_malloc(MIB);
    ssize_t got;
    guint64 bytes = 0;
    while ((got = read(ends[0], piece, MIB)) > 0) {
        bytes += (guint64)got;
    }
    close(ends[0]);
    wait_status(raw, 0, "completed");
    g_autoptr(JsonObject) info = query_migrate(raw);
    JsonObject *ram = json_object_get_object_member(info, "ram");
    g_assert_cmpuint(bytes, ==, (guint64)json_object_get_int_member(ram, "transferred"));
}

/* A limit that is set holds the image back, not the guest; lifting it lets it finish. */
static void test_bandwidth(void)
{
    g_autoptr(ProxiedVm) proxied = proxied_vm_start(NULL);
    g_autoptr(RawQmp) raw = proxied_vm_open_on(proxied);

    raw_qmp_must(raw,
                 "{'execute': 'migrate-set-parameters', 'arguments': {'max-bandwidth': 65536}}");
    gsize from = strlen(raw_qmp_text(raw));
    raw_qmp_must(raw, "{'execute': 'migrate', 'arguments': {'uri': 'exec:cat >/dev/null'}}");
    raw_qmp_wait(raw, from, "\"RESUME\"");
    g_autofree char *serial = test_vm_read_serial(proxied->vm);
    test_vm_serial_wait_try(proxied->vm, strlen(serial), "V", WRITER_TIMEOUT_MS);
    g_autoptr(JsonObject) info = query_migrate(raw);
    g_assert_cmpstr(json_object_get_string_member(info, "status"), ==, "active");
    g_assert_cmpint(
        json_object_get_int_member(json_object_get_object_member(info, "ram"), "remaining"), >, 0);
    raw_qmp_must(raw, "{'execute': 'migrate-set-parameters', 'arguments': {'max-bandwidth': 0}}");
    wait_status(raw, from, "completed");
    writer_guest_assert_goes_on(proxied->vm);
}

/* HMP's lines inside QMP. */
static void test_hmp_lines(void)
{
    g_autoptr(ProxiedVm) proxied = proxied_vm_start_empty(NULL);
    g_autoptr(RawQmp) raw = raw_qmp_open(proxied->socket);
    g_autofree char *path = proxied_vm_file(proxied, "vm.sf");
    const char *lines[] = { "migrate_set_capability events on",
                            "migrate_set_capability background-snapshot on", NULL };

    for (guint i = 0; lines[i]; i++) {
        raw_qmp_must(raw,
                     "{'execute': 'human-monitor-command', 'arguments': {'command-line': '%s'}}",
                     lines[i]);
    }
    raw_qmp_must(
        raw,
        "{'execute': 'human-monitor-command', 'arguments': {'command-line': 'migrate -d file:%s'}}",
        path);
    wait_status(raw, 0, "completed");
    g_autofree char *info = raw_qmp_run(
        raw, "{'execute': 'human-monitor-command', 'arguments': {'command-line': 'info migrate'}}");
    g_assert_nonnull(strstr(info, "completed"));
    g_assert_true(g_file_test(path, G_FILE_TEST_EXISTS));
}

/* Somebody else's QMP client, from a Debian package. */
static void test_foreign_client(void)
{
    const char *program = g_getenv("STILLFRAME_GANETI_CLIENT");
    g_autoptr(ProxiedVm) proxied = proxied_vm_start(NULL);
    g_autofree char *path = proxied_vm_file(proxied, "vm.sf");
    g_autofree char *out = NULL, *err = NULL;

    if (!program) {
        g_test_skip("STILLFRAME_GANETI_CLIENT does not name the script");
        return;
    }
    g_autoptr(RawQmp) first = raw_qmp_open(proxied->socket);
    g_clear_pointer(&first, raw_qmp_free);
    const char *const argv[] = { program, proxied->socket, path, NULL };
    int status = test_tool_finish(test_tool_start_command(argv), 60000, &out, &err);
    if (status == 77) {
        g_test_skip(out);
        return;
    }
    if (status != 0) {
        g_error("the client ended with %d: %s%s", status, out, err);
    }
    writer_guest_check_image(path, 0);
    writer_guest_assert_goes_on(proxied->vm);
}

/* Our image into a QEMU that waits, in QEMU's newer words, whatever its version. */
static void test_incoming_file(void)
{
    g_autoptr(ProxiedVm) proxied = proxied_vm_start(NULL);
    g_autofree char *path = proxied_vm_file(proxied, "vm.sf");
    {
        g_autoptr(RawQmp) raw = proxied_vm_open_on(proxied);
        raw_qmp_must(raw, "{'execute': 'migrate', 'arguments': {'uri': 'file:%s,offset=0x1000'}}",
                     path);
        wait_status(raw, 0, "completed");
    }
    TestVm *vm = writer_guest_new("-incoming", "defer", NULL);
    test_vm_launch(vm);
    ProxiedVm target = { .vm = vm, .dir = proxied->dir };
    target.socket = proxied_vm_file(proxied, "target.sock");
    proxied_vm_start_proxy(&target, NULL);
    {
        g_autoptr(RawQmp) raw = raw_qmp_open(target.socket);
        /* Where the form is QEMU's own, its failure cannot be repaired, and is QEMU's. */
        if (qmp_client_get_version(test_vm_get_qmp(vm)) < 80200) {
            g_autofree char *missing = raw_qmp_run(
                raw, "{'execute': 'migrate-incoming', 'arguments': {'uri': 'file:%s.not'}}", path);
            g_assert_nonnull(strstr(missing, "No such file"));
        }
        raw_qmp_must(raw,
                     "{'execute': 'migrate-incoming', 'arguments': {'uri': 'file:%s,offset=4096'}}",
                     path);
        test_vm_assert_status(vm, "running");
    }
    writer_guest_assert_goes_on(vm);
    kill(test_tool_get_pid(target.proxy), SIGTERM);
    g_assert_cmpint(test_tool_finish(target.proxy, 30000, NULL, NULL), ==, 0);
    g_free(target.socket);
    test_vm_free(vm);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/proxy/pass/conversations", test_conversations);
    g_test_add_func("/proxy/pass/garbage", test_garbage);
    g_test_add_func("/proxy/pass/nested-message", test_nested_message);
    g_test_add_func("/proxy/pass/half-a-message", test_half_a_message);
    g_test_add_func("/proxy/pass/long-message", test_long_message);
    g_test_add_func("/proxy/pass/huge-message", test_huge_message);
    g_test_add_func("/proxy/pass/client-that-does-not-read", test_client_that_does_not_read);
    g_test_add_func("/proxy/migrate/file", test_migrate_file);
    g_test_add_func("/proxy/migrate/same-fields", test_same_fields);
    g_test_add_func("/proxy/migrate/refusals", test_refusals);
    g_test_add_func("/proxy/migrate/cancel", test_cancel);
    g_test_add_func("/proxy/migrate/mapped-ram", test_mapped_ram);
    g_test_add_func("/proxy/migrate/descriptors", test_descriptors);
    g_test_add_func("/proxy/migrate/pipe-ends", test_pipe_ends);
    g_test_add_func("/proxy/migrate/bandwidth", test_bandwidth);
    g_test_add_func("/proxy/migrate/hmp-lines", test_hmp_lines);
    g_test_add_func("/proxy/foreign-client", test_foreign_client);
    g_test_add_func("/proxy/incoming-file", test_incoming_file);
    return g_test_run();
}
