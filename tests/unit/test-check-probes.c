/*
 * The machinery of "stillframe check": a probe that crashes, hangs or says nothing is an answer,
 * and the trap really holds a writer up.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "attach/userfaultfd.h"
#include "check/check-row.h"
#include "check/trap.h"
#include "tests/faults.h"

static void row_clear(CheckRow *row)
{
    g_free(row->note);
    g_free(row->remedy);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(CheckRow, row_clear)

/* ---- The process of a probe ---- */

static void probe_answers(CheckRow *row, guint64 features, int argument)
{
    check_row_answer(row, CHECK_YES, "a remedy", "%d of %d", argument, (int)features);
}

static void probe_crashes(CheckRow *row, guint64 features, int argument)
{
    raise(SIGKILL); /* a sanitizer takes others for itself */
}

static void probe_leaves(CheckRow *row, guint64 features, int argument)
{
    _exit(0);
}

static void probe_hangs(CheckRow *row, guint64 features, int argument)
{
    for (;;) {
        pause();
    }
}

static void run(CheckRow *row, CheckProbe probe)
{
    check_row_answer(row, CHECK_UNTRIED, NULL, "%s", "");
    check_process_run(row, probe, 7, 3);
}

static void assert_no(CheckProbe probe, const char *note)
{
    g_auto(CheckRow) row = { 0 };

    run(&row, probe);
    g_assert_cmpint(row.result, ==, CHECK_NO);
    g_assert_nonnull(strstr(row.note, note));
    /* No child is left. */
    g_assert_cmpint(waitpid(-1, NULL, WNOHANG), ==, -1);
}

static void test_answer_comes_over(void)
{
    g_auto(CheckRow) row = { 0 };

    run(&row, probe_answers);
    g_assert_cmpint(row.result, ==, CHECK_YES);
    g_assert_cmpstr(row.note, ==, "3 of 7");
    g_assert_cmpstr(row.remedy, ==, "a remedy");
}

static void test_crash_is_told(void)
{
    assert_no(probe_crashes, "ended by signal 9");
    assert_no(probe_leaves, "without an answer");
}

static void test_hang_is_told(void)
{
    if (!test_need_faults()) {
        return;
    }
    if (!g_test_subprocess()) {
        g_setenv("STILLFRAME_FAULTS", "check-timeout-ms=100", TRUE);
        g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_INHERIT_STDERR);
        g_unsetenv("STILLFRAME_FAULTS");
        g_test_trap_assert_passed();
        return;
    }
    assert_no(probe_hangs, "it hangs: no answer within 0.1 s");
}

/* ---- The trap ---- */

static Trap *set_trap(CheckMemory *memory, CheckMemoryKind kind)
{
    g_autoptr(GError) error = NULL;
    guint64 features;

    g_assert_true(userfaultfd_query_features(&features, &error));
    if (!check_memory_map(memory, kind, &error) || !check_memory_populate(memory, &error)) {
        g_test_skip(error->message);
        return NULL;
    }
    Trap *trap = trap_new(memory, features, 0, &error);
    g_assert_no_error(error);
    return trap;
}

static void test_writer_waits(gconstpointer data)
{
    const guint hold_us = 20000;
    g_auto(CheckMemory) memory = { 0 };
    g_autoptr(Trap) trap = set_trap(&memory, (CheckMemoryKind)GPOINTER_TO_INT(data));

    if (!trap) {
        return;
    }
    trap_set_service(trap, 5, hold_us);
    g_assert_true(trap_arm(trap, NULL));
    gint64 before = g_get_monotonic_time();
    *check_memory_word(&memory, 1) = 99;
    g_assert_cmpint(g_get_monotonic_time() - before, >=, hold_us);
    g_assert_cmpuint(trap_get_releases(trap), ==, 1);
    g_assert_cmpuint(trap_get_retries(trap), ==, 5);
    g_assert_cmpstr(trap_get_problem(trap), ==, NULL);
    /* Released is released. */
    *check_memory_word(&memory, 1) = 100;
    g_assert_cmpuint(trap_get_releases(trap), ==, 1);
}

static void test_unprotected_write_is_not_counted(void)
{
    g_auto(CheckMemory) memory = { 0 };
    g_autoptr(Trap) trap = set_trap(&memory, CHECK_MEMORY_ANONYMOUS);

    *check_memory_word(&memory, 0) = 99;
    g_assert_cmpuint(trap_get_releases(trap), ==, 0);
}

static void test_hole_is_trapped(gconstpointer data)
{
    g_auto(CheckMemory) memory = { 0 };
    g_autoptr(Trap) trap = set_trap(&memory, (CheckMemoryKind)GPOINTER_TO_INT(data));

    if (!trap) {
        return;
    }
    g_assert_true(check_memory_punch(&memory, NULL));
    g_assert_true(trap_arm(trap, NULL));
    *check_memory_word(&memory, 0) = 99;
    g_assert_cmpuint(trap_get_releases(trap), ==, 1);
    g_assert_cmpuint(*check_memory_word(&memory, 1), ==, 0);
    g_assert_cmpstr(trap_get_problem(trap), ==, NULL);
}

/* A descriptor that may not exist is asked for: the mask decides, not the kernel. */
static void test_missing_feature_is_refused(void)
{
    g_auto(CheckMemory) memory = { 0 };
    g_autoptr(GError) error = NULL;

    g_assert_true(check_memory_map(&memory, CHECK_MEMORY_ANONYMOUS, NULL));
    g_assert_null(trap_new(&memory, 0, 0, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_UNSUPPORTED);
    g_assert_nonnull(strstr(error->message, "5.7"));
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        CheckMemoryKind kind;
    } kinds[] = {
        { "anonymous", CHECK_MEMORY_ANONYMOUS },
        { "thp", CHECK_MEMORY_THP },
        { "memfd-shared", CHECK_MEMORY_MEMFD_SHARED },
        { "memfd-private", CHECK_MEMORY_MEMFD_PRIVATE },
    };

    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/check-probes/answer-comes-over", test_answer_comes_over);
    g_test_add_func("/check-probes/crash-is-told", test_crash_is_told);
    g_test_add_func("/check-probes/hang-is-told", test_hang_is_told);
    for (guint i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autofree char *waits = g_strdup_printf("/check-probes/writer-waits/%s", kinds[i].name);
        g_autofree char *hole = g_strdup_printf("/check-probes/hole-is-trapped/%s", kinds[i].name);
        g_test_add_data_func(waits, GINT_TO_POINTER(kinds[i].kind), test_writer_waits);
        g_test_add_data_func(hole, GINT_TO_POINTER(kinds[i].kind), test_hole_is_trapped);
    }
    g_test_add_func("/check-probes/unprotected-write-is-not-counted",
                    test_unprotected_write_is_not_counted);
    g_test_add_func("/check-probes/missing-feature-is-refused", test_missing_feature_is_refused);
    return g_test_run();
}
