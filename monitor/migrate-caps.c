/*
 * Capabilities and parameters: QEMU's own stay QEMU's; background-snapshot, and what a version of
 * QEMU does not know, are kept here, in a file of the VM, so that the next front finds them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "migrate-front-impl.h"

/* ---- The file ---- */

/* For the user's processes only; STILLFRAME_RUNTIME_DIR is for tests. */
static char *settings_dir(void)
{
    const char *chosen = g_getenv("STILLFRAME_RUNTIME_DIR");

    if (chosen && *chosen) {
        return g_strdup(chosen);
    }
    return geteuid() == 0 ? g_strdup("/run/stillframe")
                          : g_build_filename(g_get_user_runtime_dir(), "stillframe", NULL);
}

/* A process id is used again; with its start time it is not. NULL where the process has gone. */
static char *settings_name(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", (int)pid);
    g_autofree char *text = NULL;

    if (pid <= 0 || !g_file_get_contents(path, &text, NULL, NULL)) {
        return NULL;
    }
    /* Behind the name, which may hold anything: state is field 3, the start time 22. */
    const char *rest = strrchr(text, ')');
    g_auto(GStrv) fields = g_strsplit(rest ? rest + 1 : "", " ", 0);
    gboolean lives = g_strv_length(fields) > 20 && strcmp(fields[1], "Z") != 0;
    return lives ? g_strdup_printf("vm-%d-%s", (int)pid, fields[20]) : NULL;
}

static char *settings_path(pid_t pid)
{
    g_autofree char *name = settings_name(pid);
    g_autofree char *dir = settings_dir();

    return name ? g_build_filename(dir, name, NULL) : NULL;
}

/* Files of VMs that have ended. */
static void forget_ended(void)
{
    g_autofree char *dir_path = settings_dir();
    g_autoptr(GDir) dir = g_dir_open(dir_path, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        guint64 pid = 0;
        g_auto(GStrv) parts = g_strsplit(name, "-", 3);
        if (g_strv_length(parts) != 3 || strcmp(parts[0], "vm") ||
            !g_ascii_string_to_unsigned(parts[1], 10, 1, G_MAXINT, &pid, NULL)) {
            continue;
        }
        g_autofree char *now = settings_name((pid_t)pid);
        if (g_strcmp0(now, name) != 0) {
            g_autofree char *path = g_build_filename(dir_path, name, NULL);
            g_unlink(path);
        }
    }
}

void migrate_settings_forget(void)
{
    forget_ended();
}

static void read_settings(MigrateFront *front)
{
    g_autofree char *path = settings_path(front->pid);
    g_autoptr(JsonParser) parser = json_parser_new();
    MigrateSettings *settings = &front->settings;
    struct stat st;

    /* Nobody else's word counts. */
    if (!path || lstat(path, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() ||
        !json_parser_load_from_file(parser, path, NULL) ||
        !JSON_NODE_HOLDS_OBJECT(json_parser_get_root(parser))) {
        return;
    }
    JsonObject *object = json_node_get_object(json_parser_get_root(parser));
    settings->background_snapshot =
        json_object_get_boolean_member_with_default(object, "background-snapshot", FALSE);
    settings->mapped_ram = json_object_get_boolean_member_with_default(object, "mapped-ram", FALSE);
    settings->direct_io = json_object_get_boolean_member_with_default(object, "direct-io", FALSE);
    settings->bandwidth_chosen =
        json_object_get_boolean_member_with_default(object, "bandwidth-chosen", FALSE);
}

/* Under the lock. What cannot be kept is only lost with this front. */
static void write_settings(MigrateFront *front)
{
    const MigrateSettings *settings = &front->settings;
    g_autofree char *path = settings_path(front->pid);
    g_autofree char *dir = settings_dir();

    if (!path) {
        return;
    }
    if (!settings->background_snapshot && !settings->mapped_ram && !settings->direct_io &&
        !settings->bandwidth_chosen) {
        g_unlink(path);
        return;
    }
    g_autofree char *text = g_strdup_printf(
        "{\"background-snapshot\": %s, \"mapped-ram\": %s, \"direct-io\": %s, "
        "\"bandwidth-chosen\": %s}\n",
        settings->background_snapshot ? "true" : "false", settings->mapped_ram ? "true" : "false",
        settings->direct_io ? "true" : "false", settings->bandwidth_chosen ? "true" : "false");
    g_mkdir_with_parents(dir, 0700);
    g_autoptr(GError) error = NULL;
    if (!g_file_set_contents_full(path, text, -1, G_FILE_SET_CONTENTS_CONSISTENT, 0600, &error)) {
        g_printerr("stillframe: the capabilities of this VM are not kept for the next proxy: %s\n",
                   error->message);
    }
}

/* ---- Capabilities ---- */

static JsonArray *as_array(JsonNode *node)
{
    return node && JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node) : NULL;
}

static JsonObject *as_object(JsonNode *node)
{
    return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

static JsonObject *find_capability(JsonNode *capabilities, const char *name)
{
    JsonArray *array = as_array(capabilities);

    for (guint i = 0; array && i < json_array_get_length(array); i++) {
        JsonObject *item = as_object(json_array_get_element(array, i));
        if (item && g_strcmp0(json_object_get_string_member_with_default(item, "capability", NULL),
                              name) == 0) {
            return item;
        }
    }
    return NULL;
}

gboolean migrate_capability_is_on(JsonNode *capabilities, const char *name)
{
    JsonObject *item = find_capability(capabilities, name);

    return item && json_object_get_boolean_member_with_default(item, "state", FALSE);
}

gboolean migrate_settings_load(MigrateFront *front, QmpClient *qmp, GError **errp)
{
    g_autoptr(JsonNode) capabilities =
        migrate_front_ask(qmp, "query-migrate-capabilities", NULL, errp);
    g_autoptr(JsonNode) parameters =
        capabilities ? migrate_front_ask(qmp, "query-migrate-parameters", NULL, errp) : NULL;

    if (!parameters) {
        return FALSE;
    }
    forget_ended();
    g_mutex_lock(&front->lock);
    if (!front->loaded) {
        read_settings(front);
        /* Somebody may have set it on QEMU's own monitor. */
        front->settings.background_snapshot |=
            migrate_capability_is_on(capabilities, "background-snapshot");
        front->qemu_knows_mapped_ram = find_capability(capabilities, "mapped-ram") != NULL;
        front->qemu_knows_direct_io =
            as_object(parameters) && json_object_has_member(as_object(parameters), "direct-io");
        front->version = qmp_client_get_version(qmp);
        front->loaded = TRUE;
    }
    g_mutex_unlock(&front->lock);
    return TRUE;
}

/* In QEMU's order: the first one that is on is named. */
static const char *find_incompatible(JsonNode *capabilities, JsonNode *changes)
{
    static const char *const names[] = { "postcopy-ram",
                                         "dirty-bitmaps",
                                         "postcopy-blocktime",
                                         "late-block-activate",
                                         "return-path",
                                         "multifd",
                                         "pause-before-switchover",
                                         "auto-converge",
                                         "release-ram",
                                         "rdma-pin-all",
                                         "compress",
                                         "xbzrle",
                                         "x-colo",
                                         "validate-uuid",
                                         "zero-copy-send" };

    for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
        JsonObject *change = find_capability(changes, names[i]);
        gboolean known = find_capability(capabilities, names[i]) != NULL;
        gboolean on = change ? json_object_get_boolean_member_with_default(change, "state", FALSE)
                             : migrate_capability_is_on(capabilities, names[i]);
        if (known && on) {
            return names[i];
        }
    }
    return NULL;
}

/* One element for us; QEMU gets another one in its place, so that its own numbering stays right. */
static void take_ours(MigrateFront *front, JsonObject *item, MigrateSettings *wanted)
{
    const char *name = json_object_get_string_member_with_default(item, "capability", "");
    JsonNode *state = json_object_get_member(item, "state");
    gboolean is_bool =
        state && JSON_NODE_HOLDS_VALUE(state) && json_node_get_value_type(state) == G_TYPE_BOOLEAN;

    if (!is_bool) {
        return;
    }
    gboolean on = json_node_get_boolean(state);
    if (!strcmp(name, "background-snapshot")) {
        wanted->background_snapshot = on;
    } else if (!strcmp(name, "mapped-ram") && !front->qemu_knows_mapped_ram &&
               wanted->background_snapshot) {
        wanted->mapped_ram = on;
    } else {
        return;
    }
    /* QEMU's own background-snapshot stays off: with it, savevm and others behave differently. */
    json_object_set_string_member(item, "capability", "background-snapshot");
    json_object_set_boolean_member(item, "state", FALSE);
}

static MigrateSettings plan_settings(MigrateFront *front, JsonNode *changes)
{
    MigrateSettings wanted = front->settings;
    JsonArray *array = as_array(changes);
    JsonObject *snapshot = find_capability(changes, "background-snapshot");

    /* Its place in the list does not matter. */
    if (snapshot) {
        wanted.background_snapshot = json_object_get_boolean_member_with_default(
            snapshot, "state", wanted.background_snapshot);
    }
    for (guint i = 0; array && i < json_array_get_length(array); i++) {
        JsonObject *item = as_object(json_array_get_element(array, i));
        if (item) {
            take_ours(front, item, &wanted);
        }
    }
    wanted.mapped_ram &= wanted.background_snapshot;
    return wanted;
}

static JsonNode *set_error(GError **errp, const char *text)
{
    g_set_error_literal(errp, SF_ERROR, SF_ERROR_MONITOR_COMMAND, text);
    return NULL;
}

static JsonObject *copy_object(JsonObject *object)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);

    if (!object) {
        return json_object_new();
    }
    json_node_set_object(node, object);
    g_autofree char *text = json_to_string(node, FALSE);
    g_autoptr(JsonNode) copy = json_from_string(text, NULL);
    return json_node_dup_object(copy);
}

JsonNode *migrate_set_capabilities(MigrateFront *front, QmpClient *qmp, JsonObject *arguments,
                                   GError **errp)
{
    g_autoptr(JsonObject) copy = copy_object(arguments);
    g_autoptr(JsonNode) now = migrate_front_ask(qmp, "query-migrate-capabilities", NULL, errp);

    if (!now) {
        return NULL;
    }
    g_mutex_lock(&front->lock);
    gboolean running = migrate_run_is_running(&front->run);
    JsonNode *changes = json_object_get_member(copy, "capabilities");
    MigrateSettings wanted = plan_settings(front, changes);
    g_mutex_unlock(&front->lock);
    if (running) {
        return set_error(errp, "There's a migration process in progress");
    }
    const char *incompatible = wanted.background_snapshot ? find_incompatible(now, changes) : NULL;
    if (incompatible) {
        g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_COMMAND,
                    "Background-snapshot is not compatible with %s", incompatible);
        return NULL;
    }
    JsonNode *answer = migrate_front_ask(qmp, "migrate-set-capabilities", copy, errp);
    if (answer) {
        g_mutex_lock(&front->lock);
        front->settings = wanted;
        write_settings(front);
        g_mutex_unlock(&front->lock);
    }
    return answer;
}

static void show_capability(JsonNode *capabilities, const char *name, gboolean on)
{
    JsonObject *item = find_capability(capabilities, name);

    if (!item) {
        item = json_object_new();
        json_object_set_boolean_member(item, "state", on);
        json_object_set_string_member(item, "capability", name);
        json_array_add_object_element(json_node_get_array(capabilities), item);
    } else {
        json_object_set_boolean_member(item, "state", on);
    }
}

/* QEMU's answers are shared and sealed inside the client: what we change is a copy. */
static JsonNode *open_up(JsonNode *node)
{
    g_autofree char *text = node ? json_to_string(node, FALSE) : NULL;

    g_clear_pointer(&node, json_node_unref);
    return text ? json_from_string(text, NULL) : NULL;
}

JsonNode *migrate_query_capabilities(MigrateFront *front, QmpClient *qmp, GError **errp)
{
    JsonNode *answer = open_up(migrate_front_ask(qmp, "query-migrate-capabilities", NULL, errp));

    if (as_array(answer)) {
        g_mutex_lock(&front->lock);
        const MigrateSettings *settings = &front->settings;
        show_capability(answer, "background-snapshot", settings->background_snapshot);
        if (!front->qemu_knows_mapped_ram && settings->background_snapshot) {
            show_capability(answer, "mapped-ram", settings->mapped_ram);
        }
        g_mutex_unlock(&front->lock);
    }
    return answer;
}

/* ---- Parameters ---- */

/* Takes direct-io out for a QEMU that does not know it. FALSE: its value is none. */
static gboolean take_direct_io(MigrateFront *front, JsonObject *arguments, int *direct_io,
                               GError **errp)
{
    JsonNode *value = json_object_get_member(arguments, "direct-io");

    *direct_io = -1;
    if (!value || front->qemu_knows_direct_io) {
        return TRUE;
    }
    if (!JSON_NODE_HOLDS_VALUE(value) || json_node_get_value_type(value) != G_TYPE_BOOLEAN) {
        set_error(errp, "Invalid parameter type for 'direct-io', expected: boolean");
        return FALSE;
    }
    *direct_io = json_node_get_boolean(value);
    json_object_remove_member(arguments, "direct-io");
    return TRUE;
}

/* A running sweep follows. */
static void tell_bandwidth(MigrateFront *front, QmpClient *qmp)
{
    g_autoptr(JsonNode) parameters = migrate_front_ask(qmp, "query-migrate-parameters", NULL, NULL);

    g_mutex_lock(&front->lock);
    if (as_object(parameters) && migrate_run_is_running(&front->run) && front->engine) {
        g_autoptr(JsonObject) message = json_object_new();
        json_object_set_int_member(message, "max-bandwidth",
                                   migrate_run_bandwidth(front, as_object(parameters)));
        migrate_engine_send(front->engine, message);
    }
    g_mutex_unlock(&front->lock);
}

JsonNode *migrate_set_parameters(MigrateFront *front, QmpClient *qmp, JsonObject *arguments,
                                 GError **errp)
{
    g_autoptr(JsonObject) copy = copy_object(arguments);
    gboolean bandwidth = json_object_has_member(copy, "max-bandwidth");
    int direct_io;

    if (!take_direct_io(front, copy, &direct_io, errp)) {
        return NULL;
    }
    JsonNode *answer = migrate_front_ask(qmp, "migrate-set-parameters", copy, errp);
    if (!answer) {
        return NULL;
    }
    g_mutex_lock(&front->lock);
    front->settings.bandwidth_chosen |= bandwidth;
    front->settings.direct_io = direct_io < 0 ? front->settings.direct_io : direct_io;
    write_settings(front);
    g_mutex_unlock(&front->lock);
    if (bandwidth) {
        tell_bandwidth(front, qmp);
    }
    return answer;
}

JsonNode *migrate_query_parameters(MigrateFront *front, QmpClient *qmp, GError **errp)
{
    JsonNode *answer = open_up(migrate_front_ask(qmp, "query-migrate-parameters", NULL, errp));

    if (as_object(answer) && !front->qemu_knows_direct_io) {
        g_mutex_lock(&front->lock);
        json_object_set_boolean_member(as_object(answer), "direct-io", front->settings.direct_io);
        g_mutex_unlock(&front->lock);
    }
    return answer;
}
