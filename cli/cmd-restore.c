/*
 * stillframe restore
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "cancel.h"
#include "commands.h"
#include "json-output.h"
#include "migration/channel.h"
#include "migration/incoming.h"
#include "progress.h"

#define PROGRAM "/proc/self/exe"

typedef struct Arguments {
    char *offset;
    gboolean lazy;
    gboolean eager;
    gboolean no_supervisor;
    int resume;
    char *max_bandwidth;
    gboolean json;
    gboolean wait;
    char **rest;
} Arguments;

static void arguments_clear(Arguments *arguments)
{
    g_free(arguments->offset);
    g_free(arguments->max_bandwidth);
    g_strfreev(arguments->rest);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Arguments, arguments_clear)

/* Everything from "--" on is QEMU's. Cuts it off *argc and returns it; NULL where there is none. */
static char **split_command(int *argc, char **argv)
{
    for (int i = 1; i < *argc; i++) {
        if (!strcmp(argv[i], "--")) {
            argv[i] = NULL;
            *argc = i;
            return argv + i + 1;
        }
    }
    return NULL;
}

static gboolean parse_arguments(Arguments *arguments, int *argc, char ***argv, GError **errp)
{
    const GOptionEntry entries[] = {
        { "offset", 0, 0, G_OPTION_ARG_STRING, &arguments->offset,
          "Where the stream begins in the image (default 0)", "SIZE" },
        { "lazy", 0, 0, G_OPTION_ARG_NONE, &arguments->lazy,
          "The guest runs first, and its memory follows; returns when all of it is there", NULL },
        { "eager", 0, 0, G_OPTION_ARG_NONE, &arguments->eager,
          "The guest runs when its memory is there (the default)", NULL },
        { "resume", 0, 0, G_OPTION_ARG_INT, &arguments->resume,
          "Go on with the lazy restore of process PID, whose page server died", "PID" },
        { "max-bandwidth", 0, 0, G_OPTION_ARG_STRING, &arguments->max_bandwidth,
          "Lazily, limit what follows unasked to SIZE a second (default: no limit)", "SIZE" },
        { "no-supervisor", 0, 0, G_OPTION_ARG_NONE, &arguments->no_supervisor,
          "Lazily, start no process that goes on when this one is killed", NULL },
        { "wait", 0, 0, G_OPTION_ARG_NONE, &arguments->wait,
          "Stay until QEMU ends and return its exit status (for -nographic and services)", NULL },
        { "json", 0, 0, G_OPTION_ARG_NONE, &arguments->json,
          "Print the report as JSON; QEMU writes to the same standard output", NULL },
        { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &arguments->rest, NULL, NULL },
        { NULL },
    };
    g_autoptr(GOptionContext) context = g_option_context_new("IMAGE -- QEMU-COMMAND...");

    g_option_context_set_summary(
        context,
        "Starts QEMU-COMMAND with the state of IMAGE and returns when it runs (or is "
        "paused, if the\nsource was or -S asks for it). The command is the source's, without "
        "-incoming.");
    g_option_context_add_main_entries(context, entries, NULL);
    g_autoptr(GError) error = NULL;
    if (!g_option_context_parse(context, argc, argv, &error)) {
        return command_usage_error(errp, error->message);
    }
    if (arguments->lazy && arguments->eager) {
        return command_usage_error(errp, "--lazy and --eager contradict each other");
    }
    if (arguments->resume < 0 || (arguments->resume && arguments->offset)) {
        return command_usage_error(errp, "--resume takes the number of a process, and no --offset");
    }
    guint images = arguments->rest ? g_strv_length(arguments->rest) : 0;
    if (images > 1 || (!images && !arguments->resume)) {
        return command_usage_error(errp, "give one IMAGE, then -- and the QEMU command");
    }
    return TRUE;
}

static void show_progress(IncomingPhase phase, guint64 done, guint64 total, gpointer user)
{
    static const char *const doing[] = { "loading", "looking for the pages", "memory" };
    g_autofree char *done_text = g_format_size_full(done, G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *total_text = g_format_size_full(total, G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *text = g_strdup_printf("%s  %s of %s", doing[phase], done_text, total_text);

    progress_bar_update(user, total ? (double)done / (double)total : 0, text);
}

static void add_ms(JsonBuilder *builder, const char *name, double seconds)
{
    json_builder_set_member_name(builder, name);
    json_builder_add_double_value(builder, seconds * 1000);
}

static void print_json(const IncomingReport *report)
{
    g_autoptr(JsonBuilder) builder = json_builder_new();

    json_builder_begin_object(builder);
    json_builder_set_member_name(builder, "pid");
    json_builder_add_int_value(builder, report->pid);
    json_builder_set_member_name(builder, "running");
    json_builder_add_boolean_value(builder, report->running);
    json_builder_set_member_name(builder, "run-state");
    json_builder_add_string_value(builder, report->run_state ? report->run_state : "");
    json_builder_set_member_name(builder, "bytes");
    json_builder_add_int_value(builder, (gint64)report->bytes);
    json_builder_set_member_name(builder, "time-ms");
    json_builder_begin_object(builder);
    add_ms(builder, "start", report->start_seconds);
    add_ms(builder, "load", report->load_seconds);
    add_ms(builder, "total", report->start_seconds + report->load_seconds);
    add_ms(builder, "fill", report->fill_seconds);
    json_builder_end_object(builder);
    json_builder_set_member_name(builder, "filled-bytes");
    json_builder_add_int_value(builder, (gint64)report->filled_bytes);
    json_builder_set_member_name(builder, "faults");
    json_builder_add_int_value(builder, (gint64)report->faults);
    json_builder_end_object(builder);
    g_autoptr(JsonNode) node = json_builder_get_root(builder);
    json_print(node);
}

/* On standard error: standard output may be the guest's console. */
static void print_text(const IncomingReport *report)
{
    g_autofree char *bytes = g_format_size_full(report->bytes, G_FORMAT_SIZE_IEC_UNITS);

    fprintf(stderr, "restored: QEMU %d is %s, %.3f s after its start (%s loaded in %.3f s)\n",
            (int)report->pid, report->run_state, report->start_seconds + report->load_seconds,
            bytes, report->load_seconds);
}

static void print_runs(const IncomingReport *report, gpointer bar)
{
    progress_bar_finish(bar);
    print_text(report);
}

static void print_filled(const IncomingReport *report)
{
    g_autofree char *bytes = g_format_size_full(report->filled_bytes, G_FORMAT_SIZE_IEC_UNITS);

    fprintf(stderr,
            "complete: all memory of QEMU %d is there, %.3f s later (%s; %" G_GUINT64_FORMAT
            " faults)\n",
            (int)report->pid, report->fill_seconds, bytes, report->faults);
}

/*
 * QEMU's exit status as a shell gives it. Behind -daemonize there is no child to wait for. What
 * ends us ends QEMU: Ctrl-C has reached it already, a SIGTERM for us alone has not.
 */
static int wait_for_qemu(pid_t pid, const volatile int *cancel)
{
    int status;

    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return EXIT_SUCCESS;
        }
        if (*cancel) {
            kill(pid, SIGTERM);
        }
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static gboolean take_options(const Arguments *arguments, char **command, IncomingOptions *options,
                             GError **errp)
{
    options->image = arguments->rest ? arguments->rest[0] : NULL;
    options->qemu_command = command;
    options->progress = show_progress;
    options->lazy = arguments->lazy;
    options->runs = arguments->json ? NULL : print_runs;
    return (!arguments->offset ||
            destination_parse_size(arguments->offset, &options->offset, errp)) &&
           (!arguments->max_bandwidth ||
            destination_parse_size(arguments->max_bandwidth, &options->max_bandwidth, errp));
}

/* How a supervisor starts the next server; its text is owned by the arguments. */
static void fill_resume_command(const Arguments *arguments, const char *command[6])
{
    guint n = 0;

    command[n++] = PROGRAM;
    command[n++] = "restore";
    command[n++] = "--no-supervisor";
    if (arguments->max_bandwidth) {
        command[n++] = "--max-bandwidth";
        command[n++] = arguments->max_bandwidth;
    }
    command[n] = NULL;
}

static gboolean run_with(const Arguments *arguments, IncomingOptions *options,
                         const volatile int *cancel, IncomingReport *report, GError **errp)
{
    const char *resume_command[6];

    if (!arguments->no_supervisor) {
        fill_resume_command(arguments, resume_command);
        options->resume_command = resume_command;
    }
    return arguments->resume
               ? incoming_resume((pid_t)arguments->resume, options, cancel, report, errp)
               : incoming_run(options, cancel, report, errp);
}

static gboolean run(const Arguments *arguments, char **command, const volatile int *cancel,
                    pid_t *pid, GError **errp)
{
    IncomingOptions options = { 0 };
    IncomingReport report;

    if (!take_options(arguments, command, &options, errp)) {
        return FALSE;
    }
    g_autoptr(ProgressBar) bar = progress_bar_new();
    options.progress_user = bar;
    gboolean good = run_with(arguments, &options, cancel, &report, errp);
    progress_bar_finish(bar);
    if (good && arguments->json) {
        print_json(&report);
    } else if (good && (arguments->lazy || arguments->resume)) {
        print_filled(&report);
    } else if (good) {
        print_text(&report);
    }
    *pid = report.pid;
    incoming_report_clear(&report);
    return good;
}

int cmd_restore(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_auto(Arguments) arguments = { 0 };
    char **command = split_command(&argc, argv);
    pid_t pid = 0;

    if (!parse_arguments(&arguments, &argc, &argv, &error)) {
        return command_fail(error);
    }
    if (!arguments.resume == (!command || !command[0])) {
        command_usage_error(&error, arguments.resume ? "--resume takes no QEMU command"
                                                     : "give the QEMU command behind --");
        return command_fail(error);
    }
    const volatile int *cancel = cancel_on_signals();
    if (!run(&arguments, command, cancel, &pid, &error)) {
        return command_fail(error);
    }
    return arguments.wait && !arguments.resume ? wait_for_qemu(pid, cancel) : EXIT_SUCCESS;
}
