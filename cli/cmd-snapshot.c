/*
 * stillframe snapshot
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>

#include "cancel.h"
#include "commands.h"
#include "json-output.h"
#include "migration/snapshot.h"
#include "progress.h"

typedef struct Arguments {
    gint pid;
    char *qmp;
    char *on_full;
    char *max_buffer;
    char *format;
    char *parent;
    char *label;
    gboolean no_screen;
    gint fault_threads;
    gboolean no_sync;
    gboolean json;
    char **rest;
} Arguments;

static void arguments_clear(Arguments *arguments)
{
    g_free(arguments->qmp);
    g_free(arguments->on_full);
    g_free(arguments->max_buffer);
    g_free(arguments->format);
    g_free(arguments->parent);
    g_free(arguments->label);
    g_strfreev(arguments->rest);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Arguments, arguments_clear)

static gboolean parse_arguments(Arguments *arguments, int *argc, char ***argv, GError **errp)
{
    const GOptionEntry entries[] = {
        { "pid", 'p', 0, G_OPTION_ARG_INT, &arguments->pid, "The QEMU process", "PID" },
        { "qmp", 'q', 0, G_OPTION_ARG_FILENAME, &arguments->qmp,
          "Its QMP monitor: PATH, unix:PATH or tcp:HOST:PORT", "SOCKET" },
        { "format", 'f', 0, G_OPTION_ARG_STRING, &arguments->format,
          "stream (every QEMU loads it, default) or mapped-ram (QEMU 9.0 and later)", "FORMAT" },
        { "parent", 'P', 0, G_OPTION_ARG_FILENAME, &arguments->parent,
          "An older image of this VM: pages that it has are not written again", "IMAGE" },
        { "label", 'l', 0, G_OPTION_ARG_STRING, &arguments->label,
          "What the image is to be called in its index", "TEXT" },
        { "no-screen", 0, 0, G_OPTION_ARG_NONE, &arguments->no_screen,
          "Do not put a picture of the guest's screen into the index", NULL },
        { "max-buffer", 0, 0, G_OPTION_ARG_STRING, &arguments->max_buffer,
          "Memory for pages on their way (default 256M, at least 8M)", "SIZE" },
        { "on-full", 0, 0, G_OPTION_ARG_STRING, &arguments->on_full,
          "When it is full: stall (the guest's writers wait, default) or cancel", "WHAT" },
        { "fault-threads", 0, 0, G_OPTION_ARG_INT, &arguments->fault_threads,
          "Threads that serve write faults (default: by the number of cores)", "N" },
        { "no-sync", 0, 0, G_OPTION_ARG_NONE, &arguments->no_sync,
          "Do not wait until a file is on the disk", NULL },
        { "json", 0, 0, G_OPTION_ARG_NONE, &arguments->json, "Print the report as JSON", NULL },
        { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &arguments->rest, NULL, NULL },
        { NULL },
    };
    g_autoptr(GOptionContext) context = g_option_context_new("DESTINATION");

    g_option_context_set_summary(
        context,
        "Takes a live snapshot of a running QEMU: its memory at one instant and its device "
        "state,\nas a migration stream that any QEMU loads. The guest keeps running.\n\n"
        "DESTINATION is file:PATH[,offset=SIZE] or PATH, exec:COMMAND, fd:N, unix:PATH or\n"
        "tcp:HOST:PORT.");
    g_option_context_add_main_entries(context, entries, NULL);
    g_autoptr(GError) error = NULL;
    if (!g_option_context_parse(context, argc, argv, &error)) {
        return command_usage_error(errp, error->message);
    }
    return TRUE;
}

static gboolean check_numbers(const Arguments *arguments, SnapshotOptions *options, GError **errp)
{
    if (arguments->pid < 0 || (!arguments->pid && !arguments->qmp)) {
        return command_usage_error(errp, "say which VM: --pid PID or --qmp SOCKET");
    }
    if (arguments->fault_threads < 0 || arguments->fault_threads > 64) {
        return command_usage_error(errp, "--fault-threads takes 1 to 64");
    }
    if (arguments->max_buffer &&
        !destination_parse_size(arguments->max_buffer, &options->max_buffer, errp)) {
        return FALSE;
    }
    if (options->max_buffer < SNAPSHOT_MAX_BUFFER_MIN) {
        return command_usage_error(errp, "--max-buffer must be at least 8M");
    }
    if (arguments->on_full && g_str_equal(arguments->on_full, "cancel")) {
        options->on_full = ON_FULL_CANCEL;
    } else if (arguments->on_full && !g_str_equal(arguments->on_full, "stall")) {
        return command_usage_error(errp, "--on-full takes stall or cancel");
    }
    return TRUE;
}

static gboolean check_format(const Arguments *arguments, SnapshotOptions *options, GError **errp)
{
    if (!arguments->format) {
        options->format = (ImageFormat)0;
    } else if (g_str_equal(arguments->format, "stream")) {
        options->format = IMAGE_FORMAT_STREAM;
    } else if (g_str_equal(arguments->format, "mapped-ram")) {
        options->format = IMAGE_FORMAT_MAPPED_RAM;
    } else {
        return command_usage_error(errp, "--format takes stream or mapped-ram");
    }
    return TRUE;
}

static const char *phase_name(SnapshotPhase phase)
{
    static const char *const names[] = { "attaching", "arming", "freezing", "saving", "finishing" };
    return names[phase];
}

static void show_progress(const SnapshotProgress *progress, gpointer user)
{
    double share =
        progress->total_bytes ? (double)progress->saved_bytes / (double)progress->total_bytes : 0;
    g_autofree char *saved = g_format_size_full(progress->saved_bytes, G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *total = g_format_size_full(progress->total_bytes, G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *text =
        g_strdup_printf("%s  %s of %s, %" G_GUINT64_FORMAT " faults", phase_name(progress->phase),
                        saved, total, progress->faults);
    progress_bar_update(user, share, text);
}

static void print_report(const SnapshotReport *report, gboolean json)
{
    if (json) {
        g_autoptr(JsonNode) node = snapshot_report_to_json(report);
        json_print(node);
    } else {
        g_autofree char *text = snapshot_report_to_text(report);
        fputs(text, stdout);
    }
}

static gboolean run(const Arguments *arguments, GError **errp)
{
    SnapshotOptions options = { .pid = arguments->pid,
                                .qmp = arguments->qmp,
                                .sync = !arguments->no_sync,
                                .label = arguments->label,
                                .parent = arguments->parent,
                                .no_screen = arguments->no_screen,
                                .max_buffer = SNAPSHOT_MAX_BUFFER_DEFAULT,
                                .fault_threads = (guint)arguments->fault_threads,
                                .progress = show_progress };

    if (!check_numbers(arguments, &options, errp) || !check_format(arguments, &options, errp)) {
        return FALSE;
    }
    if (!arguments->rest || !arguments->rest[0] || arguments->rest[1]) {
        return command_usage_error(errp, "give one DESTINATION");
    }
    g_autoptr(Destination) destination = destination_parse(arguments->rest[0], errp);
    if (!destination) {
        return FALSE;
    }
    g_autoptr(ProgressBar) bar = progress_bar_new();
    SnapshotReport report = { 0 };
    options.destination = destination;
    options.progress_user = bar;
    gboolean good = snapshot_run(&options, cancel_on_signals(), &report, errp);
    progress_bar_finish(bar);
    if (good) {
        print_report(&report, arguments->json);
    }
    snapshot_report_clear(&report);
    return good;
}

int cmd_snapshot(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_auto(Arguments) arguments = { 0 };

    if (!parse_arguments(&arguments, &argc, &argv, &error) || !run(&arguments, &error)) {
        return command_fail(error);
    }
    return EXIT_SUCCESS;
}
