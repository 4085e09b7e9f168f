/*
 * stillframe monitor: QEMU's human monitor, with migrate answered by Stillframe.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "attach/qemu-process.h"
#include "commands.h"
#include "monitor/hmp-terminal.h"
#include "monitor/qmp.h"
#include "progress.h"

/* A signal handler has no context to be given. */
static volatile int interrupts;

static void on_interrupt(int signal_number)
{
    interrupts++;
}

static void catch_interrupts(void)
{
    struct sigaction action = { .sa_handler = on_interrupt };
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

/* Bytes as they are typed, shown by us; signals and output as before. */
static gboolean make_raw(struct termios *before)
{
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) || tcgetattr(STDIN_FILENO, before) < 0) {
        return FALSE;
    }
    struct termios raw = *before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ECHONL | IEXTEN);
    raw.c_iflag &= ~(tcflag_t)(ICRNL | INLCR | IXON);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    return TRUE;
}

static gint64 get_ram(JsonObject *info, const char *member)
{
    JsonNode *ram = json_object_get_member(info, "ram");
    return ram && JSON_NODE_HOLDS_OBJECT(ram)
               ? json_object_get_int_member_with_default(json_node_get_object(ram), member, 0)
               : 0;
}

static void show_progress(JsonObject *info, gpointer user)
{
    if (!info) {
        progress_bar_finish(user);
        return;
    }
    gint64 total = get_ram(info, "total"), left = get_ram(info, "remaining");
    g_autofree char *saved =
        g_format_size_full((guint64)MAX(total - left, 0), G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *all = g_format_size_full((guint64)MAX(total, 0), G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *text = g_strdup_printf(
        "%s  %s of %s", json_object_get_string_member_with_default(info, "status", "?"), saved,
        all);
    progress_bar_update(user, total > 0 ? (double)(total - left) / (double)total : 0, text);
}

/* TRUE when all lines were accepted, or a person sat before it. */
static gboolean serve(HmpSession *session, GError **errp)
{
    struct termios before;
    g_autoptr(ProgressBar) bar = progress_bar_new();
    HmpTerminalOptions options = {
        .interrupts = &interrupts, .leaves_on_ctrl_d = TRUE, .progress = show_progress, .user = bar
    };
    gboolean good, refused = FALSE;

    catch_interrupts();
    if (make_raw(&before)) {
        good = hmp_terminal_run(session, STDIN_FILENO, STDOUT_FILENO, &options, errp);
        tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
    } else {
        good =
            hmp_terminal_run_lines(session, STDIN_FILENO, STDOUT_FILENO, &options, &refused, errp);
    }
    if (good && refused) {
        g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_COMMAND,
                    "not every line was carried out: see what was printed");
    }
    return good && !refused;
}

static gboolean run(const char *address, GError **errp)
{
    g_autoptr(QmpMux) mux = qmp_mux_open_address(address, QMP_GREETING_TIMEOUT_MS, errp);
    if (!mux) {
        return FALSE;
    }
    pid_t pid = qemu_process_of_socket(qmp_mux_get_qemu_fd(mux), NULL);
    g_autoptr(HmpSession) session = hmp_session_new(mux, MAX(pid, 0), errp);
    if (!session) {
        return FALSE;
    }
    g_autoptr(GError) error = NULL;
    gboolean good = serve(session, &error);
    if (!good && g_error_matches(error, SF_ERROR, SF_ERROR_VM_GONE) &&
        hmp_session_saw_shutdown(session)) {
        /* By "quit", or in another orderly way. */
        if (isatty(STDOUT_FILENO)) {
            puts("QEMU has ended");
        }
        return TRUE;
    }
    if (error) {
        g_propagate_error(errp, g_steal_pointer(&error));
    }
    return good;
}

int cmd_monitor(int argc, char **argv)
{
    g_autoptr(GOptionContext) context = g_option_context_new("SOCKET");
    g_option_context_set_summary(
        context,
        "QEMU's human monitor on a running VM: the commands that QEMU has, with migrate and its\n"
        "family answered by Stillframe while the capability background-snapshot is on. SOCKET is\n"
        "the VM's QMP monitor: PATH, unix:PATH or tcp:HOST:PORT. Commands may be piped in.");
    g_autoptr(GError) error = NULL;
    if (!g_option_context_parse(context, &argc, &argv, &error) || argc != 2) {
        g_autoptr(GError) usage = NULL;
        command_usage_error(&usage, error ? error->message : "give one SOCKET");
        return command_fail(usage);
    }
    return run(argv[1], &error) ? EXIT_SUCCESS : command_fail(error);
}
