/*
 * What forbids a snapshot, on real QEMUs that have it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <gio/gunixsocketaddress.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "migration/preflight.h"
#include "real-qemu.h"

/* All blockers of a QEMU, one a line. */
static char *ask_blockers(RealQemu *qemu)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(QmpClient) client = real_qemu_connect(qemu);
    g_autoptr(GPtrArray) blocks = machine_query_ram_blocks(client, &error);
    g_assert_no_error(error);
    g_autoptr(GPtrArray) maps = proc_read_maps(qemu->pid, &error);
    g_assert_no_error(error);
    g_assert_true(ram_host_locate(qemu->pid, client, blocks, maps, &error));
    g_assert_no_error(error);
    g_autoptr(GPtrArray) blockers = preflight_blockers(qemu->pid, client, blocks, maps, &error);
    g_assert_no_error(error);
    g_ptr_array_add(blockers, NULL);
    char *text = g_strjoinv("\n", (char **)blockers->pdata);
    g_test_message("%s", text);
    return text;
}

static char *ask_blockers_with(const char *const *arguments)
{
    RealQemu qemu;
    real_qemu_run(&qemu, arguments);
    char *text = ask_blockers(&qemu);
    real_qemu_clear(&qemu);
    return text;
}

static void assert_says(const char *text, const char *what)
{
    if (!strstr(text, what)) {
        g_error("\"%s\" is not in: %s", what, text);
    }
}

static void test_nothing_forbids(void)
{
    if (!real_qemu_available()) {
        return;
    }
    static const char *const cases[][9] = {
        { "-m", "32M" },
        { "-m", "32M", "-device", "virtio-net-pci,netdev=n", "-netdev", "user,id=n", "-device",
          "virtio-balloon" },
        { "-m", "32M", "-object", "memory-backend-memfd,id=m,size=32M,share=on", "-machine",
          "memory-backend=m" },
        { "-m", "32M", "-object", "memory-backend-memfd,id=m,size=32M,share=off", "-machine",
          "memory-backend=m" },
        { "-m", "32M", "-object", "memory-backend-ram,id=m,size=32M,share=on", "-machine",
          "memory-backend=m" },
        { "-m", "32M", "-object", "memory-backend-file,id=m,size=32M,mem-path=/dev/shm,share=on",
          "-machine", "memory-backend=m" },
    };
    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *text = ask_blockers_with(cases[i]);
        g_assert_cmpstr(text, ==, "");
    }
}

/* The folder must be on a real file system: /tmp may be a tmpfs. */
static void test_ordinary_file(void)
{
    if (!real_qemu_available()) {
        return;
    }
    g_autofree char *file = g_strdup_printf("/var/tmp/stillframe-test-%d", (int)getpid());
    g_autofree char *object =
        g_strdup_printf("memory-backend-file,id=onfile,size=32M,mem-path=%s,share=on", file);
    const char *arguments[] = { "-m", "32M", "-object", object, "-machine", "memory-backend=onfile",
                                NULL };
    g_autofree char *text = ask_blockers_with(arguments);
    g_unlink(file);
    assert_says(text, "onfile");
    assert_says(text, file);
    assert_says(text, "ordinary file");
}

/* ivshmem in peer mode is one of QEMU's own migration blockers. */
static void test_migration_blocker(void)
{
    if (!real_qemu_available()) {
        return;
    }
    const char *arguments[] = { "-m",      "32M",
                                "-object", "memory-backend-ram,id=iv,size=1M,share=on",
                                "-device", "ivshmem-plain,memdev=iv,master=off",
                                NULL };
    g_autofree char *text = ask_blockers_with(arguments);
    assert_says(text, "QEMU forbids saving this VM's state");
    assert_says(text, "ivshmem");
}

/* A child that maps QEMU's memfd with the given protection, until it is killed. */
static pid_t start_sharer(RealQemu *qemu, int protection)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) maps = proc_read_maps(qemu->pid, &error);
    g_assert_no_error(error);
    g_autofree char *path = NULL;
    for (guint i = 0; i < maps->len; i++) {
        const ProcMapping *mapping = maps->pdata[i];
        if (mapping->shared && g_str_has_prefix(mapping->path, "/memfd:")) {
            path = g_strdup_printf("/proc/%d/map_files/%" G_GINT64_MODIFIER "x-%" G_GINT64_MODIFIER
                                   "x",
                                   (int)qemu->pid, mapping->start, mapping->end);
        }
    }
    g_assert_nonnull(path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    void *memory = mmap(NULL, 4096, protection, MAP_SHARED, fd, 0);
    g_assert_true(memory != MAP_FAILED);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
            pause();
        }
    }
    munmap(memory, 4096);
    close(fd);
    return child;
}

static void test_sharers(void)
{
    if (!real_qemu_available()) {
        return;
    }
    RealQemu qemu;
    const char *arguments[] = { "-m",       "32M",
                                "-object",  "memory-backend-memfd,id=shared,size=32M,share=on",
                                "-machine", "memory-backend=shared",
                                NULL };
    real_qemu_run(&qemu, arguments);
    static const int protections[] = { PROT_READ, PROT_READ | PROT_WRITE };
    for (guint i = 0; i < G_N_ELEMENTS(protections); i++) {
        pid_t child = start_sharer(&qemu, protections[i]);
        if (!child) {
            g_test_skip("another process's mapping cannot be opened without CAP_SYS_ADMIN");
            break;
        }
        g_autofree char *text = ask_blockers(&qemu);
        g_autofree char *who =
            g_strdup_printf("process %d (test-preflight) maps RAM block \"shared\"", (int)child);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        if (protections[i] & PROT_WRITE) {
            assert_says(text, who);
        } else {
            g_assert_cmpstr(text, ==, "");
        }
    }
    real_qemu_clear(&qemu);
}

static void test_incoming(void)
{
    if (!real_qemu_available()) {
        return;
    }
    const char *arguments[] = { "-m", "32M", "-incoming", "defer", NULL };
    g_autofree char *text = ask_blockers_with(arguments);
    assert_says(text, "incoming migration");
}

static void execute(RealQemu *qemu, const char *command, const char *uri)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(QmpClient) client = real_qemu_connect(qemu);
    JsonObject *arguments = json_object_new();
    if (uri) {
        json_object_set_string_member(arguments, "uri", uri);
    }
    g_autoptr(JsonNode) answer = qmp_client_execute(client, command, arguments, &error);
    g_assert_no_error(error);
    g_assert_nonnull(answer);
}

/* A migration that stands still: nobody reads at the other end of its socket. */
static void test_running_migration(void)
{
    if (!real_qemu_available()) {
        return;
    }
    RealQemu qemu;
    const char *arguments[] = { "-m", "512M", NULL };
    real_qemu_run(&qemu, arguments);
    g_autoptr(GError) error = NULL;
    g_autofree char *path = g_build_filename(qemu.folder, "to.sock", NULL);
    g_autofree char *uri = g_strconcat("unix:", path, NULL);
    g_autoptr(GSocketAddress) address = g_unix_socket_address_new(path);
    g_autoptr(GSocket) destination =
        g_socket_new(G_SOCKET_FAMILY_UNIX, G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_DEFAULT, &error);
    g_assert_no_error(error);
    g_assert_true(g_socket_bind(destination, address, FALSE, &error));
    g_assert_true(g_socket_listen(destination, &error));

    execute(&qemu, "migrate", uri);
    g_autofree char *text = ask_blockers(&qemu);
    assert_says(text, "a migration of this VM is under way");
    g_socket_close(destination, NULL);
    real_qemu_clear(&qemu);
}

static void test_vhost_user(void)
{
    g_autofree char *daemon = g_find_program_in_path("qemu-storage-daemon");
    if (!daemon) {
        g_test_skip("no qemu-storage-daemon is installed");
        return;
    }
    if (!real_qemu_available()) {
        return;
    }
    RealQemu qemu;
    real_qemu_init(&qemu);
    g_autofree char *disk = g_build_filename(qemu.folder, "disk", NULL);
    g_autofree char *socket = g_build_filename(qemu.folder, "vhost.sock", NULL);
    g_assert_true(g_file_set_contents(disk, "", 0, NULL));
    g_assert_cmpint(truncate(disk, 1 << 20), ==, 0);
    g_autofree char *blockdev = g_strdup_printf("file,node-name=d,filename=%s", disk);
    g_autofree char *export = g_strdup_printf("vhost-user-blk,id=e,node-name=d,writable=on,"
                                              "addr.type=unix,addr.path=%s",
                                              socket);
    g_autoptr(GError) error = NULL;
    g_autoptr(GSubprocessLauncher) launcher = g_subprocess_launcher_new(G_SUBPROCESS_FLAGS_NONE);
    g_subprocess_launcher_set_child_setup(launcher, real_qemu_die_with_test, NULL, NULL);
    g_autoptr(GSubprocess) backend = g_subprocess_launcher_spawn(
        launcher, &error, daemon, "--blockdev", blockdev, "--export", export, NULL);
    g_assert_no_error(error);
    real_qemu_wait_for(socket);

    const char *arguments[] = { "-m",       "32M",
                                "-object",  "memory-backend-memfd,id=shared,size=32M,share=on",
                                "-machine", "memory-backend=shared",
                                "-chardev", "socket,id=c,path=%s/vhost.sock",
                                "-device",  "vhost-user-blk-pci,chardev=c,id=foreign",
                                "-qmp",     "unix:%s/qmp.sock,server=on,wait=off",
                                NULL };
    real_qemu_start(&qemu, arguments);
    real_qemu_wait_until_it_listens(&qemu);
    g_autofree char *text = ask_blockers(&qemu);
    assert_says(text, "device \"foreign\" (vhost-user-blk-pci)");
    real_qemu_clear(&qemu);
    g_subprocess_force_exit(backend);
    g_subprocess_wait(backend, NULL, NULL);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/preflight/nothing-forbids", test_nothing_forbids);
    g_test_add_func("/preflight/ordinary-file", test_ordinary_file);
    g_test_add_func("/preflight/migration-blocker", test_migration_blocker);
    g_test_add_func("/preflight/sharers", test_sharers);
    g_test_add_func("/preflight/incoming", test_incoming);
    g_test_add_func("/preflight/running-migration", test_running_migration);
    g_test_add_func("/preflight/vhost-user", test_vhost_user);
    return g_test_run();
}
