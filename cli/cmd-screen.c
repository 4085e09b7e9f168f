/*
 * stillframe screen
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>

#include "commands.h"
#include "json-output.h"
#include "migration/image-reader.h"

typedef struct Arguments {
    gboolean json;
    char **rest;
} Arguments;

static gboolean parse_arguments(Arguments *arguments, int *argc, char ***argv, GError **errp)
{
    const GOptionEntry entries[] = {
        { "json", 0, 0, G_OPTION_ARG_NONE, &arguments->json, "Print the report as JSON", NULL },
        { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &arguments->rest, NULL, NULL },
        { NULL },
    };
    g_autoptr(GOptionContext) context = g_option_context_new("IMAGE PNG");

    g_option_context_set_summary(context, "Writes the picture of the guest's screen that IMAGE "
                                          "holds.");
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

static gboolean write_picture(const ImageIndex *index, const char *path, GError **errp)
{
    const Destination destination = { .kind = DEST_FILE, .path = (char *)path };
    g_autoptr(Channel) channel = channel_open_output(&destination, TRUE, errp);
    struct iovec iov = { (void *)index->screen, index->screen_length };

    return channel && channel_writev(channel, &iov, 1, errp) && channel_commit(channel, errp);
}

static gboolean run(const Arguments *arguments, GError **errp)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(ImageReader) reader = image_reader_open(arguments->rest[0], 0, errp);
    const ImageIndex *index = reader ? image_reader_find_index(reader, &error) : NULL;

    if (error) {
        g_propagate_error(errp, g_steal_pointer(&error));
    }
    if (!reader || (errp && *errp)) {
        return FALSE;
    }
    if (!index || !index->screen_length) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "%s holds no picture of the guest's screen", arguments->rest[0]);
        return FALSE;
    }
    if (!write_picture(index, arguments->rest[1], errp)) {
        return FALSE;
    }
    if (arguments->json) {
        JsonObject *object = json_object_new();
        json_object_set_int_member(object, "bytes", (gint64)index->screen_length);
        json_print_object(object, stdout);
    }
    return TRUE;
}

int cmd_screen(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    Arguments arguments = { 0 };
    int status = EXIT_SUCCESS;

    if (!parse_arguments(&arguments, &argc, &argv, &error) || !run(&arguments, &error)) {
        status = command_fail(error);
    }
    g_strfreev(arguments.rest);
    return status;
}
