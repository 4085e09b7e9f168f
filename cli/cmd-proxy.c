/*
 * stillframe proxy: a QMP socket in front of a running QEMU's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cancel.h"
#include "commands.h"
#include "json-output.h"
#include "listen.h"
#include "monitor/qmp-proxy.h"
#include "util/autofd.h"

typedef struct Arguments {
    gint pid;
    char *qmp;
    char *listen;
    gboolean json;
} Arguments;

static void arguments_clear(Arguments *arguments)
{
    g_free(arguments->qmp);
    g_free(arguments->listen);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Arguments, arguments_clear)

static gboolean parse_arguments(Arguments *arguments, int *argc, char ***argv, GError **errp)
{
    const GOptionEntry entries[] = {
        { "qmp", 'q', 0, G_OPTION_ARG_FILENAME, &arguments->qmp,
          "QEMU's QMP monitor: PATH, unix:PATH or tcp:HOST:PORT", "SOCKET" },
        { "listen", 'l', 0, G_OPTION_ARG_FILENAME, &arguments->listen,
          "Where clients come: PATH or unix:PATH, made anew; or fd:N, a listening socket",
          "SOCKET" },
        { "pid", 'p', 0, G_OPTION_ARG_INT, &arguments->pid,
          "The QEMU process (default: found from its monitor)", "PID" },
        { "json", 0, 0, G_OPTION_ARG_NONE, &arguments->json,
          "Print a JSON object when clients can come", NULL },
        { NULL },
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);

    g_option_context_set_summary(
        context,
        "A QMP server in front of a running QEMU: everything passes through, and while the\n"
        "capability background-snapshot is on, \"migrate\" and its family are answered by "
        "Stillframe.\nEnds with QEMU.");
    g_option_context_add_main_entries(context, entries, NULL);
    g_autoptr(GError) error = NULL;
    if (!g_option_context_parse(context, argc, argv, &error)) {
        return command_usage_error(errp, error->message);
    }
    if (*argc > 1) {
        return command_usage_error(errp, "proxy takes no arguments besides its options");
    }
    if (!arguments->qmp || !arguments->listen || arguments->pid < 0) {
        return command_usage_error(errp, "say where QEMU is and where clients come: --qmp SOCKET "
                                         "--listen SOCKET");
    }
    return TRUE;
}

static void print_ready(pid_t pid, gpointer user)
{
    const Arguments *arguments = user;
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);
    JsonObject *object = json_object_new();

    if (!arguments->json) {
        return;
    }
    json_object_set_int_member(object, "pid", pid);
    json_object_set_string_member(object, "monitor", arguments->qmp);
    json_object_set_string_member(object, "listen", arguments->listen);
    json_node_take_object(node, object);
    json_print(node);
}

static gboolean run(const Arguments *arguments, GError **errp)
{
    const volatile int *cancel = cancel_on_signals();
    sf_autofd listener = listen_open(arguments->listen, errp);

    if (listener < 0) {
        return FALSE;
    }
    QmpProxyOptions options = { .qmp = arguments->qmp,
                                .listen_fd = listener,
                                .pid = arguments->pid,
                                .ready = print_ready,
                                .ready_user = (gpointer)arguments };
    gboolean good = qmp_proxy_run(&options, cancel, errp);
    listen_remove(arguments->listen, listener);
    return good;
}

int cmd_proxy(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_auto(Arguments) arguments = { 0 };

    if (!parse_arguments(&arguments, &argc, &argv, &error) || !run(&arguments, &error)) {
        return command_fail(error);
    }
    return EXIT_SUCCESS;
}
