/*
 * Who answers what. A command goes to the front's own functions or to QEMU.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "monitor/migrate-front.h"

#include <string.h>

#include "migrate-front-impl.h"

QmpClient *migrate_front_connect(MigrateFront *front, GError **errp)
{
    int fd = front->ops.open_monitor(front->user, errp);

    return fd < 0 ? NULL : qmp_client_new_from_fd(fd, QMP_GREETING_TIMEOUT_MS, errp);
}

JsonNode *migrate_front_ask(QmpClient *qmp, const char *command, JsonObject *arguments,
                            GError **errp)
{
    g_autoptr(GError) error = NULL;
    JsonNode *answer =
        qmp_client_execute(qmp, command, arguments ? json_object_ref(arguments) : NULL, &error);

    if (answer) {
        return answer;
    }
    /* The client says who refused what; for a client of ours that is the server's own "desc". */
    g_autofree char *prefix = g_strdup_printf("QEMU refused \"%s\": ", command);
    const char *text = error->message;
    if (g_error_matches(error, SF_ERROR, SF_ERROR_MONITOR_COMMAND) &&
        g_str_has_prefix(text, prefix)) {
        text += strlen(prefix);
    }
    g_set_error_literal(errp, error->domain, error->code, text);
    return NULL;
}

MigrateFront *migrate_front_new(pid_t pid, const MigrateFrontOps *ops, gpointer user)
{
    MigrateFront *front = g_new0(MigrateFront, 1);

    front->pid = pid;
    front->ops = *ops;
    front->user = user;
    g_mutex_init(&front->lock);
    g_cond_init(&front->changed);
    return front;
}

void migrate_front_free(MigrateFront *front)
{
    if (!front) {
        return;
    }
    if (front->engine) {
        migrate_engine_cancel(front->engine);
        migrate_engine_free(front->engine);
    }
    migrate_run_clear(&front->run);
    g_mutex_clear(&front->lock);
    g_cond_clear(&front->changed);
    g_free(front);
}

/* What is known of VM and QEMU is learned once. */
static gboolean load(MigrateFront *front, QmpClient *qmp, GError **errp)
{
    g_mutex_lock(&front->lock);
    gboolean loaded = front->loaded;
    g_mutex_unlock(&front->lock);
    if (loaded || migrate_settings_load(front, qmp, errp)) {
        return TRUE;
    }
    return FALSE;
}

static gboolean load_alone(MigrateFront *front)
{
    g_mutex_lock(&front->lock);
    gboolean loaded = front->loaded;
    g_mutex_unlock(&front->lock);
    if (loaded) {
        return TRUE;
    }
    g_autoptr(QmpClient) qmp = migrate_front_connect(front, NULL);
    return qmp && load(front, qmp, NULL);
}

gboolean migrate_front_is_on(MigrateFront *front)
{
    if (!load_alone(front)) {
        return FALSE;
    }
    g_mutex_lock(&front->lock);
    gboolean on = front->settings.background_snapshot;
    g_mutex_unlock(&front->lock);
    return on;
}

typedef enum { SOMETIMES, WHEN_ON, WHEN_OURS, ON_OR_RUNNING } When;

typedef struct Command {
    const char *name;
    When when;
} Command;

static const Command commands[] = {
    { "migrate", WHEN_ON },
    { "migrate_cancel", WHEN_OURS },
    { "query-migrate", WHEN_OURS },
    { "migrate-set-capabilities", SOMETIMES },
    { "query-migrate-capabilities", ON_OR_RUNNING },
    { "migrate-set-parameters", ON_OR_RUNNING },
    { "query-migrate-parameters", ON_OR_RUNNING },
    { "migrate-incoming", SOMETIMES },
};

static const Command *find_command(const char *name)
{
    for (guint i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (!strcmp(commands[i].name, name)) {
            return &commands[i];
        }
    }
    return NULL;
}

/* A set of capabilities that neither names ours nor meets it stays QEMU's, word for word. */
static gboolean names_background_snapshot(JsonObject *arguments)
{
    JsonNode *list = arguments ? json_object_get_member(arguments, "capabilities") : NULL;
    JsonArray *array = list && JSON_NODE_HOLDS_ARRAY(list) ? json_node_get_array(list) : NULL;

    for (guint i = 0; array && i < json_array_get_length(array); i++) {
        JsonNode *item = json_array_get_element(array, i);
        const char *name = JSON_NODE_HOLDS_OBJECT(item)
                               ? json_object_get_string_member_with_default(
                                     json_node_get_object(item), "capability", NULL)
                               : NULL;
        if (g_strcmp0(name, "background-snapshot") == 0) {
            return TRUE;
        }
    }
    return FALSE;
}

/* Under the lock. */
static gboolean answers_locked(MigrateFront *front, const Command *command, JsonObject *arguments)
{
    gboolean on = front->settings.background_snapshot;
    gboolean running = migrate_run_is_running(&front->run);

    switch (command->when) {
    case WHEN_ON:
        return on || running;
    case WHEN_OURS:
        return front->ours || running;
    case ON_OR_RUNNING:
        return on || running;
    case SOMETIMES:
        break;
    }
    if (!strcmp(command->name, "migrate-incoming")) {
        return front->version < QEMU_HAS_FILE_URI && migrate_load_is_file(arguments);
    }
    return on || running || names_background_snapshot(arguments);
}

/* Under the lock. */
static gboolean decide(MigrateFront *front, const Command *command, JsonObject *arguments)
{
    gboolean answers = answers_locked(front, command, arguments);

    /* QEMU's own migration begins: from here on its state is the last one. */
    if (!answers && !strcmp(command->name, "migrate")) {
        front->ours = FALSE;
    }
    return answers;
}

gboolean migrate_front_answers(MigrateFront *front, const char *name, JsonObject *arguments)
{
    const Command *command = find_command(name);

    if (!command || !load_alone(front)) {
        return FALSE;
    }
    g_mutex_lock(&front->lock);
    gboolean answers = decide(front, command, arguments);
    g_mutex_unlock(&front->lock);
    return answers;
}

gboolean migrate_front_may_answer(MigrateFront *front, const char *name, JsonObject *arguments)
{
    const Command *command = find_command(name);

    if (!command) {
        return FALSE;
    }
    g_mutex_lock(&front->lock);
    gboolean may = !front->loaded || decide(front, command, arguments);
    g_mutex_unlock(&front->lock);
    return may;
}

guint migrate_front_get_version(MigrateFront *front)
{
    g_mutex_lock(&front->lock);
    guint version = front->version;
    g_mutex_unlock(&front->lock);
    return version;
}

/* Off, a line is QEMU's, but for the one that may switch it on, and what is told of our last one.
 */
gboolean migrate_front_answers_line(MigrateFront *front, const char *line)
{
    if (!load_alone(front)) {
        return FALSE;
    }
    g_mutex_lock(&front->lock);
    gboolean on = front->settings.background_snapshot || migrate_run_is_running(&front->run);
    gboolean told = front->ours && strstr(line, "info");
    gboolean loads = front->version < QEMU_HAS_FILE_URI && strstr(line, "migrate_incoming");
    g_mutex_unlock(&front->lock);
    return on || told || loads || strstr(line, "background-snapshot");
}

static JsonNode *run(MigrateFront *front, QmpClient *qmp, const char *command,
                     JsonObject *arguments, GError **errp)
{
    if (!strcmp(command, "migrate")) {
        return migrate_run_start(front, qmp, arguments, errp);
    }
    if (!strcmp(command, "migrate_cancel")) {
        return migrate_run_cancel(front);
    }
    if (!strcmp(command, "query-migrate")) {
        return migrate_run_query(front, qmp, errp);
    }
    if (!strcmp(command, "migrate-set-capabilities")) {
        return migrate_set_capabilities(front, qmp, arguments, errp);
    }
    if (!strcmp(command, "query-migrate-capabilities")) {
        return migrate_query_capabilities(front, qmp, errp);
    }
    if (!strcmp(command, "migrate-set-parameters")) {
        return migrate_set_parameters(front, qmp, arguments, errp);
    }
    if (!strcmp(command, "query-migrate-parameters")) {
        return migrate_query_parameters(front, qmp, errp);
    }
    return migrate_load_file(qmp, arguments, errp);
}

JsonNode *migrate_front_execute(MigrateFront *front, const char *command, JsonObject *arguments,
                                GError **errp)
{
    g_autoptr(QmpClient) qmp = migrate_front_connect(front, errp);

    if (!qmp || !load(front, qmp, errp)) {
        return NULL;
    }
    return migrate_front_answers(front, command, arguments)
               ? run(front, qmp, command, arguments, errp)
               : migrate_front_ask(qmp, command, arguments, errp);
}
