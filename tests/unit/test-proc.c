/*
 * Reading /proc: this process and its own children are the subjects.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "attach/proc.h"

static void test_maps_parse(void)
{
    static const char text[] =
        "55d0c0000000-55d0c0021000 r-xp 00001000 fe:0a 1234567 /usr/bin/a b (deleted)\n"
        "7f0000000000-7f0040000000 rw-s 00000000 00:01 2050    /memfd:ram0 (deleted)\n"
        "7f0040000000-7f0040001000 ---p 00000000 00:00 0 \n"
        "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]\n";
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) maps = proc_maps_parse(text, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(maps->len, ==, 4);

    const ProcMapping *program = maps->pdata[0];
    g_assert_cmphex(program->start, ==, 0x55d0c0000000);
    g_assert_cmphex(program->end, ==, 0x55d0c0021000);
    g_assert_cmphex(program->file_offset, ==, 0x1000);
    g_assert_true(program->readable && program->executable);
    g_assert_false(program->writable || program->shared);
    g_assert_cmpuint(program->dev_major, ==, 0xfe);
    g_assert_cmpuint(program->dev_minor, ==, 0x0a);
    g_assert_cmpuint(program->inode, ==, 1234567);
    g_assert_cmpstr(program->path, ==, "/usr/bin/a b (deleted)");

    const ProcMapping *memory = maps->pdata[1];
    g_assert_true(memory->shared && memory->writable);
    g_assert_cmpstr(memory->path, ==, "/memfd:ram0 (deleted)");
    g_assert_cmpstr(((ProcMapping *)maps->pdata[2])->path, ==, "");
    g_assert_cmphex(((ProcMapping *)maps->pdata[3])->start, ==, 0xffffffffff600000);

    g_assert_true(proc_maps_find(maps, 0x7f0000000000) == memory);
    g_assert_true(proc_maps_find(maps, 0x7f003fffffff) == memory);
    g_assert_true(proc_maps_find(maps, 0x7f0040000000) == maps->pdata[2]);
    g_assert_null(proc_maps_find(maps, 0x7f0040001000));
    g_assert_null(proc_maps_find(maps, 0));
    g_assert_null(proc_maps_find(maps, G_MAXUINT64));
}

static void test_maps_broken(void)
{
    static const char *const cases[] = {
        "hello\n",
        "1000-2000 rw-p 00000000 00:00\n",
        "2000-1000 rw-p 00000000 00:00 0\n",
        "1000-1000 rw-p 00000000 00:00 0\n",
        "1000-2000 rw 00000000 00:00 0\n",
        "1000-3000 rw-p 00000000 00:00 0\n2000-4000 rw-p 00000000 00:00 0\n",
    };
    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(GPtrArray) maps = proc_maps_parse(cases[i], &error);
        g_assert_null(maps);
        g_assert_error(error, SF_ERROR, SF_ERROR_FAILED);
    }
}

static void test_own_maps(void)
{
    void *memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    g_assert_true(memory != MAP_FAILED);
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) maps = proc_read_maps(getpid(), &error);
    g_assert_no_error(error);
    const ProcMapping *mapping = proc_maps_find(maps, (guintptr)memory + 4096);
    g_assert_nonnull(mapping);
    g_assert_true(mapping->shared && mapping->writable && mapping->inode != 0);
    munmap(memory, 8192);
}

/* A process that has ended and been reaped; its number is free but not used again so soon. */
static pid_t make_gone_process(void)
{
    pid_t child = fork();
    if (child == 0) {
        _exit(0);
    }
    waitpid(child, NULL, 0);
    return child;
}

static void test_no_process(void)
{
    pid_t gone = make_gone_process();
    uid_t uid;
    g_autoptr(GError) maps_error = NULL;
    g_autoptr(GError) cmdline_error = NULL;
    g_autoptr(GError) uid_error = NULL;
    g_assert_null(proc_read_maps(gone, &maps_error));
    g_assert_error(maps_error, SF_ERROR, SF_ERROR_NO_PROCESS);
    g_assert_null(proc_read_cmdline(gone, &cmdline_error));
    g_assert_error(cmdline_error, SF_ERROR, SF_ERROR_NO_PROCESS);
    g_assert_false(proc_read_uid(gone, &uid, &uid_error));
    g_assert_error(uid_error, SF_ERROR, SF_ERROR_NO_PROCESS);
    g_assert_null(proc_read_exe_name(gone));
}

static void test_permission(void)
{
    if (getuid() != 0) {
        g_test_skip("root is needed to become another user");
        return;
    }
    pid_t child = fork();
    if (child == 0) {
        if (setgid(65534) < 0 || setuid(65534) < 0) {
            _exit(3);
        }
        g_autoptr(GError) error = NULL;
        g_autoptr(GPtrArray) maps = proc_read_maps(getppid(), &error);
        _exit(maps ? 1 : g_error_matches(error, SF_ERROR, SF_ERROR_PERMISSION) ? 0 : 2);
    }
    int status;
    g_assert_cmpint(waitpid(child, &status, 0), ==, child);
    g_assert_true(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 0);
}

/* Arguments may be empty or hold anything; they are told apart by their ends alone. */
static void test_cmdline_and_exe(void)
{
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl("/bin/sh", "a name", "-c", "kill -STOP $$; :", "", "x\ny", NULL);
        _exit(1);
    }
    g_auto(GStrv) argv = NULL;
    for (guint i = 0; i < 1000 && (!argv || !argv[0] || strcmp(argv[0], "a name")); i++) {
        g_strfreev(argv);
        g_usleep(5000);
        argv = proc_read_cmdline(child, NULL);
    }
    g_autofree char *exe = proc_read_exe_name(child);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    const char *expected[] = { "a name", "-c", "kill -STOP $$; :", "", "x\ny", NULL };
    g_assert_true(g_strv_equal((const char *const *)argv, expected));
    g_assert_cmpstr(exe, !=, "a name");
    g_assert_nonnull(exe);
}

static void test_own_uid_and_pids(void)
{
    uid_t uid = (uid_t)-1;
    g_autoptr(GError) error = NULL;
    g_assert_true(proc_read_uid(getpid(), &uid, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(uid, ==, geteuid());

    gboolean seen = FALSE;
    pid_t last = 0;
    g_autoptr(GArray) pids = proc_list_pids();
    for (guint i = 0; i < pids->len; i++) {
        pid_t pid = g_array_index(pids, pid_t, i);
        g_assert_cmpint(pid, >, last);
        last = pid;
        seen = seen || pid == getpid();
    }
    g_assert_true(seen);
}

static void test_socket_owner(void)
{
    int ends[2];
    struct stat st;
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), ==, 0);
    g_assert_cmpint(fstat(ends[0], &st), ==, 0);
    g_assert_cmpint(proc_find_socket_owner(st.st_ino), ==, getpid());
    close(ends[0]);
    close(ends[1]);
    g_assert_cmpint(proc_find_socket_owner(st.st_ino), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/proc/maps/parse", test_maps_parse);
    g_test_add_func("/proc/maps/broken", test_maps_broken);
    g_test_add_func("/proc/maps/own", test_own_maps);
    g_test_add_func("/proc/no-process", test_no_process);
    g_test_add_func("/proc/permission", test_permission);
    g_test_add_func("/proc/cmdline-and-exe", test_cmdline_and_exe);
    g_test_add_func("/proc/own-uid-and-pids", test_own_uid_and_pids);
    g_test_add_func("/proc/socket-owner", test_socket_owner);
    return g_test_run();
}
