/*
 * stillframe run: QEMU with its monitors served by Stillframe. This process becomes QEMU, so its
 * process id, exit status, signals, terminal and process group are QEMU's own; who serves the
 * monitors is left behind.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "monitor-server.h"
#include "util/error.h"

/* Only returns on failure. */
static void become_qemu(char **argv, GError **errp)
{
    /* What main() changed and exec keeps. */
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    execvp(argv[0], argv);
    sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot run %s", argv[0]);
}

static void run(char **argv, GError **errp)
{
    g_autofree char *program = g_find_program_in_path(argv[0]);
    if (!program) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE, "there is no program %s", argv[0]);
        return;
    }
    g_autofree char *folder = g_dir_make_tmp("stillframe-run-XXXXXX", errp);
    if (!folder) {
        return;
    }
    g_autoptr(MonitorArgs) args = monitor_args_new(argv, folder, isatty(STDIN_FILENO));
    g_autofree int *fds = g_new(int, args->places->len + 1);
    MonitorServer server = { .args = args, .listen_fds = fds, .folder = folder };
    if (args->places->len == 0) {
        g_rmdir(folder);
        g_printerr("stillframe: no monitor among these arguments can be served; see "
                   "stillframe-run(1). QEMU runs as it would without stillframe\n");
    } else if (!monitor_server_listen(&server, errp) || !monitor_server_fork(&server, errp)) {
        g_rmdir(folder);
        return;
    }
    become_qemu((char **)args->argv->pdata, errp);
}

int cmd_run(int argc, char **argv)
{
    g_autoptr(GOptionContext) context = g_option_context_new("-- QEMU [ARGUMENTS]");
    g_option_context_set_summary(
        context, "Starts QEMU with its monitors served by Stillframe, at the places where the "
                 "arguments\nput them. This process becomes QEMU.");
    g_option_context_set_strict_posix(context, TRUE);
    g_autoptr(GError) error = NULL;
    gboolean good = g_option_context_parse(context, &argc, &argv, &error);
    int first = argc > 1 && g_str_equal(argv[1], "--") ? 2 : 1;
    if (!good || first >= argc) {
        g_autoptr(GError) usage = NULL;
        command_usage_error(&usage, error ? error->message : "give QEMU's command line");
        return command_fail(usage);
    }
    run(argv + first, &error);
    return command_fail(error);
}
