/*
 * Everything that can go wrong with a snapshot: the message says what and why, the exit status is
 * not 0, no image is left, and the guest runs as before.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/autofd.h"
#include "writer-guest.h"

/* Runs a snapshot that must fail with @status, and say every one of @words (separated by '|'). */
static void assert_fails(int status, const char *words, const char *faults, const char *const *args)
{
    g_autofree char *said = NULL;
    g_auto(GStrv) word = g_strsplit(words, "|", -1);

    TestTool *tool = test_tool_start_faulty(faults, args);
    g_assert_cmpint(test_tool_finish(tool, 60000, NULL, &said), ==, status);
    g_test_message("%s", said);
    for (char **w = word; *w; w++) {
        if (!strstr(said, *w)) {
            g_error("\"%s\" is missing in: %s", *w, said);
        }
    }
}

/* The same for a VM that must go on, with no image under its name. */
static void assert_vm_refuses(TestVm *vm, const char *words, const char *faults)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");

    assert_fails(1, words, faults,
                 (const char *const[]){ "snapshot", "--qmp", test_vm_get_socket(vm), path, NULL });
    test_dir_assert_holds(dir, NULL, NULL);
    test_vm_assert_status(vm, "running");
    writer_guest_assert_goes_on(vm);
}

/* The same with a destination of its own. */
static void assert_destination_fails(const char *destination, const char *words, const char *faults)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);

    assert_fails(
        1, words, faults,
        (const char *const[]){ "snapshot", "--qmp", test_vm_get_socket(vm), destination, NULL });
    test_vm_assert_status(vm, "running");
    writer_guest_assert_goes_on(vm);
}

/* ---- Finding the VM ---- */

static void test_usage(void)
{
    assert_fails(2, "--pid|--qmp", NULL, (const char *const[]){ "snapshot", "/tmp/x", NULL });
    assert_fails(2, "DESTINATION", NULL, (const char *const[]){ "snapshot", "--pid", "1", NULL });
    assert_fails(2, "stall or cancel", NULL,
                 (const char *const[]){ "snapshot", "--pid", "1", "--on-full", "x", "y", NULL });
    assert_fails(
        2, "8M", NULL,
        (const char *const[]){ "snapshot", "--pid", "1", "--max-buffer", "1M", "y", NULL });
    assert_fails(2, "--help", NULL, (const char *const[]){ "snapshot", "--no-such-option", NULL });
    assert_fails(2, "no command", NULL, (const char *const[]){ "snapsot", NULL });
}

static void test_no_such_process(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        _exit(0);
    }
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
    g_autofree char *text = g_strdup_printf("%d", (int)pid);

    assert_fails(1, "no|process", NULL,
                 (const char *const[]){ "snapshot", "--pid", text, "/tmp/never", NULL });
}

static void test_not_a_qemu(void)
{
    g_autofree char *text = g_strdup_printf("%d", (int)getpid());

    assert_fails(1, "QEMU", NULL,
                 (const char *const[]){ "snapshot", "--pid", text, "/tmp/never", NULL });
}

static void test_no_such_socket(void)
{
    assert_fails(
        1, "/no/such/socket", NULL,
        (const char *const[]){ "snapshot", "--qmp", "/no/such/socket", "/tmp/never", NULL });
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    g_assert_cmpint(connect(fd, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    return fd;
}

static void test_monitor_busy(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    sf_autofd other = connect_to(test_vm_get_socket(vm));
    char greeting[8];

    g_assert_cmpint(recv(other, greeting, sizeof(greeting), MSG_WAITALL), ==, sizeof(greeting));
    assert_vm_refuses(vm, "another client", NULL);
    sf_clear_fd(&other);
}

/* A socket on which this test listens; @answer is sent to who connects, NULL: silence. */
static void assert_bad_monitor(const char *answer, const char *words)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "monitor");
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    sf_autofd listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    g_assert_cmpint(bind(listener, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    g_assert_cmpint(listen(listener, 1), ==, 0);
    TestTool *tool =
        test_tool_start((const char *const[]){ "snapshot", "--qmp", path, "/tmp/never", NULL });
    sf_autofd client = accept(listener, NULL, NULL);
    if (answer) {
        g_assert_cmpint(send(client, answer, strlen(answer), MSG_NOSIGNAL), >, 0);
    }
    g_autofree char *said = NULL;
    g_assert_cmpint(test_tool_finish(tool, 20000, NULL, &said), ==, 1);
    g_test_message("%s", said);
    g_assert_nonnull(strstr(said, words));
}

static void test_monitor_silent(void)
{
    assert_bad_monitor(NULL, "answer");
}

static void test_monitor_is_no_qmp(void)
{
    assert_bad_monitor("220 mail.example ESMTP\r\n", "QMP");
}

static void test_monitor_is_hmp(void)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "hmp");
    g_autofree char *chardev = g_strdup_printf("unix:%s,server=on,wait=off", path);
    g_autoptr(TestVm) vm = writer_guest_start("-monitor", chardev, NULL);

    assert_fails(1, "HMP", NULL,
                 (const char *const[]){ "snapshot", "--qmp", path, "/tmp/never", NULL });
    writer_guest_assert_goes_on(vm);
}

/* ---- What a VM may not have ---- */

static void test_migration_blocker(void)
{
    g_autoptr(TestVm) vm = writer_guest_start("-blockdev", "driver=null-co,node-name=d0", "-device",
                                              "nvme,serial=x,drive=d0", NULL);
    assert_vm_refuses(vm, "nvme", NULL);
}

static void test_ram_on_ordinary_file(void)
{
    /* Not in /tmp, which may be a tmpfs; the file is gone as soon as QEMU has it open. */
    g_autofree char *object = g_strdup_printf(
        "memory-backend-file,id=plain0,size=16M,share=on,mem-path=/var/tmp/stillframe-test-%d",
        (int)getpid());
    g_autofree char *path = g_strdup_printf("/var/tmp/stillframe-test-%d", (int)getpid());
    g_autoptr(TestVm) vm = writer_guest_new("-m", "96,slots=1,maxmem=256M", "-object", object,
                                            "-device", "pc-dimm,memdev=plain0", NULL);

    test_vm_launch(vm);
    unlink(path);
    test_vm_serial_wait(vm, "VV", WRITER_TIMEOUT_MS);
    assert_vm_refuses(vm, "plain0|file", NULL);
}

static void test_vhost_user(void)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *socket_path = test_dir_file(dir, "vhost");
    g_autofree char *export = g_strdup_printf(
        "type=vhost-user-blk,id=e0,node-name=d0,addr.type=unix,addr.path=%s", socket_path);
    g_autofree char *chardev = g_strdup_printf("socket,id=c0,path=%s", socket_path);
    const char *const daemon[] = { "qemu-storage-daemon",
                                   "--blockdev",
                                   "driver=null-co,node-name=d0,size=1048576",
                                   "--export",
                                   export,
                                   NULL };
    TestTool *backend = test_tool_start_command(daemon);

    for (guint i = 0; i < 200 && access(socket_path, F_OK) != 0; i++) {
        g_usleep(20000);
    }
    g_autoptr(TestVm) vm =
        writer_guest_start("-object", "memory-backend-memfd,id=pc.ram,size=96M,share=on",
                           "-machine", "memory-backend=pc.ram", "-chardev", chardev, "-device",
                           "vhost-user-blk-pci,id=disk7,chardev=c0", NULL);
    assert_vm_refuses(vm, "disk7|vhost-user", NULL);
    g_clear_pointer(&vm, test_vm_free);
    kill(test_tool_get_pid(backend), SIGTERM);
    test_tool_finish(backend, 10000, NULL, NULL);
}

/* ---- The destination ---- */

static void test_no_space(void)
{
    assert_destination_fails("/dev/full", "space", NULL);
}

/* A real small file system, in a mount namespace that ends with the command. */
static void test_no_space_in_the_middle(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *line = g_strdup_printf(
        "mount -t tmpfs -o size=8m none '%s' && "
        "{ \"$STILLFRAME_BIN\" snapshot --qmp '%s' '%s/image'; s=$?; ls -A '%s'; exit $s; }",
        dir->path, test_vm_get_socket(vm), dir->path, dir->path);
    const char *const argv[] = { "unshare", "-m", "/bin/sh", "-c", line, NULL };
    g_autofree char *said = NULL, *left = NULL;

    if (geteuid() != 0) {
        g_test_skip("mounting a small file system needs root");
        return;
    }
    g_assert_cmpint(test_tool_finish(test_tool_start_command(argv), 60000, &left, &said), ==, 1);
    g_assert_nonnull(strstr(said, "space"));
    g_assert_cmpstr(left, ==, "");
    test_vm_assert_status(vm, "running");
    writer_guest_assert_goes_on(vm);
}

static void test_write_errors(void)
{
    if (!test_need_faults()) {
        return;
    }
    g_autoptr(TestVm) vm = writer_guest_start(NULL);

    assert_vm_refuses(vm, "space", "write-enospc=5");
    assert_vm_refuses(vm, "put/output error", "write-eio=20");
    assert_vm_refuses(vm, "space", "no-o-tmpfile,write-enospc=5");
}

static void test_no_such_directory(void)
{
    assert_destination_fails("/no/such/folder/image", "/no/such/folder", NULL);
}

static void test_reader_closes_the_pipe(void)
{
    assert_destination_fails("exec:head -c 1000000 > /dev/null", "head -c 1000000", NULL);
}

static void test_command_fails(void)
{
    assert_destination_fails("exec:cat > /dev/null; exit 3", "3", NULL);
    assert_destination_fails("exec:/no/such/program", "127", NULL);
}

static void test_nobody_listens(void)
{
    assert_destination_fails("unix:/no/such/listener", "/no/such/listener", NULL);
    assert_destination_fails("tcp:127.0.0.1:1", "127.0.0.1", NULL);
}

/* ---- In the middle ---- */

static void test_qemu_exits(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");
    g_autofree char *uri = g_strdup_printf("exec:sleep 2; cat > '%s'", path);
    g_autofree char *said = NULL;
    TestTool *tool = test_tool_start((const char *const[]){
        "snapshot", "--max-buffer", "8M", "--qmp", test_vm_get_socket(vm), uri, NULL });

    g_usleep(800000);
    test_vm_kill(vm);
    g_assert_cmpint(test_tool_finish(tool, 20000, NULL, &said), ==, 1);
    g_test_message("%s", said);
    g_assert_nonnull(strstr(said, "QEMU exited"));
}

static void test_qemu_exits_in_the_freeze(void)
{
    if (!test_need_faults()) {
        return;
    }
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");
    g_autofree char *said = NULL;
    TestTool *tool = test_tool_start_faulty(
        "long-freeze",
        (const char *const[]){ "snapshot", "--qmp", test_vm_get_socket(vm), path, NULL });

    test_vm_assert_status(vm, "paused");
    test_vm_kill(vm);
    g_assert_cmpint(test_tool_finish(tool, 20000, NULL, &said), ==, 1);
    g_assert_cmpstr(said, ==, "stillframe: QEMU exited during the snapshot\n");
    test_dir_assert_holds(dir, NULL, NULL);
}

static void test_device_state_fails(void)
{
    if (!test_need_faults()) {
        return;
    }
    g_autoptr(TestVm) vm = writer_guest_start(NULL);

    assert_vm_refuses(vm, "device state", "device-state-fails");
}

/* The engine's "cont" gets an error: the guardian, which is no part of the engine, sends another.
 */
static void test_cont_fails(void)
{
    if (!test_need_faults()) {
        return;
    }
    g_autoptr(TestVm) vm = writer_guest_start(NULL);

    assert_vm_refuses(vm, "did not obey \"cont\"|the guest was resumed", "cont-fails");
    assert_vm_refuses(vm, "device state|the guest was resumed", "device-state-fails,cont-fails");
}

static void test_second_at_once(void)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *other = test_dir_file(dir, "second-monitor");
    g_autofree char *monitor = g_strdup_printf("unix:%s,server=on,wait=off", other);
    g_autoptr(TestVm) vm = writer_guest_start("-qmp", monitor, NULL);
    g_autofree char *path = test_dir_file(dir, "image");
    g_autofree char *uri = g_strdup_printf("exec:sleep 3; cat > '%s'", path);
    TestTool *first = test_tool_start(
        (const char *const[]){ "snapshot", "--max-buffer", "8M", "--qmp", other, uri, NULL });

    g_usleep(1000000);
    assert_fails(
        1, "another snapshot", NULL,
        (const char *const[]){ "snapshot", "--qmp", test_vm_get_socket(vm), "/tmp/never", NULL });
    g_assert_cmpint(test_tool_finish(first, 60000, NULL, NULL), ==, 0);
    writer_guest_check_image(path, 0);
    writer_guest_assert_goes_on(vm);
}

/* ---- What the kernel may not have ---- */

static void test_kernel_without_write_protect(void)
{
    if (!test_need_faults()) {
        return;
    }
    g_autoptr(TestVm) vm = writer_guest_start(NULL);

    assert_vm_refuses(vm, "5.7|run \"stillframe check\"", "no-wp");
}

static void test_kernel_without_shmem_write_protect(void)
{
    if (!test_need_faults()) {
        return;
    }
    g_autoptr(TestVm) vm =
        writer_guest_start("-object", "memory-backend-memfd,id=pc.ram,size=96M,share=on",
                           "-machine", "memory-backend=pc.ram", NULL);
    assert_vm_refuses(vm, "5.19|run \"stillframe check\"", "no-wp-shmem");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/errors/usage", test_usage);
    g_test_add_func("/errors/no-such-process", test_no_such_process);
    g_test_add_func("/errors/not-a-qemu", test_not_a_qemu);
    g_test_add_func("/errors/no-such-socket", test_no_such_socket);
    g_test_add_func("/errors/monitor-busy", test_monitor_busy);
    g_test_add_func("/errors/monitor-silent", test_monitor_silent);
    g_test_add_func("/errors/monitor-is-no-qmp", test_monitor_is_no_qmp);
    g_test_add_func("/errors/monitor-is-hmp", test_monitor_is_hmp);
    g_test_add_func("/errors/migration-blocker", test_migration_blocker);
    g_test_add_func("/errors/ram-on-ordinary-file", test_ram_on_ordinary_file);
    g_test_add_func("/errors/vhost-user", test_vhost_user);
    g_test_add_func("/errors/no-space", test_no_space);
    g_test_add_func("/errors/no-space-in-the-middle", test_no_space_in_the_middle);
    g_test_add_func("/errors/write-errors", test_write_errors);
    g_test_add_func("/errors/no-such-directory", test_no_such_directory);
    g_test_add_func("/errors/reader-closes-the-pipe", test_reader_closes_the_pipe);
    g_test_add_func("/errors/command-fails", test_command_fails);
    g_test_add_func("/errors/nobody-listens", test_nobody_listens);
    g_test_add_func("/errors/qemu-exits", test_qemu_exits);
    g_test_add_func("/errors/qemu-exits-in-the-freeze", test_qemu_exits_in_the_freeze);
    g_test_add_func("/errors/device-state-fails", test_device_state_fails);
    g_test_add_func("/errors/cont-fails", test_cont_fails);
    g_test_add_func("/errors/second-at-once", test_second_at_once);
    g_test_add_func("/errors/kernel-without-write-protect", test_kernel_without_write_protect);
    g_test_add_func("/errors/kernel-without-shmem-write-protect",
                    test_kernel_without_shmem_write_protect);
    return g_test_run();
}
