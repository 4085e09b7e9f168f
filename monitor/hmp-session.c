/*
 * HMP lines carried out: those of the migrate family through the migrate front, all others by
 * QEMU. Knows what QEMU's own monitor would remember from line to line: the current CPU.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "monitor/hmp-session.h"

#include <stdio.h>
#include <string.h>

#include "hmp-internal.h"
#include "monitor/hmp-migrate.h"
#include "monitor/migrate-front.h"
#include "monitor/qmp.h"

/* "savevm" and its like take as long as they take. */
#define PATIENCE_MS (24 * 3600 * 1000u)

struct HmpSession {
    QmpMux *mux;
    QmpClient *qmp;
    MigrateFront *front;
    gint64 cpu; /* of "cpu N"; -1 = QEMU's choice */
    gboolean saw_shutdown;
    GHashTable *words; /* completion: first word -> GStrv; "" for the commands */
};

static int open_monitor(gpointer user, GError **errp)
{
    HmpSession *session = user;
    return qmp_mux_open(session->mux, errp);
}

static int get_qemu_fd(gpointer user)
{
    HmpSession *session = user;
    return qmp_mux_get_qemu_fd(session->mux);
}

HmpSession *hmp_session_new(QmpMux *mux, pid_t pid, GError **errp)
{
    static const MigrateFrontOps ops = { .open_monitor = open_monitor, .get_qemu_fd = get_qemu_fd };
    int fd = qmp_mux_open(mux, errp);
    QmpClient *qmp = fd < 0 ? NULL : qmp_client_new_from_fd(fd, QMP_GREETING_TIMEOUT_MS, errp);
    if (!qmp) {
        return NULL;
    }
    HmpSession *session = g_new0(HmpSession, 1);
    qmp_client_set_patience(qmp, PATIENCE_MS);
    session->mux = mux;
    session->qmp = qmp;
    session->cpu = -1;
    session->front = migrate_front_new(pid, &ops, session);
    session->words =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_strfreev);
    return session;
}

void hmp_session_free(HmpSession *session)
{
    if (session) {
        migrate_front_free(session->front);
        qmp_client_free(session->qmp);
        g_hash_table_unref(session->words);
        g_free(session);
    }
}

guint hmp_session_get_version(HmpSession *session)
{
    return qmp_client_get_version(session->qmp);
}

int hmp_session_get_fd(HmpSession *session)
{
    return qmp_client_get_fd(session->qmp);
}

gboolean hmp_session_saw_shutdown(HmpSession *session)
{
    return session->saw_shutdown;
}

/* Notes SHUTDOWN among the events that have come; FALSE with @error at the connection's end. */
static gboolean take_events(HmpSession *session, GError **errp)
{
    for (;;) {
        GError *error = NULL;
        g_autoptr(JsonNode) data = qmp_client_wait_event(session->qmp, "SHUTDOWN", 0, &error);
        if (data) {
            session->saw_shutdown = TRUE;
        } else if (g_error_matches(error, SF_ERROR, SF_ERROR_MONITOR_SILENT)) {
            g_error_free(error);
            return TRUE;
        } else {
            g_propagate_error(errp, error);
            return FALSE;
        }
    }
}

/* Replaces *errp by "QEMU is gone" where that is what happened. */
static void explain(HmpSession *session, GError **errp)
{
    if (errp && g_error_matches(*errp, SF_ERROR, SF_ERROR_MONITOR_CLOSED)) {
        take_events(session, NULL); /* SHUTDOWN may stand before the end */
        g_clear_error(errp);
        g_set_error(errp, SF_ERROR, SF_ERROR_VM_GONE,
                    session->saw_shutdown
                        ? "QEMU has ended"
                        : "the connection to QEMU's monitor ended: QEMU has ended or closed it");
    }
}

gboolean hmp_session_check(HmpSession *session, GError **errp)
{
    g_autoptr(GError) error = NULL;
    if (take_events(session, &error)) {
        return TRUE;
    }
    explain(session, &error);
    g_propagate_error(errp, g_steal_pointer(&error));
    return FALSE;
}

static JsonNode *execute(gpointer user, const char *command, JsonObject *arguments, GError **errp)
{
    HmpSession *session = user;
    return migrate_front_execute(session->front, command, arguments, errp);
}

static char *ask_qemu(HmpSession *session, const char *line, GError **errp)
{
    JsonObject *arguments = json_object_new();
    json_object_set_string_member(arguments, "command-line", line);
    if (session->cpu >= 0) {
        json_object_set_int_member(arguments, "cpu-index", session->cpu);
    }
    g_autoptr(JsonNode) answer =
        qmp_client_execute(session->qmp, "human-monitor-command", arguments, errp);
    if (!answer) {
        return NULL;
    }
    return g_strdup(JSON_NODE_HOLDS_VALUE(answer) ? json_node_get_string(answer) : "");
}

/* Each human-monitor-command begins with the first CPU: "cpu N" is what has to be remembered. */
static void note_cpu(HmpSession *session, const char *line, const char *text)
{
    HmpLine at = { .at = line };
    g_autofree char *name = hmp_line_take_name(&at);
    g_autofree char *number = g_str_equal(name, "cpu") ? hmp_line_take_string(&at) : NULL;
    guint64 value;
    if (number && !*text && g_ascii_string_to_unsigned(number, 10, 0, G_MAXINT, &value, NULL)) {
        session->cpu = (gint64)value;
    }
}

/* HMP has no error besides its text. */
static gboolean is_refusal(const char *text)
{
    return g_str_has_prefix(text, "Error: ") || g_str_has_prefix(text, "unknown command: ") ||
           strstr(text, "\r\nTry \"help ");
}

char *hmp_session_run(HmpSession *session, const char *line, gboolean *wait, gboolean *refused,
                      GError **errp)
{
    g_autoptr(GError) error = NULL;
    char *text;
    if (wait) {
        *wait = FALSE;
    }
    if (hmp_migrate_owns_line(line)) {
        text =
            hmp_migrate_run(line, hmp_session_get_version(session), execute, session, wait, &error);
    } else {
        text = ask_qemu(session, line, &error);
        if (text) {
            note_cpu(session, line, text);
        }
    }
    if (!text) {
        explain(session, &error);
        g_propagate_error(errp, g_steal_pointer(&error));
        return NULL;
    }
    if (refused) {
        *refused = is_refusal(text);
    }
    return text;
}

gboolean hmp_session_is_migrating(HmpSession *session, JsonNode **info, GError **errp)
{
    static const char *const final[] = { "none", "completed",       "failed", "cancelled",
                                         "colo", "postcopy-paused", NULL };
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) answer =
        migrate_front_execute(session->front, "query-migrate", NULL, &error);
    if (!answer) {
        explain(session, &error);
        g_propagate_error(errp, g_steal_pointer(&error));
        return FALSE;
    }
    const char *status = "none";
    if (JSON_NODE_HOLDS_OBJECT(answer)) {
        status = json_object_get_string_member_with_default(json_node_get_object(answer), "status",
                                                            "none");
    }
    gboolean migrating = !g_strv_contains(final, status);
    if (info) {
        *info = g_steal_pointer(&answer);
    }
    return migrating;
}

void hmp_session_cancel(HmpSession *session)
{
    g_autoptr(JsonNode) answer G_GNUC_UNUSED =
        migrate_front_execute(session->front, "migrate_cancel", NULL, NULL);
}

/* The word in the column @column of each line of @text: "NAME|ALIAS" gives two. */
static GStrv collect_words(const char *text, guint column, const char *separators)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new();
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        g_auto(GStrv) parts = g_strsplit_set(*line, separators, -1);
        if (g_strv_length(parts) <= column) {
            continue;
        }
        g_auto(GStrv) names = g_strsplit(parts[column], "|", -1);
        for (char **name = names; *name; name++) {
            if (g_ascii_isalnum(**name)) {
                g_ptr_array_add(words, g_strdup(*name));
            }
        }
    }
    g_ptr_array_add(words, NULL);
    return (GStrv)g_ptr_array_steal(words, NULL);
}

/* Where QEMU tells the words that may follow the first word of a line. */
static const struct {
    const char *command; /* "" = the first word itself */
    const char *line;
    guint column;
    const char *separators;
} word_sources[] = {
    { "", "help", 0, " \r" },
    { "help", "help", 0, " \r" },
    { "info", "help info", 1, " \r" },
    { "migrate_set_capability", "info migrate_capabilities", 0, ":" },
    { "migrate_set_parameter", "info migrate_parameters", 0, ":" },
};

GStrv hmp_session_complete(HmpSession *session, const char *line)
{
    HmpLine at = { .at = line };
    g_autofree char *first = hmp_line_take_name(&at);
    /* Only the first two words are known. */
    gboolean is_second = *at.at == ' ';
    const char *command = is_second ? first : "";
    if (strchr(at.at + strspn(at.at, " "), ' ')) {
        return NULL;
    }
    GStrv known = g_hash_table_lookup(session->words, command);
    for (guint i = 0; !known && i < G_N_ELEMENTS(word_sources); i++) {
        if (!g_str_equal(word_sources[i].command, command)) {
            continue;
        }
        g_autofree char *text = hmp_session_run(session, word_sources[i].line, NULL, NULL, NULL);
        if (text) {
            known = collect_words(text, word_sources[i].column, word_sources[i].separators);
            g_hash_table_insert(session->words, g_strdup(command), known);
        }
    }
    return g_strdupv(known);
}
