/*
 * HMP's migrate family in terms of QMP: which lines, and what each does. See hmp-line.c for the
 * syntax and hmp-info.c for what "info" prints.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "monitor/hmp-migrate.h"

#include <string.h>

#include "hmp-internal.h"
#include "util/error.h"

/* 9.1 took -b and -i away from "migrate", and brought direct-io. */
#define VERSION_9_1 90100

/* One line on its way. */
typedef struct Run {
    const char *text; /* the whole line, for QEMU */
    HmpLine line;     /* what is behind the command's name */
    guint version;
    HmpExecute execute;
    gpointer user;
    gboolean can_wait;
    gboolean wait;
} Run;

/* Carries out the line; NULL with *errp as hmp_migrate_run(). */
typedef char *(*Handler)(Run *run, GError **errp);

/* QEMU's own answer to the line. */
static char *ask_qemu(Run *run, GError **errp)
{
    g_autoptr(JsonObject) arguments = json_object_new();
    json_object_set_string_member(arguments, "command-line", run->text);
    g_autoptr(JsonNode) answer = run->execute(run->user, "human-monitor-command", arguments, errp);
    if (!answer) {
        return NULL;
    }
    char *text = JSON_NODE_HOLDS_VALUE(answer) ? json_node_dup_string(answer) : NULL;
    if (!text) {
        g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_PROTOCOL,
                    "QEMU's answer to the HMP line \"%s\" is no text", run->text);
    }
    return text;
}

/* Nobody refused: nobody answered. */
static gboolean is_silence(const GError *error)
{
    return g_error_matches(error, SF_ERROR, SF_ERROR_MONITOR_SILENT) ||
           g_error_matches(error, SF_ERROR, SF_ERROR_MONITOR_PROTOCOL) ||
           g_error_matches(error, SF_ERROR, SF_ERROR_MONITOR_CLOSED);
}

/* A command whose answer has no content: "", or the refusal as HMP prints it. */
static char *do_command(Run *run, const char *command, JsonObject *arguments, GError **errp)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) answer = run->execute(run->user, command, arguments, &error);
    if (answer) {
        return g_strdup("");
    }
    if (is_silence(error)) {
        g_propagate_error(errp, g_steal_pointer(&error));
        return NULL;
    }
    /* Line ends inside of it become those of a terminal too. */
    g_auto(GStrv) lines = g_strsplit(error->message, "\n", -1);
    g_autofree char *text = g_strjoinv("\r\n", lines);
    return g_strdup_printf("Error: %s\r\n", text);
}

static char *do_migrate(Run *run, GError **errp)
{
    /* The flags in the order in which QEMU looks for them, and QMP's names. */
    gboolean is_old = run->version < VERSION_9_1;
    const char *letters = is_old ? "dbir" : "dr";
    static const char *const old_names[] = { NULL, "blk", "inc", "resume" };
    static const char *const names[] = { NULL, "resume" };
    guint flags;
    g_autofree char *uri = NULL;
    if (!hmp_line_take_flags(&run->line, letters, &flags) ||
        !(uri = hmp_line_take_string(&run->line)) || !hmp_line_at_end(&run->line)) {
        return ask_qemu(run, errp);
    }
    g_autoptr(JsonObject) arguments = json_object_new();
    json_object_set_string_member(arguments, "uri", uri);
    for (guint i = 1; letters[i]; i++) {
        if (flags & (1u << i)) {
            json_object_set_boolean_member(arguments, (is_old ? old_names : names)[i], TRUE);
        }
    }
    char *text = do_command(run, "migrate", arguments, errp);
    if (!text || *text || (flags & 1)) {
        return text;
    }
    if (run->can_wait) {
        run->wait = TRUE;
        return text;
    }
    g_free(text);
    return g_strdup("terminal does not allow synchronous migration, continuing detached\r\n");
}

static char *do_cancel(Run *run, GError **errp)
{
    if (!hmp_line_at_end(&run->line)) {
        return ask_qemu(run, errp);
    }
    return do_command(run, "migrate_cancel", NULL, errp);
}

static char *do_incoming(Run *run, GError **errp)
{
    /* What QEMU before 8.2 does not know is all that anybody else can answer. */
    g_autofree char *uri = hmp_line_take_string(&run->line);
    if (!uri || !g_str_has_prefix(uri, "file:") || !hmp_line_at_end(&run->line)) {
        return ask_qemu(run, errp);
    }
    g_autoptr(JsonObject) arguments = json_object_new();
    json_object_set_string_member(arguments, "uri", uri);
    return do_command(run, "migrate-incoming", arguments, errp);
}

/* Whether query-migrate-capabilities' answer has it. */
static gboolean has_capability(JsonNode *answer, const char *name)
{
    JsonArray *array = JSON_NODE_HOLDS_ARRAY(answer) ? json_node_get_array(answer) : NULL;
    for (guint i = 0; array && i < json_array_get_length(array); i++) {
        JsonObject *each = json_array_get_object_element(array, i);
        const char *found =
            each ? json_object_get_string_member_with_default(each, "capability", NULL) : NULL;
        if (g_strcmp0(found, name) == 0) {
            return TRUE;
        }
    }
    return FALSE;
}

static char *do_set_capability(Run *run, GError **errp)
{
    gboolean on;
    g_autofree char *name = hmp_line_take_string(&run->line);
    if (!name || !hmp_line_take_switch(&run->line, &on) || !hmp_line_at_end(&run->line)) {
        return ask_qemu(run, errp);
    }
    /* QMP and HMP word an unknown name differently. */
    g_autoptr(JsonNode) known = run->execute(run->user, "query-migrate-capabilities", NULL, errp);
    if (!known) {
        return NULL;
    }
    if (!has_capability(known, name)) {
        return ask_qemu(run, errp);
    }
    JsonObject *capability = json_object_new();
    json_object_set_string_member(capability, "capability", name);
    json_object_set_boolean_member(capability, "state", on);
    JsonArray *capabilities = json_array_new();
    json_array_add_object_element(capabilities, capability);
    g_autoptr(JsonObject) arguments = json_object_new();
    json_object_set_array_member(arguments, "capabilities", capabilities);
    return do_command(run, "migrate-set-capabilities", arguments, errp);
}

/* QEMU reads a switch's words as its options do. */
static gboolean parse_switch(const char *text, gboolean *on)
{
    static const char *const yes[] = { "on", "yes", "true", "y", NULL };
    static const char *const no[] = { "off", "no", "false", "n", NULL };
    *on = g_strv_contains(yes, text);
    return *on || g_strv_contains(no, text);
}

static gboolean parse_channels(const char *text, guint64 *number)
{
    char *end;
    *number = g_ascii_strtoull(text, &end, 0);
    return end != text && !*end && !strchr(text, '-') && *number <= G_MAXUINT8;
}

/*
 * The arguments of migrate-set-parameters for one of the parameters that matter to a background
 * snapshot, or NULL: another one, or a value that is wrong or so odd that QEMU should judge it.
 */
static JsonObject *parse_parameter(const char *name, const char *value)
{
    guint64 number;
    gboolean on;
    g_autoptr(JsonObject) arguments = json_object_new();
    if (g_str_equal(name, "max-bandwidth") && hmp_parse_size(value, &number)) {
        json_object_set_int_member(arguments, name, (gint64)number);
    } else if (g_str_equal(name, "multifd-channels") && parse_channels(value, &number)) {
        json_object_set_int_member(arguments, name, (gint64)number);
    } else if (g_str_equal(name, "direct-io") && parse_switch(value, &on)) {
        json_object_set_boolean_member(arguments, name, on);
    } else {
        return NULL;
    }
    return g_steal_pointer(&arguments);
}

static char *do_set_parameter(Run *run, GError **errp)
{
    g_autofree char *name = hmp_line_take_string(&run->line);
    g_autofree char *value = name ? hmp_line_take_string(&run->line) : NULL;
    if (!value || !hmp_line_at_end(&run->line)) {
        return ask_qemu(run, errp);
    }
    g_autoptr(JsonObject) arguments = parse_parameter(name, value);
    if (arguments) {
        return do_command(run, "migrate-set-parameters", arguments, errp);
    }
    if (g_str_equal(name, "direct-io") && run->version < VERSION_9_1) {
        /* This QEMU does not know it; newer ones say so. */
        return g_strdup("Error: Parameter 'direct-io' expects 'on' or 'off'\r\n");
    }
    return ask_qemu(run, errp);
}

static char *do_info_migrate(Run *run, GError **errp)
{
    g_autofree char *own = ask_qemu(run, errp);
    if (!own || !hmp_line_at_end(&run->line)) {
        return g_steal_pointer(&own);
    }
    g_autoptr(JsonNode) info = run->execute(run->user, "query-migrate", NULL, errp);
    return info ? hmp_info_migrate(own, info, run->version) : NULL;
}

static char *do_info_capabilities(Run *run, GError **errp)
{
    if (!hmp_line_at_end(&run->line)) {
        return ask_qemu(run, errp);
    }
    g_autoptr(JsonNode) answer = run->execute(run->user, "query-migrate-capabilities", NULL, errp);
    return answer ? hmp_info_capabilities(answer) : NULL;
}

static char *do_info_parameters(Run *run, GError **errp)
{
    g_autofree char *own = ask_qemu(run, errp);
    if (!own || !hmp_line_at_end(&run->line)) {
        return g_steal_pointer(&own);
    }
    g_autoptr(JsonNode) answer = run->execute(run->user, "query-migrate-parameters", NULL, errp);
    return answer ? hmp_info_parameters(own, answer) : NULL;
}

typedef struct Command {
    const char *name;
    Handler handler;
} Command;

static const Command commands[] = {
    { "migrate", do_migrate },
    { "migrate_cancel", do_cancel },
    { "migrate_incoming", do_incoming },
    { "migrate_set_capability", do_set_capability },
    { "migrate_set_parameter", do_set_parameter },
    { NULL },
};

static const Command info_commands[] = {
    { "migrate", do_info_migrate },
    { "migrate_capabilities", do_info_capabilities },
    { "migrate_parameters", do_info_parameters },
    { NULL },
};

/* The line's handler or NULL; @line is moved behind the name. */
static Handler find_handler(HmpLine *line)
{
    const Command *table = commands;
    g_autofree char *name = hmp_line_take_name(line);
    if (g_str_equal(name, "info")) {
        table = info_commands;
        g_free(name);
        name = hmp_line_take_name(line);
    }
    for (const Command *command = table; command->name; command++) {
        if (g_str_equal(command->name, name)) {
            return command->handler;
        }
    }
    return NULL;
}

gboolean hmp_migrate_owns_line(const char *line)
{
    HmpLine at = { .at = line };
    return find_handler(&at) != NULL;
}

char *hmp_migrate_run(const char *line, guint version, HmpExecute execute, gpointer user,
                      gboolean *wait, GError **errp)
{
    Run run = { .text = line,
                .line = { .at = line },
                .version = version,
                .execute = execute,
                .user = user,
                .can_wait = wait != NULL };
    Handler handler = find_handler(&run.line);
    g_return_val_if_fail(handler, NULL);
    char *text = handler(&run, errp);
    if (wait) {
        *wait = run.wait;
    }
    return text;
}
