/*
 * stillframe check: what this host can do, and what to do about the rest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>

#include "check/host-check.h"
#include "commands.h"
#include "json-output.h"
#include "util/error.h"

/* Fits the longest name in the table of host-check.c. */
#define NAME_WIDTH 31

typedef struct Printer {
    const char *group; /* of the row before; NULL = none */
} Printer;

static const char *group_title(const char *group)
{
    static const char *const titles[][2] = {
        { "kernel", "Kernel" },
        { "access", "Doors (1, and then 2 or 3)" },
        { "memory", "Memory whose writes are trapped" },
        { "kvm", "KVM: writes of a vCPU to that memory" },
    };
    for (guint i = 0; i < G_N_ELEMENTS(titles); i++) {
        if (g_str_equal(titles[i][0], group)) {
            return titles[i][1];
        }
    }
    return group;
}

/* As soon as it is known: where a question hangs, the line that is missing tells which. */
static void print_row(const CheckRow *row, gpointer data)
{
    Printer *printer = data;

    if (g_strcmp0(printer->group, row->group) != 0) {
        puts(group_title(row->group));
        printer->group = row->group;
    }
    printf("  %-*s %s%s%s\n", NAME_WIDTH, row->name, check_result_name(row->result),
           *row->note ? ", " : "", row->note);
    fflush(stdout);
}

/* The rows from @first on that have the same remedy as it; NULL where one before it has that. */
static char *join_ids(const HostCheck *check, guint first)
{
    const CheckRow *row = check->rows->pdata[first];
    g_autoptr(GString) ids = g_string_new(row->id);

    for (guint i = 0; i < check->rows->len; i++) {
        const CheckRow *other = check->rows->pdata[i];
        if (i == first || !g_str_equal(other->remedy, row->remedy)) {
            continue;
        }
        if (i < first) {
            return NULL;
        }
        g_string_append_printf(ids, ", %s", other->id);
    }
    return g_string_free(g_steal_pointer(&ids), FALSE);
}

static void print_remedies(const HostCheck *check)
{
    gboolean any = FALSE;

    for (guint i = 0; i < check->rows->len; i++) {
        const CheckRow *row = check->rows->pdata[i];
        g_autofree char *ids = *row->remedy ? join_ids(check, i) : NULL;
        if (ids) {
            printf("%s  %s:\n    %s\n", any ? "" : "What to do\n", ids, row->remedy);
            any = TRUE;
        }
    }
}

static void print_header(const struct utsname *host)
{
    printf("%s %s, %s\n", host->sysname, host->release, host->machine);
    fflush(stdout);
}

static JsonObject *make_row_object(const CheckRow *row)
{
    JsonObject *object = json_object_new();

    json_object_set_string_member(object, "group", row->group);
    json_object_set_string_member(object, "id", row->id);
    json_object_set_string_member(object, "name", row->name);
    json_object_set_string_member(object, "result", check_result_name(row->result));
    json_object_set_string_member(object, "note", row->note);
    json_object_set_string_member(object, "remedy", row->remedy);
    return object;
}

static void print_json(const HostCheck *check, const struct utsname *host)
{
    g_autoptr(JsonNode) root = json_node_new(JSON_NODE_OBJECT);
    JsonObject *object = json_object_new();
    JsonArray *rows = json_array_new();

    json_node_take_object(root, object);
    json_object_set_string_member(object, "kernel", host->release);
    json_object_set_boolean_member(object, "kvm", check->kvm);
    json_object_set_boolean_member(object, "tcg", check->tcg);
    json_object_set_string_member(object, "verdict", check->verdict);
    for (guint i = 0; i < check->rows->len; i++) {
        json_array_add_object_element(rows, make_row_object(check->rows->pdata[i]));
    }
    json_object_set_array_member(object, "checks", rows);
    json_print(root);
}

static gboolean parse(int argc, char **argv, gboolean *json, GError **errp)
{
    const GOptionEntry entries[] = {
        { "json", 0, 0, G_OPTION_ARG_NONE, json, "Print a JSON object", NULL },
        { NULL },
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_autoptr(GError) error = NULL;

    g_option_context_set_summary(
        context, "Tells what this host can do for live snapshots, by trying it, and what to do "
                 "about the rest.\nExit status 0 if a snapshot of a KVM guest is possible, "
                 "else 1.");
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error)) {
        return command_usage_error(errp, error->message);
    }
    if (argc > 1) {
        g_autofree char *text = g_strdup_printf("check takes no argument \"%s\"", argv[1]);
        return command_usage_error(errp, text);
    }
    return TRUE;
}

int cmd_check(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    Printer printer = { NULL };
    gboolean json = FALSE;
    struct utsname host;

    if (!parse(argc, argv, &json, &error)) {
        return command_fail(error);
    }
    uname(&host);
    if (!json) {
        print_header(&host);
    }
    g_autoptr(HostCheck) check = host_check_run(json ? NULL : print_row, &printer);
    if (json) {
        print_json(check, &host);
    } else {
        print_remedies(check);
        puts(check->verdict);
    }
    fflush(stdout);
    return check->kvm && !ferror(stdout) ? EXIT_SUCCESS : EXIT_FAILURE;
}
