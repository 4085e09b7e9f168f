/*
 * What /proc tells of a process, for tests.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>
#include <string.h>
#include <sys/types.h>

/* The number of descriptors it has open. */
static inline guint count_descriptors(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", (int)pid);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    guint count = 0;

    g_assert_nonnull(dir);
    while (g_dir_read_name(dir)) {
        count++;
    }
    return count;
}

/* What stands behind "@key:" in its status file; the caller frees. */
static inline char *read_status(pid_t pid, const char *key)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status", (int)pid);
    g_autofree char *text = NULL;
    g_autofree char *label = g_strdup_printf("\n%s:", key);

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    const char *line = strstr(text, label);
    g_assert_nonnull(line);
    line += strlen(label);
    return g_strstrip(g_strndup(line, strcspn(line, "\n")));
}

/* The letter of its state. */
static inline char read_state(pid_t pid)
{
    g_autofree char *state = read_status(pid, "State");

    return state[0];
}
