/*
 * What the monitor knows that forbids a live snapshot. A userfaultfd sees the writes of QEMU's
 * address space (vCPUs, devices in QEMU, the kernel's vhost threads); it sees neither DMA set up
 * by VFIO or vDPA nor the writes of another process.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdarg.h>
#include <string.h>

#include "monitor/machine.h"

/* User-created devices lie at depth 1 of these, built-in ones up to a few levels deeper. */
#define QOM_DEPTH_MAX 4

static gboolean has_prefix_of(const char *text, const char *const *prefixes)
{
    for (; *prefixes; prefixes++) {
        if (g_str_has_prefix(text, *prefixes)) {
            return TRUE;
        }
    }
    return FALSE;
}

gboolean machine_device_type_is_untrappable(const char *qom_type)
{
    static const char *const prefixes[] = { "vfio-",       "x-vfio-user",     "vhost-user-",
                                            "vhost-vdpa-", "x-pci-proxy-dev", NULL };
    return has_prefix_of(qom_type, prefixes) || !strcmp(qom_type, "vhost-user") ||
           !strcmp(qom_type, "vhost-vdpa");
}

gboolean machine_netdev_line_is_untrappable(const char *line)
{
    /* "NAME: index=0,type=TYPE,..."; the name may hold anything but is an id in practice. */
    const char *type = strstr(line, ",type=");
    if (!type || !strstr(line, ": index=")) {
        return FALSE;
    }
    type += strlen(",type=");
    gsize length = strcspn(type, ",\r\n");
    return (length == strlen("vhost-user") && !strncmp(type, "vhost-user", length)) ||
           (length == strlen("vhost-vdpa") && !strncmp(type, "vhost-vdpa", length));
}

/* Block drivers that let a device or another process do DMA into guest memory. */
static gboolean block_driver_is_untrappable(const char *driver)
{
    static const char *const drivers[] = { "nvme", "virtio-blk-vfio-pci", "virtio-blk-vhost-user",
                                           "virtio-blk-vhost-vdpa", NULL };
    return g_strv_contains(drivers, driver);
}

static void add(GPtrArray *blockers, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void add(GPtrArray *blockers, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_ptr_array_add(blockers, g_strdup_vprintf(format, args));
    va_end(args);
}

static gboolean migration_status_is_busy(const char *status)
{
    static const char *const idle[] = { "none", "completed", "failed", "cancelled", NULL };
    /* Whatever QEMU adds to its states in the future is a state in between. */
    return !g_strv_contains(idle, status);
}

static gboolean collect_migration(QmpClient *qmp, GPtrArray *blockers, GError **errp)
{
    g_autoptr(JsonNode) answer = qmp_client_execute(qmp, "query-migrate", NULL, errp);
    if (!answer || !JSON_NODE_HOLDS_OBJECT(answer)) {
        return answer != NULL;
    }
    JsonObject *info = json_node_get_object(answer);
    const char *status = json_object_get_string_member_with_default(info, "status", "none");
    if (migration_status_is_busy(status)) {
        add(blockers,
            "a migration of this VM is under way (state \"%s\"): wait for its end or "
            "cancel it with migrate_cancel",
            status);
    }
    if (!json_object_has_member(info, "blocked-reasons")) {
        return TRUE;
    }
    JsonArray *reasons = json_object_get_array_member(info, "blocked-reasons");
    for (guint i = 0; i < json_array_get_length(reasons); i++) {
        add(blockers, "QEMU forbids saving this VM's state: %s",
            json_array_get_string_element(reasons, i));
    }
    return TRUE;
}

static gboolean collect_run_state(QmpClient *qmp, GPtrArray *blockers, GError **errp)
{
    g_autofree char *status = machine_query_status(qmp, NULL, errp);
    if (!status) {
        return FALSE;
    }
    if (!strcmp(status, "inmigrate")) {
        add(blockers, "the VM waits for an incoming migration and has no state of its own yet");
    }
    return TRUE;
}

/* Lists the children of @path: array of JsonObject {name, type: "child<...>"}, and properties. */
static JsonNode *qom_list(QmpClient *qmp, const char *path, GError **errp)
{
    JsonObject *arguments = json_object_new();
    json_object_set_string_member(arguments, "path", path);
    return qmp_client_execute(qmp, "qom-list", arguments, errp);
}

/* The TYPE of "child<TYPE>", or NULL for a property or a kind that has no devices below it. */
static char *child_type(JsonObject *property)
{
    const char *type = json_object_get_string_member_with_default(property, "type", "");
    if (!g_str_has_prefix(type, "child<") || !g_str_has_suffix(type, ">")) {
        return NULL;
    }
    gsize prefix = strlen("child<");
    char *result = g_strndup(type + prefix, strlen(type) - prefix - 1);
    if (!strcmp(result, "irq") || g_str_has_suffix(result, "memory-region")) {
        g_clear_pointer(&result, g_free);
    }
    return result;
}

static gboolean walk_devices(QmpClient *qmp, const char *path, guint depth, GPtrArray *blockers,
                             GError **errp)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) answer = qom_list(qmp, path, &error);
    if (!answer) {
        if (depth > 0 && g_error_matches(error, SF_ERROR, SF_ERROR_MONITOR_COMMAND)) {
            /* Unplugged meanwhile. */
            return TRUE;
        }
        g_propagate_error(errp, g_steal_pointer(&error));
        return FALSE;
    }
    if (!JSON_NODE_HOLDS_ARRAY(answer)) {
        return TRUE;
    }
    JsonArray *list = json_node_get_array(answer);
    for (guint i = 0; i < json_array_get_length(list); i++) {
        JsonObject *property = json_array_get_object_element(list, i);
        g_autofree char *type = child_type(property);
        if (!type) {
            continue;
        }
        const char *name = json_object_get_string_member_with_default(property, "name", "");
        g_autofree char *child = g_strdup_printf("%s/%s", path, name);
        if (machine_device_type_is_untrappable(type)) {
            add(blockers,
                "device \"%s\" (%s) writes guest memory from outside QEMU, where it "
                "cannot be caught: unplug it first (device_del)",
                name, type);
        } else if (depth + 1 < QOM_DEPTH_MAX &&
                   !walk_devices(qmp, child, depth + 1, blockers, errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean collect_devices(QmpClient *qmp, GPtrArray *blockers, GError **errp)
{
    return walk_devices(qmp, "/machine/peripheral", 0, blockers, errp) &&
           walk_devices(qmp, "/machine/peripheral-anon", 0, blockers, errp) &&
           walk_devices(qmp, "/machine/unattached", 0, blockers, errp);
}

static gboolean collect_netdevs(QmpClient *qmp, GPtrArray *blockers, GError **errp)
{
    g_autofree char *text = qmp_client_hmp(qmp, "info network", errp);
    if (!text) {
        return FALSE;
    }
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        if (machine_netdev_line_is_untrappable(*line)) {
            /* A backend of a NIC is printed below it as " \ NAME: ...". */
            const char *name = *line + strspn(*line, " \\");
            add(blockers,
                "network backend \"%.*s\" writes guest memory from outside QEMU, where "
                "it cannot be caught: remove it first (netdev_del)",
                (int)(strstr(name, ": index=") - name), name);
        }
    }
    return TRUE;
}

static gboolean collect_block_nodes(QmpClient *qmp, GPtrArray *blockers, GError **errp)
{
    JsonObject *arguments = json_object_new();
    json_object_set_boolean_member(arguments, "flat", TRUE);
    g_autoptr(JsonNode) answer =
        qmp_client_execute(qmp, "query-named-block-nodes", arguments, errp);
    if (!answer || !JSON_NODE_HOLDS_ARRAY(answer)) {
        return answer != NULL;
    }
    JsonArray *nodes = json_node_get_array(answer);
    for (guint i = 0; i < json_array_get_length(nodes); i++) {
        JsonObject *node = json_array_get_object_element(nodes, i);
        const char *driver = json_object_get_string_member_with_default(node, "drv", "");
        if (block_driver_is_untrappable(driver)) {
            add(blockers,
                "block node \"%s\" (driver %s) writes guest memory from outside QEMU, "
                "where it cannot be caught: use another driver for it",
                json_object_get_string_member_with_default(node, "node-name", "?"), driver);
        }
    }
    return TRUE;
}

GPtrArray *machine_query_blockers(QmpClient *qmp, gboolean waiting, GError **errp)
{
    g_autoptr(GPtrArray) blockers = g_ptr_array_new_with_free_func(g_free);
    if (!collect_migration(qmp, blockers, errp) ||
        (!waiting && !collect_run_state(qmp, blockers, errp)) ||
        !collect_devices(qmp, blockers, errp) || !collect_netdevs(qmp, blockers, errp) ||
        !collect_block_nodes(qmp, blockers, errp)) {
        return NULL;
    }
    return g_steal_pointer(&blockers);
}
