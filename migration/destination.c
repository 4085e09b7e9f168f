/*
 * Destinations in QEMU's words, taken apart. No file is touched here.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "migration/channel.h"

#define OFFSET_OPTION ",offset="

void destination_free(Destination *destination)
{
    if (destination) {
        g_free(destination->path);
        g_free(destination->port);
        g_free(destination);
    }
}

/* The power of two behind a size suffix; -1 where it is none. */
static int suffix_shift(const char *suffix)
{
    static const char letters[] = "KMGTPE";

    if (!*suffix) {
        return 0;
    }
    const char *letter = strchr(letters, g_ascii_toupper(*suffix));
    return letter && !suffix[1] ? (int)(letter - letters + 1) * 10 : -1;
}

gboolean destination_parse_size(const char *text, guint64 *size, GError **errp)
{
    gboolean hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    const char *digits = hex ? text + 2 : text;
    char *end = NULL;
    int shift = -1;

    /* g_ascii_strtoull() alone would take blanks and signs. It stops at overflow with the maximum.
     */
    if (hex ? g_ascii_isxdigit(*digits) : g_ascii_isdigit(*digits)) {
        *size = g_ascii_strtoull(digits, &end, hex ? 16 : 10);
        shift = hex ? (*end ? -1 : 0) : suffix_shift(end);
    }
    if (shift < 0) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE,
                    "\"%s\" is not a size: write a decimal number with an optional suffix k, M, G, "
                    "T, P or E, or a 0x number",
                    text);
        return FALSE;
    }
    if (*size > (guint64)G_MAXINT64 >> shift) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE, "the size \"%s\" is too large", text);
        return FALSE;
    }
    *size <<= shift;
    return TRUE;
}

static gboolean parse_file(Destination *destination, const char *text, GError **errp)
{
    const char *option = strstr(text, OFFSET_OPTION);

    destination->kind = DEST_FILE;
    if (option &&
        !destination_parse_size(option + strlen(OFFSET_OPTION), &destination->offset, errp)) {
        g_prefix_error(errp, "file:%s: ", text);
        return FALSE;
    }
    destination->path = option ? g_strndup(text, (gsize)(option - text)) : g_strdup(text);
    if (!*destination->path) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE, "\"file:%s\" names no file", text);
        return FALSE;
    }
    return TRUE;
}

static gboolean parse_text(Destination *destination, DestinationKind kind, const char *what,
                           const char *text, GError **errp)
{
    destination->kind = kind;
    destination->path = g_strdup(text);
    if (!*text) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE, "the destination names no %s", what);
        return FALSE;
    }
    return TRUE;
}

static gboolean parse_fd(Destination *destination, const char *text, GError **errp)
{
    guint64 number;

    destination->kind = DEST_FD;
    if (!g_ascii_string_to_unsigned(text, 10, 0, G_MAXINT, &number, NULL)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE,
                    "\"fd:%s\": write the number of an open descriptor, as in \"fd:3 3>image\"",
                    text);
        return FALSE;
    }
    destination->fd = (int)number;
    return TRUE;
}

static gboolean port_is_plausible(const char *port)
{
    for (const char *p = port; *p; p++) {
        if (!g_ascii_isalnum(*p) && *p != '-') {
            return FALSE;
        }
    }
    return *port != '\0';
}

static gboolean parse_tcp(Destination *destination, const char *text, GError **errp)
{
    gboolean v6 = text[0] == '[';
    const char *host = v6 ? text + 1 : text;
    const char *end = strchr(host, v6 ? ']' : ':');
    const char *colon = end && v6 ? end + 1 : end;

    destination->kind = DEST_TCP;
    if (!end || end == host || *colon != ':' || !port_is_plausible(colon + 1)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE,
                    "\"tcp:%s\": write tcp:HOST:PORT, or tcp:[ADDRESS]:PORT for IPv6", text);
        return FALSE;
    }
    destination->path = g_strndup(host, (gsize)(end - host));
    destination->port = g_strdup(colon + 1);
    return TRUE;
}

static gboolean parse_into(Destination *destination, const char *text, GError **errp)
{
    const char *colon = strchr(text, ':');
    const char *slash = strchr(text, '/');

    if (!colon || (slash && slash < colon)) {
        return parse_file(destination, text, errp);
    }
    const char *rest = colon + 1;
    if (g_str_has_prefix(text, "file:")) {
        return parse_file(destination, rest, errp);
    }
    if (g_str_has_prefix(text, "exec:")) {
        return parse_text(destination, DEST_EXEC, "command", rest, errp);
    }
    if (g_str_has_prefix(text, "unix:")) {
        return parse_text(destination, DEST_UNIX, "socket", rest, errp);
    }
    if (g_str_has_prefix(text, "fd:")) {
        return parse_fd(destination, rest, errp);
    }
    if (g_str_has_prefix(text, "tcp:")) {
        return parse_tcp(destination, rest, errp);
    }
    g_set_error(
        errp, SF_ERROR, SF_ERROR_USAGE,
        "\"%.*s:\" is not a kind of destination: use file:, exec:, fd:, unix: or tcp:; a file "
        "with a colon in its name is written \"./%s\"",
        (int)(colon - text), text, text);
    return FALSE;
}

Destination *destination_parse(const char *text, GError **errp)
{
    g_autoptr(Destination) destination = g_new0(Destination, 1);

    destination->fd = -1;
    if (!parse_into(destination, text, errp)) {
        return NULL;
    }
    return g_steal_pointer(&destination);
}
