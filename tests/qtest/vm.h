/*
 * The harness of the tests that run a real QEMU. Everything asserts: a function returns only when
 * it did what it says, unless its name ends in _try. Whatever way a test program ends (assertion,
 * time-out, SIGKILL), its VMs are ended and its directories removed by a reaper process.
 *
 * Environment, set by meson: STILLFRAME_BIN the program under test, STILLFRAME_GUEST the bare-metal
 * guest. By the user: STILLFRAME_QEMU (default qemu-system-x86_64), STILLFRAME_REPEAT.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>
#include <json-glib/json-glib.h>
#include <sys/types.h>

#include "monitor/qmp.h"
#include "tests/faults.h"

/* ---- Things to be put back whatever happens ---- */

typedef struct TestReaper TestReaper;

/*
 * Forks a process that calls @clean(@data) when test_reaper_finish() is called or this process is
 * gone. @data is the reaper's own copy, as it is now.
 */
TestReaper *test_reaper_start(void (*clean)(gpointer data), gpointer data);
/* Lets it clean, and returns when that is done. NULL is allowed. */
void test_reaper_finish(TestReaper *reaper);

/* A new private directory, removed by test_dir_free() or by its reaper, after the end of every
 * QEMU and stillframe whose arguments name it. */
typedef struct TestDir {
    char *path;
    TestReaper *reaper;
} TestDir;

TestDir *test_dir_new(void);
void test_dir_free(TestDir *dir);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(TestDir, test_dir_free)
/* The path of @name in it; the caller frees. */
char *test_dir_file(TestDir *dir, const char *name);

/*
 * Raises vm.nr_hugepages so that @mib MiB of 2 MiB pages are free. FALSE (after g_test_skip())
 * where they cannot be had. *reaper puts the old number back: finish it after the VM has ended.
 */
gboolean test_hugepages_reserve(guint mib, TestReaper **reaper);

/* ---- A virtual machine ---- */

typedef struct TestVm TestVm;

typedef enum {
    TEST_VM_DEFAULT = 0,
    /* Keep QEMU's default devices (no -nodefaults). */
    TEST_VM_KEEP_DEVICES = 1 << 0,
    /* The harness adds no QMP monitor at all: test_vm_qmp() and test_vm_socket() do not work. */
    TEST_VM_NO_MONITOR = 1 << 1,
    /* No accelerator is chosen: the arguments do it. Otherwise -accel tcg. */
    TEST_VM_NO_ACCEL = 1 << 2,
} TestVmFlags;

/*
 * Prepares a VM with QEMU's arguments @args (NULL-terminated), but does not start it. The harness
 * adds -display none, -nodefaults, -accel tcg, serial port 0 to a file, a pid file and two QMP
 * monitors: one for itself, one that stays free for the program under test.
 */
TestVm *test_vm_new(TestVmFlags flags, const char *const *args);
/* Starts it, and connects to its monitor. */
void test_vm_launch(TestVm *vm);
/* Both at once; the arguments follow, NULL at the end. */
TestVm *test_vm_start(TestVmFlags flags, ...) G_GNUC_NULL_TERMINATED;
/* Starts it with -incoming @uri and waits until the stream is loaded. */
void test_vm_launch_incoming(TestVm *vm, const char *uri);
/* Starts it with -incoming defer: the test says by QMP what is to be loaded. */
void test_vm_launch_incoming_defer(TestVm *vm);
/* Takes over a VM that somebody else started with test_vm_get_argv() (stillframe restore). */
void test_vm_adopt(TestVm *vm);
/* Ends it with SIGKILL, waits for it, removes its directory. NULL is allowed. */
void test_vm_free(TestVm *vm);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(TestVm, test_vm_free)
/* SIGKILL, and waits until it is gone. Its files stay. */
void test_vm_kill(TestVm *vm);

pid_t test_vm_get_pid(TestVm *vm);
/* The whole command line, owned by @vm. */
char **test_vm_get_argv(TestVm *vm);
/* Path of the monitor socket that is free for the program under test. */
const char *test_vm_get_socket(TestVm *vm);
/* Its directory, removed with it. */
TestDir *test_vm_get_dir(TestVm *vm);
/* The harness's own monitor connection. */
QmpClient *test_vm_get_qmp(TestVm *vm);
/* What QEMU wrote to standard error so far; the caller frees. */
char *test_vm_read_stderr(TestVm *vm);
/* Whether the process still runs. */
gboolean test_vm_is_alive(TestVm *vm);

/*
 * Runs a QMP command; @arguments is printf-formatted JSON in which ' stands for ", or NULL. The
 * caller owns the answer.
 */
JsonNode *test_vm_qmp(TestVm *vm, const char *command, const char *arguments, ...)
    G_GNUC_PRINTF(3, 4);
/* The same, throwing the answer away. */
void test_vm_qmp_void(TestVm *vm, const char *command, const char *arguments, ...)
    G_GNUC_PRINTF(3, 4);
/* An HMP line; the caller frees. */
char *test_vm_hmp(TestVm *vm, const char *line);
/* query-status; the caller frees. */
char *test_vm_query_status(TestVm *vm);
/* Asserts that query-status says @state, now or within a few seconds. */
void test_vm_assert_status(TestVm *vm, const char *state);

/*
 * Asserts that QEMU has @expected descriptors open, now or within a few seconds: it notices a
 * monitor client's end in its main loop.
 */
void test_vm_assert_descriptors(TestVm *vm, guint expected);

/* What the guest wrote to its serial port so far; the caller frees. */
char *test_vm_read_serial(TestVm *vm);
/* Waits until the serial output, from byte @from on, holds @text; FALSE after @timeout_ms. */
gboolean test_vm_serial_wait_try(TestVm *vm, gsize from, const char *text, guint timeout_ms);
/* The same, asserting. */
void test_vm_serial_wait(TestVm *vm, const char *text, guint timeout_ms);

/* Reads guest-physical memory from outside, without the guest or QEMU noticing. */
void test_vm_read_memory(TestVm *vm, guint64 address, gpointer buffer, gsize length);

/* ---- The program under test ---- */

typedef struct TestTool TestTool;

/* Starts stillframe with @args (NULL-terminated, without the program's name). */
TestTool *test_tool_start(const char *const *args);
/* The same with STILLFRAME_FAULTS=@faults (NULL for none). Ask test_need_faults() first. */
TestTool *test_tool_start_faulty(const char *faults, const char *const *args);
/* The same with a whole command line, for a shell or another program around stillframe. */
TestTool *test_tool_start_command(const char *const *argv);
pid_t test_tool_get_pid(TestTool *tool);
/*
 * Waits for its end; returns the exit status, or 128 + signal. *out and *err (may be NULL) get its
 * standard output and error; the caller frees. Frees @tool. Ends it after @timeout_ms, failing.
 */
int test_tool_finish(TestTool *tool, guint timeout_ms, char **out, char **err);
/* Both at once, with a time-out of a minute; the arguments follow, NULL at the end. */
int test_tool_run(char **out, char **err, ...) G_GNUC_NULL_TERMINATED;
/* The same with an array. */
int test_tool_runv(char **out, char **err, const char *const *args);

/* ---- Deciding what can run here ---- */

/* TAP: the whole program is skipped, with the reason. Call it before g_test_run(). */
void test_skip_all(const char *reason) G_GNUC_NORETURN;
/*
 * With "other" as the program's only argument of its own, all VMs are of STILLFRAME_OTHER_QEMU
 * (scripts/other-qemu) instead; skips the whole program where that is not there. After
 * g_test_init().
 */
void test_take_qemu_argument(int argc, char **argv);

/* Whether /dev/kvm opens and makes a VM; the reason, owned by the caller, where not. */
gboolean test_have_kvm(char **reason);
/* The number of times a test of chance repeats: STILLFRAME_REPEAT, else @otherwise. */
guint test_repeat(guint otherwise);
/* Path of the bare-metal guest. */
const char *test_guest_path(void);
