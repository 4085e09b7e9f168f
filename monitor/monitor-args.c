/*
 * Rewrites QEMU's arguments so that its monitors are ours to serve. What is not understood to the
 * last key is left to QEMU.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "monitor/monitor-args.h"

#include <string.h>

#include "attach/qemu-options.h"

/* A -chardev of the user's. */
typedef struct Chardev {
    GHashTable *options;
    guint uses;     /* how often it is named, here included */
    gboolean taken; /* a monitor that we serve stood on it */
} Chardev;

typedef struct Rewrite {
    MonitorArgs *args;
    char **argv;
    const char *folder;
    gboolean has_terminal;
    GHashTable *chardevs; /* id -> Chardev */
} Rewrite;

static void monitor_place_free(MonitorPlace *place)
{
    g_free(place->path);
    g_free(place->host);
    g_free(place->port);
    g_free(place->backend);
    g_free(place);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MonitorPlace, monitor_place_free)

void monitor_args_free(MonitorArgs *args)
{
    if (args) {
        g_ptr_array_unref(args->argv);
        g_ptr_array_unref(args->places);
        g_free(args);
    }
}

static void chardev_free(Chardev *chardev)
{
    g_hash_table_unref(chardev->options);
    g_free(chardev);
}

/* The option's name without its dashes, or NULL for what is none. */
static const char *option_name(const char *argument)
{
    return argument[0] != '-' ? NULL : argument + (argument[1] == '-' ? 2 : 1);
}

static gboolean is_option(const char *argument, const char *name)
{
    return g_strcmp0(option_name(argument), name) == 0;
}

/* Whether @argument names the chardev @id, as "chardev=ID", "chardev:ID" or in JSON. */
static gboolean names_chardev(const char *argument, const char *id)
{
    static const char delimiters[] = ",=:\" ";
    for (const char *at = argument; (at = strstr(at, id)); at++) {
        char before = at > argument ? at[-1] : ',';
        char after = at[strlen(id)];
        if (strchr(delimiters, before) && (!after || strchr(delimiters, after))) {
            return TRUE;
        }
    }
    return FALSE;
}

static void count_uses(Rewrite *rewrite, const char *id, Chardev *chardev)
{
    for (char **each = rewrite->argv + 1; *each; each++) {
        /* Its own definition names it once. */
        chardev->uses += names_chardev(*each, id);
    }
}

static void collect_chardevs(Rewrite *rewrite)
{
    for (char **each = rewrite->argv + 1; each[0] && each[1]; each++) {
        if (!is_option(each[0], "chardev")) {
            continue;
        }
        Chardev *chardev = g_new0(Chardev, 1);
        chardev->options = qemu_options_parse(each[1], "backend");
        const char *id = g_hash_table_lookup(chardev->options, "id");
        if (!id) {
            chardev_free(chardev);
            continue;
        }
        count_uses(rewrite, id, chardev);
        g_hash_table_insert(rewrite->chardevs, g_strdup(id), chardev);
    }
}

/* Whether all keys of @options are among @known (NULL-terminated). */
static gboolean has_only(GHashTable *options, const char *const *known)
{
    GHashTableIter iter;
    gpointer key;
    g_hash_table_iter_init(&iter, options);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        if (!g_strv_contains(known, key)) {
            return FALSE;
        }
    }
    return TRUE;
}

/* Where the character device @options is, when we can be there in QEMU's place; else NULL. */
static MonitorPlace *find_place(GHashTable *options)
{
    static const char *const stdio_keys[] = { "short", "backend", "id", NULL };
    static const char *const socket_keys[] = { "short", "backend", "id",   "path", "host",
                                               "port",  "server",  "wait", NULL };
    g_autoptr(MonitorPlace) place = g_new0(MonitorPlace, 1);
    const char *backend = g_hash_table_lookup(options, "backend");
    if (g_strcmp0(backend, "stdio") == 0 && has_only(options, stdio_keys)) {
        place->is_stdio = TRUE;
        return g_steal_pointer(&place);
    }
    if (g_strcmp0(backend, "socket") || !has_only(options, socket_keys) ||
        !qemu_options_get_bool(options, "server")) {
        return NULL;
    }
    place->path = g_strdup(g_hash_table_lookup(options, "path"));
    place->host = g_strdup(g_hash_table_lookup(options, "host"));
    place->port = g_strdup(g_hash_table_lookup(options, "port"));
    /* QEMU's default for a server is to wait. */
    place->wait = !g_hash_table_contains(options, "wait") || qemu_options_get_bool(options, "wait");
    return place->path || place->port ? g_steal_pointer(&place) : NULL;
}

static void push(Rewrite *rewrite, const char *argument)
{
    g_ptr_array_add(rewrite->args->argv, g_strdup(argument));
}

/* QEMU's side of @place (taken): a QMP monitor for us. */
static void add_place(Rewrite *rewrite, MonitorPlace *place, gboolean is_qmp, gboolean is_pretty)
{
    GPtrArray *places = rewrite->args->places;
    place->is_qmp = is_qmp;
    place->backend = g_strdup_printf("%s/monitor-%u", rewrite->folder, places->len);
    g_ptr_array_add(places, place);
    g_autofree char *device = g_strdup_printf("unix:%s,server=on,wait=off", place->backend);
    push(rewrite, is_pretty ? "-qmp-pretty" : "-qmp");
    push(rewrite, device);
    /* For its human monitor QEMU puts the terminal into a mode of its own; for QMP it leaves it. */
    if (place->is_stdio && rewrite->has_terminal && !is_qmp) {
        push(rewrite, "-chardev");
        push(rewrite, "stdio,id=stillframe-terminal");
    }
}

/* A monitor on the chardev @id, if it can be ours. */
static gboolean take_chardev(Rewrite *rewrite, const char *id, gboolean is_qmp, gboolean is_pretty)
{
    Chardev *chardev = id ? g_hash_table_lookup(rewrite->chardevs, id) : NULL;
    MonitorPlace *place = chardev && chardev->uses == 2 ? find_place(chardev->options) : NULL;
    if (!place) {
        return FALSE;
    }
    chardev->taken = TRUE;
    add_place(rewrite, place, is_qmp, is_pretty);
    return TRUE;
}

/* -monitor, -qmp, -qmp-pretty. */
static gboolean take_short(Rewrite *rewrite, const char *value, gboolean is_qmp, gboolean is_pretty)
{
    if (g_str_has_prefix(value, "chardev:")) {
        return take_chardev(rewrite, value + strlen("chardev:"), is_qmp, is_pretty);
    }
    g_autoptr(GHashTable) options = qemu_options_parse_chardev(value);
    MonitorPlace *place = find_place(options);
    if (place) {
        add_place(rewrite, place, is_qmp, is_pretty);
    }
    return place != NULL;
}

static gboolean take_mon(Rewrite *rewrite, const char *value)
{
    static const char *const keys[] = { "chardev", "mode", "pretty", "id", NULL };
    g_autoptr(GHashTable) options = qemu_options_parse(value, "chardev");
    const char *mode = g_hash_table_lookup(options, "mode");
    if (!has_only(options, keys)) {
        return FALSE;
    }
    return take_chardev(rewrite, g_hash_table_lookup(options, "chardev"),
                        g_strcmp0(mode, "control") == 0, qemu_options_get_bool(options, "pretty"));
}

static gboolean take_option(Rewrite *rewrite, const char *name, const char *value)
{
    if (g_str_equal(name, "monitor")) {
        return take_short(rewrite, value, FALSE, FALSE);
    }
    if (g_str_equal(name, "qmp") || g_str_equal(name, "qmp-pretty")) {
        return take_short(rewrite, value, TRUE, g_str_equal(name, "qmp-pretty"));
    }
    return g_str_equal(name, "mon") && take_mon(rewrite, value);
}

/* All arguments but the chardevs of monitors that are ours now. */
static void drop_taken_chardevs(GPtrArray *argv, GHashTable *chardevs)
{
    for (guint i = 0; i + 1 < argv->len; i++) {
        if (!is_option(argv->pdata[i], "chardev")) {
            continue;
        }
        g_autoptr(GHashTable) options = qemu_options_parse(argv->pdata[i + 1], "backend");
        const char *id = g_hash_table_lookup(options, "id");
        Chardev *chardev = id ? g_hash_table_lookup(chardevs, id) : NULL;
        if (chardev && chardev->taken) {
            g_ptr_array_remove_range(argv, i, 2);
            i--;
        }
    }
}

MonitorArgs *monitor_args_new(char **argv, const char *folder, gboolean has_terminal)
{
    /* Their values are anybody's text. */
    static const char *const free_text[] = { "append", "kernel", "initrd", "name", NULL };
    MonitorArgs *args = g_new0(MonitorArgs, 1);
    args->argv = g_ptr_array_new_with_free_func(g_free);
    args->places = g_ptr_array_new_with_free_func((GDestroyNotify)monitor_place_free);
    g_autoptr(GHashTable) chardevs =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)chardev_free);
    Rewrite rewrite = { args, argv, folder, has_terminal, chardevs };

    collect_chardevs(&rewrite);
    push(&rewrite, argv[0]);
    for (char **each = argv + 1; *each; each++) {
        const char *name = option_name(*each);
        args->is_daemonized |= g_strcmp0(name, "daemonize") == 0;
        if (name && each[1] && g_strv_contains(free_text, name)) {
            push(&rewrite, *each++);
            push(&rewrite, *each);
        } else if (name && each[1] && take_option(&rewrite, name, each[1])) {
            each++;
        } else {
            push(&rewrite, *each);
        }
    }
    drop_taken_chardevs(args->argv, chardevs);
    g_ptr_array_add(args->argv, NULL);
    return args;
}
