/*
 * stillframe convert
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>

#include "cancel.h"
#include "commands.h"
#include "image-progress.h"
#include "image/convert.h"
#include "json-output.h"
#include "migration/channel.h"

typedef struct Arguments {
    char *format;
    char *compress;
    int level;
    char *xml;
    char *block;
    char *offset;
    gboolean no_sync;
    gboolean json;
    char **rest;
} Arguments;

static void arguments_clear(Arguments *arguments)
{
    g_free(arguments->format);
    g_free(arguments->compress);
    g_free(arguments->xml);
    g_free(arguments->block);
    g_free(arguments->offset);
    g_strfreev(arguments->rest);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Arguments, arguments_clear)

static gboolean parse_arguments(Arguments *arguments, int *argc, char ***argv, GError **errp)
{
    const GOptionEntry entries[] = {
        { "format", 'f', 0, G_OPTION_ARG_STRING, &arguments->format,
          "What to write: stream, mapped-ram, elf, raw or libvirt", "FORMAT" },
        { "compress", 'c', 0, G_OPTION_ARG_STRING, &arguments->compress,
          "Compress it: zstd, or zlib (as gzip writes it)", "METHOD" },
        { "level", 0, 0, G_OPTION_ARG_INT, &arguments->level,
          "Level of the compression (default 1)", "N" },
        { "xml", 0, 0, G_OPTION_ARG_FILENAME, &arguments->xml,
          "libvirt: the domain's XML (default: that of IN)", "FILE" },
        { "block", 0, 0, G_OPTION_ARG_STRING, &arguments->block,
          "raw: this RAM block alone (default: all RAM)", "NAME" },
        { "offset", 0, 0, G_OPTION_ARG_STRING, &arguments->offset,
          "Where the image begins in IN (default 0)", "SIZE" },
        { "no-sync", 0, 0, G_OPTION_ARG_NONE, &arguments->no_sync,
          "Do not wait until OUT is on the disk", NULL },
        { "json", 0, 0, G_OPTION_ARG_NONE, &arguments->json, "Print the report as JSON", NULL },
        { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &arguments->rest, NULL, NULL },
        { NULL },
    };
    g_autoptr(GOptionContext) context = g_option_context_new("IN OUT");

    g_option_context_set_summary(context,
                                 "Makes another kind of image of IN. IN and OUT may be - for "
                                 "standard input and output.");
    g_option_context_add_main_entries(context, entries, NULL);
    g_autoptr(GError) error = NULL;
    if (!g_option_context_parse(context, argc, argv, &error)) {
        return command_usage_error(errp, error->message);
    }
    if (!arguments->rest || g_strv_length(arguments->rest) != 2) {
        return command_usage_error(errp, "give IN and OUT");
    }
    if (!arguments->format) {
        return command_usage_error(errp, "give the --format of OUT");
    }
    if (arguments->level < 0 || arguments->level > 22) {
        return command_usage_error(errp, "the --level is 1 to 22 for zstd, 1 to 9 for zlib");
    }
    return TRUE;
}

static void print_report(const Arguments *arguments, const ConvertReport *report)
{
    FILE *to = !g_strcmp0(arguments->rest[1], "-") ? stderr : stdout;
    g_autofree char *in = g_format_size_full(report->bytes_in, G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *out = g_format_size_full(report->bytes_out, G_FORMAT_SIZE_IEC_UNITS);

    if (!arguments->json) {
        fprintf(to, "converted: %s into %s of %s, %.3f s\n", in, out, arguments->format,
                report->seconds);
        return;
    }
    JsonObject *object = json_object_new();
    json_object_set_string_member(object, "format", arguments->format);
    json_object_set_int_member(object, "bytes-in", (gint64)report->bytes_in);
    json_object_set_int_member(object, "bytes-out", (gint64)report->bytes_out);
    json_object_set_double_member(object, "seconds", report->seconds);
    json_print_object(object, to);
}

static gboolean run(const Arguments *arguments, GError **errp)
{
    ConvertOptions options = {
        .input = arguments->rest[0],
        .output = arguments->rest[1],
        .compress = arguments->compress,
        .level = arguments->level,
        .xml = arguments->xml,
        .block = arguments->block,
        .sync = !arguments->no_sync,
        .progress.cancel = cancel_on_signals(),
    };
    ConvertReport report;

    if (!convert_format_parse(arguments->format, &options.format, errp) ||
        (arguments->offset && !destination_parse_size(arguments->offset, &options.offset, errp))) {
        return FALSE;
    }
    g_autoptr(ProgressBar) bar = image_progress_show(&options.progress);
    gboolean good = convert_image(&options, &report, errp);
    progress_bar_finish(bar);
    if (good) {
        print_report(arguments, &report);
    }
    return good;
}

int cmd_convert(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_auto(Arguments) arguments = { 0 };

    if (!parse_arguments(&arguments, &argc, &argv, &error) || !run(&arguments, &error)) {
        return command_fail(error);
    }
    return EXIT_SUCCESS;
}
