/*
 * Where a "migrate" goes: QEMU's URIs and channels in the engine's words, and descriptors that QEMU
 * was given under a name, which are taken out of QEMU itself, so that nobody else holds them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "migrate-front-impl.h"
#include "migration/channel.h"
#include "util/autofd.h"

static char *refuse(GError **errp, const char *format, ...) G_GNUC_PRINTF(2, 3);
static char *refuse(GError **errp, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error_literal(errp, SF_ERROR, SF_ERROR_MONITOR_COMMAND, text);
    return NULL;
}

void migrate_target_clear(MigrateTarget *target)
{
    g_clear_pointer(&target->uri, g_free);
    sf_clear_fd(&target->fd);
}

/* ---- The arguments ---- */

typedef struct Member {
    const char *name;
    const char *type;
    GType gtype; /* 0: an array */
    guint since, until;
} Member;

static const Member members[] = {
    { "uri", "string", G_TYPE_STRING, 0, G_MAXUINT },
    { "channels", "array", 0, QEMU_HAS_FILE_URI, G_MAXUINT },
    { "detach", "boolean", G_TYPE_BOOLEAN, 0, G_MAXUINT },
    { "resume", "boolean", G_TYPE_BOOLEAN, 0, G_MAXUINT },
    { "blk", "boolean", G_TYPE_BOOLEAN, 0, 90100 },
    { "inc", "boolean", G_TYPE_BOOLEAN, 0, 90100 },
};

static const Member *find_member(const char *name, guint version)
{
    for (guint i = 0; i < G_N_ELEMENTS(members); i++) {
        if (!strcmp(members[i].name, name) && version >= members[i].since &&
            version < members[i].until) {
            return &members[i];
        }
    }
    return NULL;
}

static gboolean has_type(JsonNode *node, const Member *member)
{
    return member->gtype
               ? JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == member->gtype
               : JSON_NODE_HOLDS_ARRAY(node);
}

static gboolean check_members(guint version, JsonObject *arguments, GError **errp)
{
    g_autoptr(GList) names = arguments ? json_object_get_members(arguments) : NULL;

    for (GList *link = names; link; link = link->next) {
        const Member *member = find_member(link->data, version);
        if (!member) {
            refuse(errp, "Parameter '%s' is unexpected", (char *)link->data);
            return FALSE;
        }
        if (!has_type(json_object_get_member(arguments, link->data), member)) {
            refuse(errp, "Invalid parameter type for '%s', expected: %s", member->name,
                   member->type);
            return FALSE;
        }
    }
    return TRUE;
}

static const char *text_member(JsonObject *object, const char *name)
{
    JsonNode *node = object ? json_object_get_member(object, name) : NULL;

    return node && JSON_NODE_HOLDS_VALUE(node) ? json_node_get_string(node) : NULL;
}

/* An argument vector becomes a shell command that runs just that. */
static char *uri_of_exec(JsonObject *address, GError **errp)
{
    JsonNode *node = json_object_get_member(address, "args");
    JsonArray *args = node && JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node) : NULL;
    g_autoptr(GString) text = g_string_new("exec:exec");

    if (!args || json_array_get_length(args) == 0) {
        return refuse(errp, "Parameter 'channels[0].addr.args' is missing");
    }
    for (guint i = 0; i < json_array_get_length(args); i++) {
        JsonNode *item = json_array_get_element(args, i);
        const char *word = JSON_NODE_HOLDS_VALUE(item) ? json_node_get_string(item) : NULL;
        g_autofree char *quoted = g_shell_quote(word ? word : "");
        g_string_append_printf(text, " %s", quoted);
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}

static char *uri_of_file(JsonObject *address, GError **errp)
{
    const char *name = text_member(address, "filename");
    JsonNode *node = json_object_get_member(address, "offset");
    gint64 offset = node && JSON_NODE_HOLDS_VALUE(node) ? json_node_get_int(node) : 0;

    if (!name || offset < 0) {
        return refuse(errp, "Parameter 'channels[0].addr.%s' is %s", name ? "offset" : "filename",
                      name ? "out of range" : "missing");
    }
    return g_strdup_printf("file:%s,offset=%" G_GINT64_FORMAT, name, offset);
}

static char *uri_of_socket(JsonObject *address, GError **errp)
{
    const char *type = text_member(address, "type");
    const char *host = text_member(address, "host");
    const char *port = text_member(address, "port");
    const char *path = text_member(address, "path");
    const char *name = text_member(address, "str");

    if (g_strcmp0(type, "unix") == 0 && path) {
        return g_strdup_printf("unix:%s", path);
    }
    if (g_strcmp0(type, "fd") == 0 && name) {
        return g_strdup_printf("fd:%s", name);
    }
    if (g_strcmp0(type, "inet") == 0 && host && port) {
        return g_strdup_printf(strchr(host, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s", host, port);
    }
    return refuse(errp,
                  "a background snapshot by Stillframe goes to unix, inet or fd sockets, not to "
                  "one of type '%s'",
                  type ? type : "");
}

static char *uri_of_channels(JsonArray *channels, GError **errp)
{
    JsonNode *node = json_array_get_element(channels, 0);
    JsonObject *channel = JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
    JsonNode *inner = channel ? json_object_get_member(channel, "addr") : NULL;
    JsonObject *address =
        inner && JSON_NODE_HOLDS_OBJECT(inner) ? json_node_get_object(inner) : NULL;
    const char *transport = text_member(address, "transport");

    if (json_array_get_length(channels) != 1) {
        return refuse(errp, "Channel list must have only one entry, for type 'main'");
    }
    if (!transport) {
        return refuse(errp, "Parameter 'channels[0].addr.transport' is missing");
    }
    if (!strcmp(transport, "exec")) {
        return uri_of_exec(address, errp);
    }
    if (!strcmp(transport, "file")) {
        return uri_of_file(address, errp);
    }
    if (!strcmp(transport, "socket")) {
        return uri_of_socket(address, errp);
    }
    return refuse(errp, "a background snapshot by Stillframe has no transport '%s'", transport);
}

/* The forms that the engine has; in QEMU's words of each version. */
static char *check_uri(guint version, const char *uri, GError **errp)
{
    static const char *const known[] = { "file:", "exec:", "fd:", "unix:", "tcp:" };

    for (guint i = 0; i < G_N_ELEMENTS(known); i++) {
        if (g_str_has_prefix(uri, known[i])) {
            return g_strdup(uri);
        }
    }
    return version < QEMU_HAS_FILE_URI
               ? refuse(errp, "Parameter 'uri' expects a valid migration protocol")
               : refuse(errp, "unknown migration protocol: %s", uri);
}

char *migrate_target_check(guint version, JsonObject *arguments, GError **errp)
{
    JsonArray *channels = NULL;

    if (!check_members(version, arguments, errp)) {
        return NULL;
    }
    const char *uri = text_member(arguments, "uri");
    if (arguments && json_object_has_member(arguments, "channels")) {
        channels = json_object_get_array_member(arguments, "channels");
        channels = json_array_get_length(channels) ? channels : NULL;
    }
    if (arguments && json_object_get_boolean_member_with_default(arguments, "resume", FALSE)) {
        return refuse(errp, "Cannot resume if there is no paused migration");
    }
    if (!uri && version < QEMU_HAS_FILE_URI) {
        return refuse(errp, "Parameter 'uri' is missing");
    }
    if (!uri == !channels) {
        return refuse(errp, "need either 'uri' or 'channels' argument");
    }
    return uri ? check_uri(version, uri, errp) : uri_of_channels(channels, errp);
}

/* ---- Descriptors ---- */

static int take_from_process(pid_t pid, int number, GError **errp)
{
    sf_autofd pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    int fd = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, number, 0);

    if (fd < 0) {
        sf_error_set_errno(errp, SF_ERROR_PERMISSION, errno,
                           "cannot take descriptor %d out of QEMU (process %d)", number, (int)pid);
        return -1;
    }
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    return fd;
}

/* A descriptor of the set that can be written; what QEMU does with file:/dev/fdset/N. */
static int find_in_fdset(pid_t pid, JsonArray *fds)
{
    for (guint i = 0; i < json_array_get_length(fds); i++) {
        gint64 number = json_object_get_int_member_with_default(
            json_array_get_object_element(fds, i), "fd", -1);
        sf_autofd fd = number < 0 ? -1 : take_from_process(pid, (int)number, NULL);
        int flags = fd < 0 ? O_RDONLY : fcntl(fd, F_GETFL);
        if ((flags & O_ACCMODE) != O_RDONLY) {
            return (int)number;
        }
    }
    return -1;
}

static int open_fdset(MigrateFront *front, QmpClient *qmp, gint64 wanted, GError **errp)
{
    g_autoptr(JsonNode) answer = migrate_front_ask(qmp, "query-fdsets", NULL, errp);

    if (!answer || !JSON_NODE_HOLDS_ARRAY(answer)) {
        return -1;
    }
    JsonArray *sets = json_node_get_array(answer);
    for (guint i = 0; i < json_array_get_length(sets); i++) {
        JsonObject *set = json_array_get_object_element(sets, i);
        if (json_object_get_int_member_with_default(set, "fdset-id", -1) != wanted) {
            continue;
        }
        int number = find_in_fdset(front->pid, json_object_get_array_member(set, "fds"));
        if (number >= 0) {
            return take_from_process(front->pid, number, errp);
        }
    }
    refuse(errp, "Outgoing migration needs a descriptor that can be written in /dev/fdset/%d",
           (int)wanted);
    return -1;
}

/* As QEMU opens a file with an offset: what stands before it stays, the rest goes. */
static gboolean go_to_offset(int fd, guint64 offset, GError **errp)
{
    if (ftruncate(fd, (off_t)offset) < 0 || lseek(fd, (off_t)offset, SEEK_SET) < 0) {
        return sf_error_set_errno(errp, SF_ERROR_IO, errno,
                                  "cannot go to the offset in what QEMU was given");
    }
    return TRUE;
}

static gboolean open_file_of_fdset(MigrateFront *front, QmpClient *qmp, const Destination *file,
                                   MigrateTarget *target, GError **errp)
{
    guint64 number;
    struct stat st;

    if (!g_ascii_string_to_unsigned(file->path + strlen("/dev/fdset/"), 10, 0, G_MAXINT, &number,
                                    errp)) {
        return FALSE;
    }
    sf_autofd shared = open_fdset(front, qmp, (gint64)number, errp);
    if (shared < 0) {
        return FALSE;
    }
    if (fstat(shared, &st) == 0 && S_ISREG(st.st_mode) &&
        !go_to_offset(shared, file->offset, errp)) {
        return FALSE;
    }
    target->fd = sf_steal_fd(&shared);
    target->uri = g_strdup("fd:0");
    return TRUE;
}

/* QEMU itself forgets a name when its "migrate" has used it. */
static gboolean open_named(MigrateFront *front, QmpClient *qmp, const char *name,
                           MigrateTarget *target, GError **errp)
{
    g_autoptr(JsonObject) arguments = json_object_new();

    target->fd = front->ops.take_fd ? front->ops.take_fd(name, front->user, errp) : -1;
    if (target->fd < 0) {
        if (!front->ops.take_fd) {
            refuse(errp, "File descriptor named '%s' has not been found", name);
        }
        return FALSE;
    }
    json_object_set_string_member(arguments, "fdname", name);
    JsonNode *closed = migrate_front_ask(qmp, "closefd", arguments, NULL);
    g_clear_pointer(&closed, json_node_unref);
    target->uri = g_strdup("fd:0");
    return TRUE;
}

gboolean migrate_target_open(MigrateFront *front, QmpClient *qmp, const char *uri,
                             MigrateTarget *target, GError **errp)
{
    if (g_str_has_prefix(uri, "fd:")) {
        return open_named(front, qmp, uri + strlen("fd:"), target, errp);
    }
    g_autoptr(Destination) destination = destination_parse(uri, errp);
    if (!destination) {
        return FALSE;
    }
    if (destination->kind == DEST_FILE && g_str_has_prefix(destination->path, "/dev/fdset/")) {
        return open_file_of_fdset(front, qmp, destination, target, errp);
    }
    target->uri = g_strdup(uri);
    return TRUE;
}
