/*
 * stillframe info
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>

#include "cancel.h"
#include "commands.h"
#include "image-progress.h"
#include "image/info.h"
#include "json-output.h"
#include "migration/channel.h"

/* On one screen: machines have a few large blocks and many small ones. */
#define BLOCKS_SHOWN 8

typedef struct Arguments {
    char *offset;
    gboolean json;
    char **rest;
} Arguments;

static void arguments_clear(Arguments *arguments)
{
    g_free(arguments->offset);
    g_strfreev(arguments->rest);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Arguments, arguments_clear)

static gboolean parse_arguments(Arguments *arguments, int *argc, char ***argv, GError **errp)
{
    const GOptionEntry entries[] = {
        { "offset", 0, 0, G_OPTION_ARG_STRING, &arguments->offset,
          "Where the image begins in the file (default 0)", "SIZE" },
        { "json", 0, 0, G_OPTION_ARG_NONE, &arguments->json, "Print everything as JSON", NULL },
        { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &arguments->rest, NULL, NULL },
        { NULL },
    };
    g_autoptr(GOptionContext) context = g_option_context_new("IMAGE");

    g_option_context_set_summary(context, "Tells what IMAGE holds. It may be Stillframe's, QEMU's "
                                          "or libvirt's; - is standard input.");
    g_option_context_add_main_entries(context, entries, NULL);
    g_autoptr(GError) error = NULL;
    if (!g_option_context_parse(context, argc, argv, &error)) {
        return command_usage_error(errp, error->message);
    }
    if (!arguments->rest || g_strv_length(arguments->rest) != 1) {
        return command_usage_error(errp, "give one IMAGE");
    }
    return TRUE;
}

static void print_line(JsonObject *info, const char *label, const char *name)
{
    const char *text = json_object_get_string_member_with_default(info, name, NULL);

    if (text && *text) {
        printf("  %-12s %s\n", label, text);
    }
}

static char *size_text(gint64 bytes)
{
    return g_format_size_full((guint64)bytes, G_FORMAT_SIZE_IEC_UNITS);
}

static void print_blocks(JsonObject *info)
{
    JsonArray *blocks = json_object_get_array_member(info, "blocks");
    gint64 page = json_object_get_int_member(info, "page-bytes");
    guint count = json_array_get_length(blocks);

    for (guint i = 0; i < MIN(count, BLOCKS_SHOWN); i++) {
        JsonObject *block = json_array_get_object_element(blocks, i);
        g_autofree char *size = size_text(json_object_get_int_member(block, "bytes"));
        g_autofree char *data = size_text(json_object_get_int_member(block, "data-pages") * page);
        g_autofree char *zero = size_text(json_object_get_int_member(block, "zero-pages") * page);
        printf("  %-12s %-32s %10s: %10s data, %10s zero\n", i ? "" : "RAM",
               json_object_get_string_member(block, "name"), size, data, zero);
    }
    if (count > BLOCKS_SHOWN) {
        printf("  %-12s and %u more\n", "", count - BLOCKS_SHOWN);
    }
}

static void print_devices(JsonObject *info)
{
    g_autofree char *size = size_text(json_object_get_int_member(info, "device-bytes"));

    printf("  %-12s %u sections, %s; %" G_GINT64_FORMAT " processors\n", "devices",
           json_array_get_length(json_object_get_array_member(info, "devices")), size,
           json_object_get_int_member(info, "processors"));
}

static void print_text(JsonObject *info)
{
    const char *compression = json_object_get_string_member(info, "compression");
    g_autofree char *size = size_text(json_object_get_int_member(info, "file-bytes"));
    gboolean libvirt = json_object_get_boolean_member_with_default(info, "libvirt", FALSE);

    printf("%s: %s%s%s%s, %s\n", json_object_get_string_member(info, "image"),
           json_object_get_string_member(info, "kind"), libvirt ? " in a libvirt save file" : "",
           g_strcmp0(compression, "none") ? ", compressed with " : "",
           g_strcmp0(compression, "none") ? compression : "", size);
    print_line(info, "label", "label");
    print_line(info, "taken", "created");
    print_line(info, "domain", "domain");
    print_line(info, "machine", "machine");
    print_line(info, "run state", "run-state");
    print_line(info, "QEMU", "qemu-version");
    print_line(info, "host kernel", "host-kernel");
    print_line(info, "written by", "writer");
    print_line(info, "parent", "parent");
    print_blocks(info);
    print_devices(info);
    printf("  %-12s %s\n", "index",
           json_object_get_boolean_member(info, "index")
               ? "yes: stillframe verify can check every page"
               : "none: only the structure can be checked");
}

static gboolean run(const Arguments *arguments, GError **errp)
{
    ImageProgress progress = { .cancel = cancel_on_signals() };
    guint64 offset = 0;

    if (arguments->offset && !destination_parse_size(arguments->offset, &offset, errp)) {
        return FALSE;
    }
    g_autoptr(ImageReader) reader = image_reader_open(arguments->rest[0], offset, errp);
    if (!reader) {
        return FALSE;
    }
    g_autoptr(ProgressBar) bar = image_progress_show(&progress);
    g_autoptr(JsonObject) info = image_info(reader, arguments->rest[0], &progress, errp);
    progress_bar_finish(bar);
    if (info && arguments->json) {
        json_print_object(json_object_ref(info), stdout);
    } else if (info) {
        print_text(info);
    }
    return info != NULL;
}

int cmd_info(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_auto(Arguments) arguments = { 0 };

    if (!parse_arguments(&arguments, &argc, &argv, &error) || !run(&arguments, &error)) {
        return command_fail(error);
    }
    return EXIT_SUCCESS;
}
