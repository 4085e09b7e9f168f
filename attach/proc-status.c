/*
 * Single fields of /proc/PID/status. For the files of this folder.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "attach/proc-status.h"

#include <string.h>

char *proc_status_field(pid_t pid, const char *field)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status", (int)pid);
    g_autofree char *text = NULL;
    size_t field_length = strlen(field);

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return NULL;
    }
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        if (g_str_has_prefix(*line, field) && (*line)[field_length] == ':') {
            return g_strdup(g_strstrip(*line + field_length + 1));
        }
    }
    return NULL;
}

guint64 proc_status_number(pid_t pid, const char *field, guint base, guint64 otherwise)
{
    g_autofree char *text = proc_status_field(pid, field);
    guint64 number;

    if (!text || !g_ascii_string_to_unsigned(text, base, 0, G_MAXUINT64, &number, NULL)) {
        return otherwise;
    }
    return number;
}

char *proc_describe(pid_t pid)
{
    g_autofree char *name = proc_status_field(pid, "Name");
    return g_strdup_printf("%d (%s)", (int)pid, name ? name : "?");
}
