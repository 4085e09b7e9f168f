/*
 * Loading: "migrate-incoming" of file: for a QEMU before 8.2, which takes the file as a descriptor.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "migrate-front-impl.h"
#include "migration/channel.h"
#include "util/autofd.h"

/* The name under which QEMU knows it between two commands. */
#define FD_NAME "stillframe-load"

static const char *uri_of(JsonObject *arguments)
{
    JsonNode *uri = arguments ? json_object_get_member(arguments, "uri") : NULL;

    return uri && JSON_NODE_HOLDS_VALUE(uri) ? json_node_get_string(uri) : NULL;
}

gboolean migrate_load_is_file(JsonObject *arguments)
{
    const char *uri = uri_of(arguments);

    return uri && g_str_has_prefix(uri, "file:") && json_object_get_size(arguments) == 1;
}

JsonNode *migrate_load_file(QmpClient *qmp, JsonObject *arguments, GError **errp)
{
    g_autoptr(Destination) file = destination_parse(uri_of(arguments), errp);
    sf_autofd fd = file ? open(file->path, O_RDONLY | O_CLOEXEC) : -1;

    if (!file) {
        return NULL;
    }
    if (fd < 0 || (file->offset && lseek(fd, (off_t)file->offset, SEEK_SET) < 0)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_IO, "Could not open '%s': %s", file->path,
                    g_strerror(errno));
        return NULL;
    }
    JsonObject *name = json_object_new();
    json_object_set_string_member(name, "fdname", FD_NAME);
    g_autoptr(JsonNode) got = qmp_client_execute_with_fd(qmp, "getfd", name, fd, errp);
    if (!got) {
        return NULL;
    }
    g_autoptr(JsonObject) incoming = json_object_new();
    json_object_set_string_member(incoming, "uri", "fd:" FD_NAME);
    JsonNode *answer = migrate_front_ask(qmp, "migrate-incoming", incoming, errp);
    if (!answer) {
        g_autoptr(JsonObject) back = json_object_new();
        json_object_set_string_member(back, "fdname", FD_NAME);
        JsonNode *closed = migrate_front_ask(qmp, "closefd", back, NULL);
        g_clear_pointer(&closed, json_node_unref);
    }
    return answer;
}
