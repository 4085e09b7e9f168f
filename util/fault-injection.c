/*
 * Reads STILLFRAME_FAULTS once and counts the calls of each fault that it names.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/fault-injection.h"

#ifdef CONFIG_FAULT_INJECTION

typedef struct Fault {
    guint64 from_call;
    guint64 calls;
} Fault;

static GMutex fault_lock;

/* Asked on every page fault, so the usual case, nothing to inject, must cost next to nothing. */
static gboolean any_fault(void)
{
    static gsize answer;

    if (g_once_init_enter(&answer)) {
        const char *text = g_getenv("STILLFRAME_FAULTS");
        g_once_init_leave(&answer, text && *text ? 2 : 1);
    }
    return answer == 2;
}

/* The table is filled at the first use and kept: the environment does not change in a run. */
static GHashTable *fault_table(void)
{
    static GHashTable *table;

    if (table) {
        return table;
    }
    table = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    const char *text = g_getenv("STILLFRAME_FAULTS");
    g_auto(GStrv) names = g_strsplit(text ? text : "", ",", -1);
    for (char **name = names; *name; name++) {
        char *equals = strchr(*name, '=');
        Fault *fault = g_new0(Fault, 1);
        fault->from_call = equals ? g_ascii_strtoull(equals + 1, NULL, 10) : 1;
        if (equals) {
            *equals = '\0';
        }
        g_hash_table_insert(table, g_strdup(*name), fault);
    }
    return table;
}

gboolean fault_injected(const char *name)
{
    if (!any_fault()) {
        return FALSE;
    }
    g_mutex_lock(&fault_lock);
    Fault *fault = g_hash_table_lookup(fault_table(), name);
    gboolean injected = fault && ++fault->calls >= fault->from_call;
    g_mutex_unlock(&fault_lock);
    return injected;
}

guint64 fault_value(const char *name, guint64 otherwise)
{
    if (!any_fault()) {
        return otherwise;
    }
    g_mutex_lock(&fault_lock);
    Fault *fault = g_hash_table_lookup(fault_table(), name);
    guint64 value = fault ? fault->from_call : otherwise;
    g_mutex_unlock(&fault_lock);
    return value;
}

#endif
