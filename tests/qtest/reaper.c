/*
 * The reaper: a small process beside a test that cleans up when the test ends, however it ends.
 * It waits for the end of a pipe whose other end only the test process holds.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "util/autofd.h"
#include "vm.h"

struct TestReaper {
    pid_t pid;
    int fd;
};

static void close_all_but(int keep)
{
    if (keep > 0) {
        close_range(0, (unsigned int)keep - 1, 0);
    }
    close_range((unsigned int)keep + 1, UINT_MAX, 0);
}

static void G_GNUC_NORETURN reaper_main(int fd, void (*clean)(gpointer), gpointer data)
{
    char byte;
    ssize_t got;

    /* Its own session: meson ends a test that takes too long by signals to the process group. */
    setsid();
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    close_all_but(fd);
    do {
        got = read(fd, &byte, 1);
    } while (got < 0 && errno == EINTR);
    clean(data);
    _exit(0);
}

TestReaper *test_reaper_start(void (*clean)(gpointer data), gpointer data)
{
    TestReaper *reaper = g_new0(TestReaper, 1);
    int ends[2];

    g_assert_no_errno(pipe2(ends, O_CLOEXEC));
    reaper->pid = fork();
    g_assert_no_errno(reaper->pid);
    if (reaper->pid == 0) {
        close(ends[1]);
        reaper_main(ends[0], clean, data);
    }
    close(ends[0]);
    reaper->fd = ends[1];
    return reaper;
}

void test_reaper_finish(TestReaper *reaper)
{
    int status;

    if (!reaper) {
        return;
    }
    close(reaper->fd);
    while (waitpid(reaper->pid, &status, 0) < 0 && errno == EINTR) {
    }
    g_free(reaper);
}

/* Whether process @pid is a QEMU or a stillframe that has @text in its arguments. */
static gboolean process_names(const char *pid, const char *text)
{
    g_autofree char *exe_link = g_strdup_printf("/proc/%s/exe", pid);
    g_autofree char *cmdline_path = g_strdup_printf("/proc/%s/cmdline", pid);
    g_autofree char *exe = g_file_read_link(exe_link, NULL);
    g_autofree char *name = exe ? g_path_get_basename(exe) : NULL;
    g_autofree char *cmdline = NULL;
    gsize length = 0;

    return name && (g_str_has_prefix(name, "qemu-") || g_str_has_prefix(name, "stillframe")) &&
           g_file_get_contents(cmdline_path, &cmdline, &length, NULL) &&
           memmem(cmdline, length, text, strlen(text));
}

static gboolean end_processes_of(const char *path)
{
    g_autoptr(GDir) proc = g_dir_open("/proc", 0, NULL);
    gboolean found = FALSE;
    const char *name;

    while (proc && (name = g_dir_read_name(proc))) {
        pid_t pid = (pid_t)g_ascii_strtoll(name, NULL, 10);

        if (pid > 1 && pid != getpid() && process_names(name, path)) {
            kill(pid, SIGKILL);
            found = TRUE;
        }
    }
    return found;
}

static void remove_tree(const char *path)
{
    g_autoptr(GDir) dir = NULL;
    const char *name;

    if (!g_file_test(path, G_FILE_TEST_IS_SYMLINK) && (dir = g_dir_open(path, 0, NULL))) {
        while ((name = g_dir_read_name(dir))) {
            g_autofree char *child = g_build_filename(path, name, NULL);

            remove_tree(child);
        }
    }
    g_remove(path);
}

static void clean_dir(gpointer data)
{
    const char *path = data;

    /* The names in mkdtemp's directory are unique: nobody else's process has it as an argument. */
    for (int i = 0; i < 100 && end_processes_of(path); i++) {
        g_usleep(20000);
    }
    remove_tree(path);
}

TestDir *test_dir_new(void)
{
    g_autoptr(GError) err = NULL;
    TestDir *dir = g_new0(TestDir, 1);

    dir->path = g_dir_make_tmp("stillframe-test-XXXXXX", &err);
    g_assert_no_error(err);
    dir->reaper = test_reaper_start(clean_dir, dir->path);
    return dir;
}

void test_dir_free(TestDir *dir)
{
    if (dir) {
        test_reaper_finish(dir->reaper);
        g_free(dir->path);
        g_free(dir);
    }
}

char *test_dir_file(TestDir *dir, const char *name)
{
    return g_build_filename(dir->path, name, NULL);
}

#define HUGEPAGES_TOTAL "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
#define HUGEPAGES_FREE "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"

static gboolean read_number(const char *path, guint64 *number)
{
    g_autofree char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return FALSE;
    }
    *number = g_ascii_strtoull(text, NULL, 10);
    return TRUE;
}

static gboolean write_number(const char *path, guint64 number)
{
    g_autofree char *text = g_strdup_printf("%" G_GUINT64_FORMAT "\n", number);
    sf_autofd fd = open(path, O_WRONLY | O_CLOEXEC);

    return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

static void restore_hugepages(gpointer data)
{
    write_number(HUGEPAGES_TOTAL, *(guint64 *)data);
}

gboolean test_hugepages_reserve(guint mib, TestReaper **reaper)
{
    guint64 total, available, wanted = mib / 2;

    *reaper = NULL;
    if (!read_number(HUGEPAGES_TOTAL, &total) || !read_number(HUGEPAGES_FREE, &available)) {
        g_test_skip("the kernel has no 2 MiB hugetlb pages");
        return FALSE;
    }
    if (available >= wanted) {
        return TRUE;
    }
    *reaper = test_reaper_start(restore_hugepages, &total);
    if (!write_number(HUGEPAGES_TOTAL, total + wanted - available) ||
        !read_number(HUGEPAGES_FREE, &available) || available < wanted) {
        g_test_skip("cannot raise vm.nr_hugepages: not root, or memory is too fragmented");
        test_reaper_finish(g_steal_pointer(reaper));
        return FALSE;
    }
    return TRUE;
}
