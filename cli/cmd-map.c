/*
 * stillframe map
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>

#include "cancel.h"
#include "commands.h"
#include "image-progress.h"
#include "image/memory-map.h"
#include "json-output.h"

typedef struct Arguments {
    char *parent;
    gboolean json;
    char **rest;
} Arguments;

static void arguments_clear(Arguments *arguments)
{
    g_free(arguments->parent);
    g_strfreev(arguments->rest);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Arguments, arguments_clear)

static gboolean parse_arguments(Arguments *arguments, int *argc, char ***argv, GError **errp)
{
    const GOptionEntry entries[] = {
        { "parent", 0, 0, G_OPTION_ARG_FILENAME, &arguments->parent,
          "Mark the pages that are not as in this image", "IMAGE" },
        { "json", 0, 0, G_OPTION_ARG_NONE, &arguments->json, "Print the counts as JSON", NULL },
        { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &arguments->rest, NULL, NULL },
        { NULL },
    };
    g_autoptr(GOptionContext) context = g_option_context_new("IMAGE PNG");

    g_option_context_set_summary(context, "Draws a picture of the guest memory in IMAGE.");
    g_option_context_add_main_entries(context, entries, NULL);
    g_autoptr(GError) error = NULL;
    if (!g_option_context_parse(context, argc, argv, &error)) {
        return command_usage_error(errp, error->message);
    }
    if (!arguments->rest || g_strv_length(arguments->rest) != 2) {
        return command_usage_error(errp, "give IMAGE, and the PNG file to write");
    }
    return TRUE;
}

static void print_json(const MemoryMapReport *report)
{
    JsonObject *object = json_object_new();

    json_object_set_int_member(object, "width", report->width);
    json_object_set_int_member(object, "height", report->height);
    json_object_set_int_member(object, "absent-pages", (gint64)report->counts[MAP_ABSENT]);
    json_object_set_int_member(object, "zero-pages", (gint64)report->counts[MAP_ZERO]);
    json_object_set_int_member(object, "data-pages", (gint64)report->counts[MAP_DATA]);
    json_object_set_int_member(object, "sweep-pages", (gint64)report->counts[MAP_SWEEP]);
    json_object_set_int_member(object, "fault-pages", (gint64)report->counts[MAP_FAULT]);
    json_object_set_int_member(object, "hot-pages", (gint64)report->counts[MAP_HOT]);
    json_object_set_int_member(object, "changed-pages", (gint64)report->counts[MAP_CHANGED]);
    json_print_object(object, stdout);
}

static gboolean write_picture(Canvas *canvas, const char *path, GError **errp)
{
    const Destination destination = { .kind = DEST_FILE, .path = (char *)path };
    g_autoptr(Channel) channel = channel_open_output(&destination, TRUE, errp);

    return channel && canvas_write(canvas, channel, errp) && channel_commit(channel, errp);
}

static gboolean run(const Arguments *arguments, GError **errp)
{
    ImageProgress progress = { .cancel = cancel_on_signals() };
    MemoryMapReport report;
    g_autoptr(ImageReader) reader = image_reader_open(arguments->rest[0], 0, errp);
    g_autoptr(ImageReader) parent =
        reader && arguments->parent ? image_reader_open(arguments->parent, 0, errp) : NULL;

    if (!reader || (arguments->parent && !parent)) {
        return FALSE;
    }
    g_autoptr(ProgressBar) bar = image_progress_show(&progress);
    g_autoptr(Canvas) canvas = memory_map_draw(reader, parent, &progress, &report, errp);
    progress_bar_finish(bar);
    if (!canvas || !write_picture(canvas, arguments->rest[1], errp)) {
        return FALSE;
    }
    if (arguments->json) {
        print_json(&report);
    }
    return TRUE;
}

int cmd_map(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_auto(Arguments) arguments = { 0 };

    if (!parse_arguments(&arguments, &argc, &argv, &error) || !run(&arguments, &error)) {
        return command_fail(error);
    }
    return EXIT_SUCCESS;
}
