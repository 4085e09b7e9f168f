/*
 * stillframe verify
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>

#include "cancel.h"
#include "commands.h"
#include "image-progress.h"
#include "image/verify.h"
#include "json-output.h"

/* Of each image; the rest is counted. */
#define BAD_SHOWN 20

typedef struct Arguments {
    int threads;
    gboolean json;
    char **rest;
} Arguments;

static gboolean parse_arguments(Arguments *arguments, int *argc, char ***argv, GError **errp)
{
    const GOptionEntry entries[] = {
        { "threads", 0, 0, G_OPTION_ARG_INT, &arguments->threads,
          "Threads that hash (default: one for each processor)", "N" },
        { "json", 0, 0, G_OPTION_ARG_NONE, &arguments->json, "Print the results as JSON", NULL },
        { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &arguments->rest, NULL, NULL },
        { NULL },
    };
    g_autoptr(GOptionContext) context = g_option_context_new("IMAGE...");

    g_option_context_set_summary(context, "Checks the structure of each IMAGE, and each page "
                                          "against its hash where the image has an index.");
    g_option_context_add_main_entries(context, entries, NULL);
    g_autoptr(GError) error = NULL;
    if (!g_option_context_parse(context, argc, argv, &error)) {
        return command_usage_error(errp, error->message);
    }
    if (!arguments->rest || !arguments->rest[0]) {
        return command_usage_error(errp, "give at least one IMAGE");
    }
    if (arguments->threads < 0 || arguments->threads > 1024) {
        return command_usage_error(errp, "impossible number of --threads");
    }
    return TRUE;
}

static const char *block_name(const ImageHead *head, guint block)
{
    return ((const ImageBlock *)g_ptr_array_index(head->blocks, block))->name;
}

static JsonObject *report_object(const char *image, const ImageHead *head,
                                 const VerifyReport *report, const GError *error)
{
    JsonObject *object = json_object_new();
    JsonArray *bad = json_array_new();

    json_object_set_string_member(object, "image", image);
    json_object_set_boolean_member(object, "good",
                                   !error && !report->bad_pages && !report->devices_wrong);
    json_object_set_string_member(object, "checked", report->by_hash ? "hashes" : "structure");
    json_object_set_int_member(object, "pages", (gint64)report->pages);
    json_object_set_int_member(object, "bad-pages", (gint64)report->bad_pages);
    json_object_set_boolean_member(object, "devices-wrong", report->devices_wrong);
    json_object_set_double_member(object, "seconds", report->seconds);
    for (guint i = 0; report->bad && i < report->bad->len; i++) {
        const VerifyBadPage *page = &g_array_index(report->bad, VerifyBadPage, i);
        JsonObject *entry = json_object_new();
        json_object_set_string_member(entry, "block", block_name(head, page->block));
        json_object_set_int_member(entry, "offset", (gint64)(page->page << head->target_page_bits));
        json_object_set_string_member(entry, "reason", page->why);
        json_array_add_object_element(bad, entry);
    }
    json_object_set_array_member(object, "bad", bad);
    if (error) {
        json_object_set_string_member(object, "error", error->message);
    }
    return object;
}

static void print_bad(const char *image, const ImageHead *head, const VerifyReport *report)
{
    printf("%s: %" G_GUINT64_FORMAT " bad pages of %" G_GUINT64_FORMAT "%s\n", image,
           report->bad_pages, report->pages, report->devices_wrong ? ", device state changed" : "");
    for (guint i = 0; i < MIN(report->bad->len, BAD_SHOWN); i++) {
        const VerifyBadPage *page = &g_array_index(report->bad, VerifyBadPage, i);
        printf("  %s at 0x%" G_GINT64_MODIFIER "x: %s\n", block_name(head, page->block),
               page->page << head->target_page_bits, page->why);
    }
    if (report->bad_pages > BAD_SHOWN) {
        printf("  and %" G_GUINT64_FORMAT " more\n", report->bad_pages - BAD_SHOWN);
    }
}

static void print_text(const char *image, const ImageHead *head, const VerifyReport *report)
{
    if (report->bad_pages || report->devices_wrong) {
        print_bad(image, head, report);
    } else if (report->by_hash) {
        printf("%s: good, %" G_GUINT64_FORMAT " pages by their hashes, %.3f s\n", image,
               report->pages, report->seconds);
    } else {
        printf(
            "%s: the structure is right; it has no index, so the content of its %" G_GUINT64_FORMAT
            " pages was not checked\n",
            image, report->pages);
    }
}

/* One image; what is wrong with it goes to standard output or into @results. */
static gboolean verify_one(const Arguments *arguments, const char *image, JsonArray *results,
                           GError **errp)
{
    ImageProgress progress = { .cancel = cancel_on_signals() };
    VerifyReport report = { 0 };
    GError *error = NULL;
    g_autoptr(ImageReader) reader = image_reader_open(image, 0, &error);
    g_autoptr(ProgressBar) bar = image_progress_show(&progress);
    gboolean good =
        reader && image_verify(reader, (guint)arguments->threads, &progress, &report, &error);

    progress_bar_finish(bar);
    const ImageHead *head = reader ? image_reader_get_head(reader) : NULL;
    json_array_add_object_element(results, report_object(image, head, &report, error));
    if (good && !arguments->json) {
        print_text(image, head, &report);
    }
    good = good && !report.bad_pages && !report.devices_wrong;
    verify_report_clear(&report);
    if (error) {
        g_propagate_error(errp, error);
    }
    return good;
}

static void print_results(JsonArray *results)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_ARRAY);

    json_node_set_array(node, results);
    json_print(node);
}

int cmd_verify(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    Arguments arguments = { 0 };
    g_autoptr(JsonArray) results = json_array_new();
    int status = EXIT_SUCCESS;

    if (!parse_arguments(&arguments, &argc, &argv, &error)) {
        return command_fail(error);
    }
    for (char **image = arguments.rest; *image && status != EXIT_CANCELLED; image++) {
        g_autoptr(GError) wrong = NULL;
        if (!verify_one(&arguments, *image, results, &wrong)) {
            status = wrong ? command_fail(wrong) : EXIT_FAILURE;
        }
    }
    if (arguments.json) {
        print_results(results);
    }
    g_strfreev(arguments.rest);
    return status;
}
