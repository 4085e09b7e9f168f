/*
 * A real QEMU for a unit test: started paused with no guest code, in a folder of its own, and gone
 * at the end of the test. For tests only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <gio/gio.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>

#include "monitor/qmp.h"

typedef struct RealQemu {
    GSubprocess *process;
    pid_t pid;
    char *folder;
    char *socket; /* folder/qmp.sock: where tests let -qmp listen */
} RealQemu;

#define REAL_QEMU_PROGRAM "qemu-system-x86_64"

/* FALSE and a skipped test where no QEMU is installed. */
static inline gboolean real_qemu_available(void)
{
    g_autofree char *path = g_find_program_in_path(REAL_QEMU_PROGRAM);
    if (!path) {
        g_test_skip("no " REAL_QEMU_PROGRAM " is installed");
    }
    return path != NULL;
}

/* Makes the folder only, for tests that run the program in their own way. */
static inline void real_qemu_init(RealQemu *qemu)
{
    *qemu = (RealQemu){ 0 };
    g_autoptr(GError) error = NULL;
    qemu->folder = g_dir_make_tmp("stillframe-XXXXXX", &error);
    g_assert_no_error(error);
    qemu->socket = g_build_filename(qemu->folder, "qmp.sock", NULL);
}

static inline void real_qemu_wait_for(const char *path)
{
    for (guint i = 0; i < 2000 && !g_file_test(path, G_FILE_TEST_EXISTS); i++) {
        g_usleep(5000);
    }
    g_assert_true(g_file_test(path, G_FILE_TEST_EXISTS));
}

/* The file is there a moment before QEMU calls listen(). */
static inline void real_qemu_wait_until_it_listens(RealQemu *qemu)
{
    for (guint i = 0; i < 2000; i++) {
        g_autoptr(QmpClient) client = qmp_client_open(qemu->socket, 10000, NULL);
        if (client) {
            return;
        }
        g_usleep(5000);
    }
    g_error("QEMU does not listen at %s", qemu->socket);
}

/* No QEMU outlives a test program that an assertion ends. */
static inline void real_qemu_die_with_test(gpointer user)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/* Starts it with more arguments (NULL-terminated); "%s" in one is replaced by the folder. */
static inline void real_qemu_start(RealQemu *qemu, const char *const *arguments)
{
    static const char *const always[] = {
        REAL_QEMU_PROGRAM, "-S", "-nodefaults", "-display", "none", "-accel", "tcg", NULL
    };
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    for (guint i = 0; always[i]; i++) {
        g_ptr_array_add(argv, g_strdup(always[i]));
    }
    for (guint i = 0; arguments[i]; i++) {
        g_auto(GStrv) parts = g_strsplit(arguments[i], "%s", -1);
        g_ptr_array_add(argv, g_strjoinv(qemu->folder, parts));
    }
    g_ptr_array_add(argv, NULL);

    g_autoptr(GError) error = NULL;
    g_autoptr(GSubprocessLauncher) launcher = g_subprocess_launcher_new(G_SUBPROCESS_FLAGS_NONE);
    g_subprocess_launcher_set_child_setup(launcher, real_qemu_die_with_test, NULL, NULL);
    g_subprocess_launcher_set_cwd(launcher, qemu->folder);
    qemu->process =
        g_subprocess_launcher_spawnv(launcher, (const char *const *)argv->pdata, &error);
    g_assert_no_error(error);
    qemu->pid = (pid_t)g_ascii_strtoll(g_subprocess_get_identifier(qemu->process), NULL, 10);
}

/* Ends QEMU and removes the folder with what is in it. */
static inline void real_qemu_clear(RealQemu *qemu)
{
    if (qemu->process) {
        g_subprocess_force_exit(qemu->process);
        g_subprocess_wait(qemu->process, NULL, NULL);
        g_clear_object(&qemu->process);
    }
    GDir *folder = g_dir_open(qemu->folder, 0, NULL);
    for (const char *name; folder && (name = g_dir_read_name(folder));) {
        g_autofree char *path = g_build_filename(qemu->folder, name, NULL);
        g_unlink(path);
    }
    g_clear_pointer(&folder, g_dir_close);
    g_assert_cmpint(g_rmdir(qemu->folder), ==, 0);
    g_clear_pointer(&qemu->folder, g_free);
    g_clear_pointer(&qemu->socket, g_free);
}

/* The usual case: a small machine with a QMP socket. Extra arguments end with NULL. */
static inline void real_qemu_run(RealQemu *qemu, const char *const *extra)
{
    real_qemu_init(qemu);
    g_autoptr(GPtrArray) arguments = g_ptr_array_new();
    g_ptr_array_add(arguments, (char *)"-qmp");
    g_ptr_array_add(arguments, (char *)"unix:%s/qmp.sock,server=on,wait=off");
    for (; extra && *extra; extra++) {
        g_ptr_array_add(arguments, (char *)*extra);
    }
    g_ptr_array_add(arguments, NULL);
    real_qemu_start(qemu, (const char *const *)arguments->pdata);
    real_qemu_wait_until_it_listens(qemu);
}

static inline QmpClient *real_qemu_connect(RealQemu *qemu)
{
    g_autoptr(GError) error = NULL;
    QmpClient *client = qmp_client_open(qemu->socket, QMP_GREETING_TIMEOUT_MS, &error);
    g_assert_no_error(error);
    return client;
}
