/*
 * stillframe list: the QEMU processes of the host, and whether each can be snapshotted. Each VM is
 * asked over one short monitor connection, and only where the monitor is free.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "attach/qemu-process.h"
#include "attach/userfaultfd.h"
#include "commands.h"
#include "json-output.h"
#include "migration/preflight.h"

/* A free monitor greets at once; a busy one would let us wait in its queue. */
#define GREETING_TIMEOUT_MS 500

/* What is known of one VM. */
typedef struct Vm {
    const QemuProcess *process;
    const char *monitor; /* the one that answered, else the first; NULL where there is none */
    guint64 memory;      /* 0 = not known */
    char *state;         /* NULL = not known */
    GPtrArray *reasons;  /* why no snapshot can be taken; empty where one can */
} Vm;

static void vm_clear(Vm *vm)
{
    g_free(vm->state);
    g_ptr_array_unref(vm->reasons);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Vm, vm_clear)

/* Takes @error as one more reason. */
static void add_reason(Vm *vm, GError *error)
{
    g_ptr_array_add(vm->reasons, g_strdup(error->message));
    g_error_free(error);
}

/* The first monitor that serves us and is really this process's. */
static QmpClient *open_monitor(Vm *vm)
{
    GError *first_error = NULL;
    GPtrArray *addresses = vm->process->qmp;
    for (guint i = 0; i < addresses->len; i++) {
        GError *error = NULL;
        g_autoptr(QmpClient) qmp =
            qmp_client_open(addresses->pdata[i], GREETING_TIMEOUT_MS, &error);
        pid_t owner = qmp ? qemu_process_of_socket(qmp_client_get_fd(qmp), NULL) : 0;
        if (owner && owner != vm->process->pid) {
            g_set_error(&error, SF_ERROR, SF_ERROR_FAILED,
                        "monitor %s belongs to process %d by now: this VM's is out of reach",
                        (const char *)addresses->pdata[i], (int)owner);
        } else if (qmp) {
            vm->monitor = addresses->pdata[i];
            g_clear_error(&first_error);
            return g_steal_pointer(&qmp);
        }
        if (first_error) {
            g_error_free(error);
        } else {
            first_error = error;
        }
    }
    if (first_error) {
        add_reason(vm, first_error);
    } else {
        g_ptr_array_add(vm->reasons, g_strdup("no QMP monitor that listens on a socket (QEMU's "
                                              "-qmp unix:PATH,server=on,wait=off makes one)"));
    }
    return NULL;
}

/* Main memory and what is plugged; firmware and video memory are not counted. */
static guint64 query_memory(QmpClient *qmp)
{
    g_autoptr(JsonNode) answer = qmp_client_execute(qmp, "query-memory-size-summary", NULL, NULL);
    if (!answer || !JSON_NODE_HOLDS_OBJECT(answer)) {
        return 0;
    }
    JsonObject *summary = json_node_get_object(answer);
    gint64 base = json_object_get_int_member_with_default(summary, "base-memory", 0);
    gint64 plugged = json_object_get_int_member_with_default(summary, "plugged-memory", 0);
    return base > 0 && plugged >= 0 ? (guint64)base + (guint64)plugged : 0;
}

/* All that forbids a snapshot; without ptrace access what the monitor alone tells. */
static GPtrArray *query_blockers(pid_t pid, QmpClient *qmp, gboolean may_ptrace, GError **errp)
{
    if (!may_ptrace) {
        return machine_query_blockers(qmp, FALSE, errp);
    }
    g_autoptr(GPtrArray) maps = proc_read_maps(pid, errp);
    g_autoptr(GPtrArray) blocks = maps ? machine_query_ram_blocks(qmp, errp) : NULL;
    if (!blocks || !ram_host_locate(pid, qmp, blocks, maps, errp)) {
        return NULL;
    }
    return preflight_blockers(pid, qmp, blocks, maps, errp);
}

static void ask_monitor(Vm *vm, QmpClient *qmp, gboolean may_ptrace)
{
    GError *error = NULL;
    guint64 memory = query_memory(qmp);
    vm->memory = memory ? memory : vm->memory;
    vm->state = machine_query_status(qmp, NULL, &error);
    g_autoptr(GPtrArray) blockers =
        vm->state ? query_blockers(vm->process->pid, qmp, may_ptrace, &error) : NULL;
    if (!blockers) {
        add_reason(vm, error);
        return;
    }
    for (guint i = 0; i < blockers->len; i++) {
        g_ptr_array_add(vm->reasons, g_strdup(blockers->pdata[i]));
    }
}

/* Whether descriptors could be sent over the monitor, also where it is busy just now. */
static gboolean monitor_takes_fds(const Vm *vm)
{
    return vm->monitor && g_str_has_prefix(vm->monitor, "unix:");
}

/* Adds what shuts us out of the process. The longer story is told only where the short one is not.
 */
static gboolean check_access(Vm *vm)
{
    GError *error = NULL;
    pid_t pid = vm->process->pid;
    if (!attach_check_ptrace(pid, &error)) {
        if (g_error_matches(error, SF_ERROR, SF_ERROR_PERMISSION)) {
            g_prefix_error(&error, "run as root or as the user who runs QEMU: ");
        }
        add_reason(vm, error);
        return FALSE;
    }
    if (!attach_check_doors(pid, monitor_takes_fds(vm), &error)) {
        add_reason(vm, error);
    }
    return TRUE;
}

static void look_at(Vm *vm, const QemuProcess *process)
{
    vm->process = process;
    vm->memory = process->memory;
    vm->monitor = process->qmp->len ? process->qmp->pdata[0] : NULL;
    vm->reasons = g_ptr_array_new_with_free_func(g_free);

    g_autoptr(QmpClient) qmp = open_monitor(vm);
    gboolean may_ptrace = check_access(vm);
    if (qmp) {
        ask_monitor(vm, qmp, may_ptrace);
    }
}

/* One line, whatever a VM's name or an error's text holds. */
static char *make_plain(const char *text)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        g_strstrip(*line);
    }
    g_autofree char *joined = g_strjoinv("; ", lines);
    char *plain = g_utf8_make_valid(joined, -1);
    for (char *c = plain; *c; c++) {
        *c = g_ascii_iscntrl(*c) ? '?' : *c;
    }
    return plain;
}

/* As QEMU's -m takes it, without loss. */
static char *format_memory(guint64 bytes)
{
    if (bytes == 0) {
        return g_strdup("?");
    }
    if (bytes % (1 << 30) == 0) {
        return g_strdup_printf("%" PRIu64 "G", bytes >> 30);
    }
    return g_strdup_printf("%" PRIu64 "M", bytes >> 20);
}

enum {
    COLUMN_PID,
    COLUMN_NAME,
    COLUMN_MEMORY,
    COLUMN_STATE,
    COLUMN_MONITOR,
    COLUMN_SNAPSHOT,
    COLUMNS
};

static char *describe_snapshot(const Vm *vm)
{
    if (vm->reasons->len == 0) {
        return g_strdup("yes");
    }
    g_autoptr(GString) text = g_string_new("no: ");
    for (guint i = 0; i < vm->reasons->len; i++) {
        g_autofree char *plain = make_plain(vm->reasons->pdata[i]);
        g_string_append_printf(text, "%s%s", i ? "; " : "", plain);
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}

static GStrv make_row(const Vm *vm)
{
    GStrv row = g_new0(char *, COLUMNS + 1);
    row[COLUMN_PID] = g_strdup_printf("%d", (int)vm->process->pid);
    row[COLUMN_NAME] = make_plain(vm->process->name);
    row[COLUMN_MEMORY] = format_memory(vm->memory);
    row[COLUMN_STATE] = g_strdup(vm->state ? vm->state : "?");
    row[COLUMN_MONITOR] = vm->monitor ? make_plain(vm->monitor) : g_strdup("-");
    row[COLUMN_SNAPSHOT] = describe_snapshot(vm);
    return row;
}

static GStrv make_header(void)
{
    static const char *const titles[] = { "PID",     "NAME",     "MEMORY", "STATE",
                                          "MONITOR", "SNAPSHOT", NULL };
    return g_strdupv((GStrv)titles);
}

/* The last column is as wide as it likes. */
static void print_table(GPtrArray *rows)
{
    glong width[COLUMNS] = { 0 };
    for (guint i = 0; i < rows->len; i++) {
        GStrv row = rows->pdata[i];
        for (guint k = 0; k < COLUMNS; k++) {
            width[k] = MAX(width[k], g_utf8_strlen(row[k], -1));
        }
    }
    for (guint i = 0; i < rows->len; i++) {
        GStrv row = rows->pdata[i];
        for (guint k = 0; k + 1 < COLUMNS; k++) {
            int padding = (int)(width[k] - g_utf8_strlen(row[k], -1));
            printf("%s%*s  ", row[k], padding, "");
        }
        puts(row[COLUMN_SNAPSHOT]);
    }
    fflush(stdout);
}

static JsonObject *make_object(const Vm *vm)
{
    const QemuProcess *process = vm->process;
    JsonObject *object = json_object_new();
    json_object_set_int_member(object, "pid", process->pid);
    json_object_set_int_member(object, "uid", process->uid);
    g_autofree char *name = make_plain(process->name);
    json_object_set_string_member(object, "name", name);
    json_object_set_string_member(object, "program", process->program);
    if (vm->memory) {
        json_object_set_int_member(object, "memory", (gint64)vm->memory);
    } else {
        json_object_set_null_member(object, "memory");
    }
    /* A NULL string becomes null. */
    json_object_set_string_member(object, "state", vm->state);
    json_object_set_string_member(object, "monitor", vm->monitor);
    json_object_set_boolean_member(object, "snapshot", vm->reasons->len == 0);
    JsonArray *reasons = json_array_new();
    for (guint i = 0; i < vm->reasons->len; i++) {
        json_array_add_string_element(reasons, vm->reasons->pdata[i]);
    }
    json_object_set_array_member(object, "reasons", reasons);
    return object;
}

static void list_all(gboolean json)
{
    g_autoptr(GPtrArray) processes = qemu_process_list();
    g_autoptr(GPtrArray) rows = g_ptr_array_new_with_free_func((GDestroyNotify)g_strfreev);
    g_autoptr(JsonNode) root = json_node_new(JSON_NODE_ARRAY);
    json_node_take_array(root, json_array_new());

    g_ptr_array_add(rows, make_header());
    for (guint i = 0; i < processes->len; i++) {
        g_auto(Vm) vm = { 0 };
        look_at(&vm, processes->pdata[i]);
        uid_t uid;
        if (!proc_read_uid(vm.process->pid, &uid, NULL)) {
            /* It ended while it was asked. */
            continue;
        }
        if (json) {
            json_array_add_object_element(json_node_get_array(root), make_object(&vm));
        } else {
            g_ptr_array_add(rows, make_row(&vm));
        }
    }
    if (json) {
        json_print(root);
    } else {
        print_table(rows);
    }
}

int cmd_list(int argc, char **argv)
{
    gboolean json = FALSE;
    const GOptionEntry entries[] = {
        { "json", 0, 0, G_OPTION_ARG_NONE, &json, "Print a JSON array, one object a VM", NULL },
        { NULL },
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_option_context_set_summary(
        context, "Lists the QEMU processes of this host that you may see: process, name, memory, "
                 "state,\nmonitor, and whether a live snapshot is possible, with the reason if "
                 "not.");
    g_option_context_add_main_entries(context, entries, NULL);

    g_autoptr(GError) error = NULL;
    if (g_option_context_parse(context, &argc, &argv, &error) && argc > 1) {
        g_set_error(&error, SF_ERROR, SF_ERROR_USAGE, "list takes no argument \"%s\"", argv[1]);
    }
    if (error) {
        g_autoptr(GError) usage = NULL;
        command_usage_error(&usage, error->message);
        return command_fail(usage);
    }
    list_all(json);
    return ferror(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
}
