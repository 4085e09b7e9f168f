/*
 * Finds QEMU processes, and reads off their arguments where their monitors listen.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "attach/qemu-process.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "attach/qemu-options.h"
#include "attach/tcp-sockets.h"
#include "attach/unix-sockets.h"

/* The options of one QEMU as they are read. */
typedef struct Reader {
    QemuProcess *process;
    GHashTable *chardevs; /* id -> option table */
} Reader;

void qemu_process_free(QemuProcess *process)
{
    if (process) {
        g_free(process->name);
        g_free(process->program);
        g_ptr_array_unref(process->qmp);
        g_ptr_array_unref(process->hmp);
        g_free(process);
    }
}

static gboolean program_is_qemu(const char *name)
{
    return g_str_has_prefix(name, "qemu-system-") || !strcmp(name, "qemu-kvm") ||
           !strcmp(name, "kvm");
}

static gboolean is_same_file(const char *a, const char *b)
{
    struct stat left, right;
    return stat(a, &left) == 0 && stat(b, &right) == 0 && left.st_dev == right.st_dev &&
           left.st_ino == right.st_ino;
}

/* The folder that relative paths were meant from. -daemonize makes "/" the working directory. */
static char *read_start_folder(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/environ", (int)pid);
    g_autofree char *text = NULL;
    gsize length;
    if (!g_file_get_contents(path, &text, &length, NULL)) {
        return NULL;
    }
    for (gsize at = 0; at < length; at += strlen(text + at) + 1) {
        if (g_str_has_prefix(text + at, "PWD=/")) {
            return g_strdup(text + at + strlen("PWD="));
        }
    }
    return NULL;
}

/* The absolute path, in QEMU's mount namespace, of a path among its arguments. */
static char *make_absolute(pid_t pid, const char *path)
{
    if (g_path_is_absolute(path)) {
        return g_strdup(path);
    }
    g_autofree char *link = g_strdup_printf("/proc/%d/cwd", (int)pid);
    g_autofree char *folder = g_file_read_link(link, NULL);
    if (!folder) {
        return g_strdup(path);
    }
    g_autofree char *absolute = g_build_filename(folder, path, NULL);
    g_autofree char *seen = g_build_filename(link, path, NULL);
    g_autofree char *start = g_file_test(seen, G_FILE_TEST_EXISTS) ? NULL : read_start_folder(pid);
    return start ? g_build_filename(start, path, NULL) : g_steal_pointer(&absolute);
}

/*
 * The address of a socket that QEMU bound to @path: by that name where it leads to the same file
 * from here, else through QEMU's own root (another mount namespace, a container).
 */
static char *unix_address(pid_t pid, const char *path)
{
    g_autofree char *absolute = make_absolute(pid, path);
    g_autofree char *inside = g_strdup_printf("/proc/%d/root%s", (int)pid, absolute);
    if (g_file_test(inside, G_FILE_TEST_EXISTS) && !is_same_file(inside, absolute)) {
        return g_strconcat("unix:", inside, NULL);
    }
    return g_strconcat("unix:", absolute, NULL);
}

/* A listening socket that QEMU inherited: its descriptor leads to the inode, that to the path. */
static char *inherited_address(pid_t pid, const char *descriptor)
{
    guint64 number, inode;
    if (!g_ascii_string_to_unsigned(descriptor, 10, 0, G_MAXINT, &number, NULL)) {
        return NULL;
    }
    g_autofree char *link = g_strdup_printf("/proc/%d/fd/%d", (int)pid, (int)number);
    g_autofree char *target = g_file_read_link(link, NULL);
    if (!target || sscanf(target, "socket:[%" SCNu64 "]", &inode) != 1) {
        return NULL;
    }
    g_autofree char *path = unix_socket_find_listener(pid, inode);
    return path && *path != '@' ? unix_address(pid, path) : NULL;
}

static char *tcp_address(const char *host, const char *port)
{
    static const char *const any[] = { "", "0.0.0.0", "::", NULL };
    if (g_strv_contains(any, host)) {
        host = "localhost";
    }
    return g_strdup_printf(strchr(host, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s", host, port);
}

/* Where a socket chardev listens; NULL where it does not, or where it cannot be told. */
static char *chardev_address(pid_t pid, GHashTable *options)
{
    static const char *const kinds[] = { "socket", "unix", "inet", "fd", NULL };
    const char *kind = g_hash_table_lookup(options, "backend");
    if (!kind) {
        kind = g_hash_table_lookup(options, "type");
    }
    if (!kind || !g_strv_contains(kinds, kind) || !qemu_options_get_bool(options, "server") ||
        qemu_options_get_bool(options, "abstract") || qemu_options_get_bool(options, "telnet") ||
        qemu_options_get_bool(options, "websocket")) {
        return NULL;
    }
    const char *path = g_hash_table_lookup(options, "path");
    const char *port = g_hash_table_lookup(options, "port");
    const char *host = g_hash_table_lookup(options, "host");
    const char *fd = g_hash_table_lookup(options, "fd");
    if (!fd) {
        /* JSON has it as {"type": "fd", "str": "N"}. */
        fd = g_hash_table_lookup(options, "str");
    }
    if (path) {
        return unix_address(pid, path);
    }
    if (port) {
        return tcp_address(host ? host : "", port);
    }
    return fd ? inherited_address(pid, fd) : NULL;
}

static void add_address(GPtrArray *addresses, char *address)
{
    if (address) {
        g_ptr_array_add(addresses, address);
    }
}

/* -qmp, -qmp-pretty, -monitor. */
static void read_monitor(Reader *reader, const char *value, GPtrArray *addresses)
{
    g_autoptr(GHashTable) options = NULL;
    if (g_str_has_prefix(value, "chardev:")) {
        GHashTable *found = g_hash_table_lookup(reader->chardevs, value + strlen("chardev:"));
        options = found ? g_hash_table_ref(found) : NULL;
    } else {
        options = qemu_options_parse_chardev(value);
    }
    if (options) {
        add_address(addresses, chardev_address(reader->process->pid, options));
    }
}

/* -mon chardev=ID,mode=control|readline. */
static void read_mon(Reader *reader, const char *value)
{
    g_autoptr(GHashTable) options = qemu_options_parse(value, "chardev");
    const char *id = g_hash_table_lookup(options, "chardev");
    const char *mode = g_hash_table_lookup(options, "mode");
    GHashTable *chardev = id ? g_hash_table_lookup(reader->chardevs, id) : NULL;
    if (chardev) {
        gboolean control = mode && !strcmp(mode, "control");
        add_address(control ? reader->process->qmp : reader->process->hmp,
                    chardev_address(reader->process->pid, chardev));
    }
}

static void read_chardev(Reader *reader, const char *value)
{
    GHashTable *options = qemu_options_parse(value, "backend");
    const char *id = g_hash_table_lookup(options, "id");
    if (id) {
        g_hash_table_insert(reader->chardevs, g_strdup(id), options);
    } else {
        g_hash_table_unref(options);
    }
}

static void read_name(Reader *reader, const char *value)
{
    g_autoptr(GHashTable) options = qemu_options_parse(value, "guest");
    const char *name = g_hash_table_lookup(options, "guest");
    if (name && *name) {
        g_free(reader->process->name);
        reader->process->name = g_strdup(name);
    }
}

static void read_option(Reader *reader, const char *option, const char *value)
{
    if (!strcmp(option, "name")) {
        read_name(reader, value);
    } else if (!strcmp(option, "m")) {
        g_autoptr(GHashTable) options = qemu_options_parse(value, "size");
        const char *size = g_hash_table_lookup(options, "size");
        reader->process->memory = size ? qemu_options_parse_size(size) : 0;
    } else if (!strcmp(option, "qmp") || !strcmp(option, "qmp-pretty")) {
        read_monitor(reader, value, reader->process->qmp);
    } else if (!strcmp(option, "monitor")) {
        read_monitor(reader, value, reader->process->hmp);
    } else if (!strcmp(option, "mon")) {
        read_mon(reader, value);
    }
}

/* The option's name in argv[i], when a value follows it; NULL for anything else. */
static const char *option_at(GStrv argv, guint i)
{
    const char *word = argv[i];
    if (word[0] != '-' || !argv[i + 1]) {
        return NULL;
    }
    return word[1] == '-' ? word + 2 : word + 1;
}

/* Chardevs first, because -mon may name one that comes behind it. */
static void read_arguments(QemuProcess *process, GStrv argv)
{
    g_autoptr(GHashTable) chardevs =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_hash_table_unref);
    Reader reader = { .process = process, .chardevs = chardevs };
    for (guint i = 1; argv[0] && argv[i]; i++) {
        const char *option = option_at(argv, i);
        if (option && !strcmp(option, "chardev")) {
            read_chardev(&reader, argv[i + 1]);
        }
    }
    for (guint i = 1; argv[0] && argv[i]; i++) {
        const char *option = option_at(argv, i);
        if (option) {
            read_option(&reader, option, argv[i + 1]);
        }
    }
}

QemuProcess *qemu_process_inspect(pid_t pid, GError **errp)
{
    uid_t uid;
    g_auto(GStrv) argv = proc_read_cmdline(pid, errp);
    if (!argv || !proc_read_uid(pid, &uid, errp)) {
        return NULL;
    }
    /* Another user's /proc/PID/exe cannot be read; the arguments can. */
    g_autofree char *program = proc_read_exe_name(pid);
    if (!program) {
        program = argv[0] ? g_path_get_basename(argv[0]) : g_strdup("a kernel thread or a zombie");
    }
    if (!program_is_qemu(program)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_NOT_QEMU,
                    "process %d is not a QEMU system emulator, it is %s", (int)pid, program);
        return NULL;
    }
    QemuProcess *process = g_new0(QemuProcess, 1);
    process->pid = pid;
    process->uid = uid;
    process->name = g_strdup(program);
    process->program = g_steal_pointer(&program);
    process->qmp = g_ptr_array_new_with_free_func(g_free);
    process->hmp = g_ptr_array_new_with_free_func(g_free);
    read_arguments(process, argv);
    return process;
}

GPtrArray *qemu_process_list(void)
{
    GPtrArray *list = g_ptr_array_new_with_free_func((GDestroyNotify)qemu_process_free);
    g_autoptr(GArray) pids = proc_list_pids();
    for (guint i = 0; i < pids->len; i++) {
        QemuProcess *process = qemu_process_inspect(g_array_index(pids, pid_t, i), NULL);
        if (process) {
            g_ptr_array_add(list, process);
        }
    }
    return list;
}

static guint64 peer_inode(int fd, GError **errp)
{
    int family = AF_UNSPEC;
    socklen_t length = sizeof(family);
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length) < 0) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "descriptor %d is no socket", fd);
        return 0;
    }
    if (family == AF_UNIX) {
        return unix_socket_get_peer(fd, errp);
    }
    guint64 inode = tcp_socket_find_peer(fd);
    if (!inode) {
        g_set_error(errp, SF_ERROR, SF_ERROR_NOT_QEMU,
                    "the other end of the monitor's TCP connection is not on this host: Stillframe "
                    "must run where QEMU runs");
    }
    return inode;
}

pid_t qemu_process_of_socket(int fd, GError **errp)
{
    guint64 inode = peer_inode(fd, errp);
    if (!inode) {
        g_prefix_error(errp, "cannot find QEMU's process from its monitor (give --pid): ");
        return 0;
    }
    pid_t pid = proc_find_socket_owner(inode);
    if (!pid) {
        g_set_error(errp, SF_ERROR, SF_ERROR_PERMISSION,
                    "the process behind the monitor cannot be seen: run as root or as the user who "
                    "runs QEMU");
        return 0;
    }
    g_autoptr(QemuProcess) process = qemu_process_inspect(pid, errp);
    if (!process) {
        g_prefix_error(errp, "what holds the monitor is not QEMU itself: ");
        return 0;
    }
    return pid;
}
