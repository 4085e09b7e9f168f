/*
 * stillframe diff
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>

#include "cancel.h"
#include "commands.h"
#include "image-progress.h"
#include "image/diff.h"
#include "json-output.h"

#define MAP_WIDTH 64

typedef struct Arguments {
    gboolean all;
    gboolean json;
    char **rest;
} Arguments;

static gboolean parse_arguments(Arguments *arguments, int *argc, char ***argv, GError **errp)
{
    const GOptionEntry entries[] = {
        { "all", 'a', 0, G_OPTION_ARG_NONE, &arguments->all, "Show blocks without a difference too",
          NULL },
        { "json", 0, 0, G_OPTION_ARG_NONE, &arguments->json,
          "Print the counts, and every stretch of changed pages, as JSON", NULL },
        { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &arguments->rest, NULL, NULL },
        { NULL },
    };
    g_autoptr(GOptionContext) context = g_option_context_new("A B");

    g_option_context_set_summary(context, "Tells which pages of guest memory differ between the "
                                          "images A and B.");
    g_option_context_add_main_entries(context, entries, NULL);
    g_autoptr(GError) error = NULL;
    if (!g_option_context_parse(context, argc, argv, &error)) {
        return command_usage_error(errp, error->message);
    }
    if (!arguments->rest || g_strv_length(arguments->rest) != 2) {
        return command_usage_error(errp, "give two images");
    }
    return TRUE;
}

static gboolean differs(guint8 state)
{
    return state > DIFF_SAME;
}

static guint64 count_differing(const DiffBlock *block)
{
    return block->counts[DIFF_CHANGED] + block->counts[DIFF_ONLY_A] + block->counts[DIFF_ONLY_B];
}

/* One character for each 64th of the block: the share of its pages that differ. */
static void print_map(const DiffBlock *block, guint64 page_size)
{
    static const char shades[] = ".:+*#";
    guint64 step = MAX((block->pages + MAP_WIDTH - 1) / MAP_WIDTH, 1);
    g_autofree char *size = g_format_size_full(step * page_size, G_FORMAT_SIZE_IEC_UNITS);

    printf("    [");
    for (guint64 at = 0; at < block->pages; at += step) {
        guint64 end = MIN(at + step, block->pages);
        guint64 count = 0;
        for (guint64 page = at; page < end; page++) {
            count += differs(block->states[page]);
        }
        putchar(count ? shades[(count * 4 + (end - at) - 1) / (end - at)] : shades[0]);
    }
    printf("] each %s\n", size);
}

static void print_text(const Arguments *arguments, const DiffReport *report)
{
    guint64 total = 0;

    for (guint i = 0; i < report->blocks->len; i++) {
        const DiffBlock *block = g_ptr_array_index(report->blocks, i);
        guint64 count = count_differing(block);
        total += count;
        if (!count && !arguments->all) {
            continue;
        }
        printf("%s: %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " pages differ", block->name,
               count, block->pages);
        if (block->counts[DIFF_ONLY_A] || block->counts[DIFF_ONLY_B]) {
            printf(" (%" G_GUINT64_FORMAT " only in A, %" G_GUINT64_FORMAT " only in B)",
                   block->counts[DIFF_ONLY_A], block->counts[DIFF_ONLY_B]);
        }
        putchar('\n');
        if (count) {
            print_map(block, report->page_size);
        }
    }
    g_autofree char *size = g_format_size_full(total * report->page_size, G_FORMAT_SIZE_IEC_UNITS);
    printf("%" G_GUINT64_FORMAT " pages differ, %s; device state %s\n", total, size,
           report->devices_differ ? "differs" : "is the same");
}

/* Stretches of pages that differ. */
static JsonArray *region_array(const DiffBlock *block, guint64 page_size)
{
    JsonArray *regions = json_array_new();

    for (guint64 page = 0; page < block->pages;) {
        guint64 end = page;
        while (end < block->pages && differs(block->states[end])) {
            end++;
        }
        if (end > page) {
            JsonObject *entry = json_object_new();
            json_object_set_int_member(entry, "offset", (gint64)(page * page_size));
            json_object_set_int_member(entry, "length", (gint64)((end - page) * page_size));
            json_array_add_object_element(regions, entry);
        }
        page = MAX(end, page + 1);
    }
    return regions;
}

static void print_json(const DiffReport *report)
{
    JsonObject *object = json_object_new();
    JsonArray *blocks = json_array_new();

    json_object_set_int_member(object, "page-bytes", (gint64)report->page_size);
    json_object_set_boolean_member(object, "devices-differ", report->devices_differ);
    for (guint i = 0; i < report->blocks->len; i++) {
        const DiffBlock *block = g_ptr_array_index(report->blocks, i);
        JsonObject *entry = json_object_new();
        json_object_set_string_member(entry, "name", block->name);
        json_object_set_int_member(entry, "pages", (gint64)block->pages);
        json_object_set_int_member(entry, "same", (gint64)block->counts[DIFF_SAME]);
        json_object_set_int_member(entry, "changed", (gint64)block->counts[DIFF_CHANGED]);
        json_object_set_int_member(entry, "only-a", (gint64)block->counts[DIFF_ONLY_A]);
        json_object_set_int_member(entry, "only-b", (gint64)block->counts[DIFF_ONLY_B]);
        json_object_set_array_member(entry, "regions", region_array(block, report->page_size));
        json_array_add_object_element(blocks, entry);
    }
    json_object_set_array_member(object, "blocks", blocks);
    json_print_object(object, stdout);
}

static gboolean run(const Arguments *arguments, GError **errp)
{
    ImageProgress progress = { .cancel = cancel_on_signals() };
    DiffReport report = { 0 };
    g_autoptr(ImageReader) a = image_reader_open(arguments->rest[0], 0, errp);
    g_autoptr(ImageReader) b = a ? image_reader_open(arguments->rest[1], 0, errp) : NULL;

    if (!b) {
        return FALSE;
    }
    g_autoptr(ProgressBar) bar = image_progress_show(&progress);
    gboolean good = image_diff(a, b, &progress, &report, errp);
    progress_bar_finish(bar);
    if (good && arguments->json) {
        print_json(&report);
    } else if (good) {
        print_text(arguments, &report);
    }
    diff_report_clear(&report);
    return good;
}

int cmd_diff(int argc, char **argv)
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
