/*
 * Whether this process's own writes to a kind of memory are trapped: every page is protected and
 * written, round after round, and each write must wait for its release.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "probes.h"

#include "trap.h"

#define ROUNDS 4
#define HOLD_US 500

#define HUGE_REMEDY                                                                                \
    "only VMs on hugetlbfs need it; to try it, free two pages of 2 MiB (sysctl vm.nr_hugepages=2)"

static gboolean write_rounds(CheckMemory *memory, Trap *trap, GError **errp)
{
    const guint count = check_memory_count(memory);

    for (guint round = 0; round < ROUNDS; round++) {
        trap_set_service(trap, round == 1 ? 2 : 0, round == 0 ? HOLD_US : 0);
        if (!trap_arm(trap, errp)) {
            return FALSE;
        }
        for (guint i = 0; i < count; i++) {
            *check_memory_word(memory, i) = round + 2 + i;
        }
    }
    guint64 releases = trap_get_releases(trap);
    if (trap_get_problem(trap) || releases < (guint64)ROUNDS * count) {
        const char *problem = trap_get_problem(trap);
        g_set_error(errp, SF_ERROR, SF_ERROR_FAILED, "%s",
                    problem ? problem : "a write to a protected page was not noticed");
        return FALSE;
    }
    return TRUE;
}

static void answer_failure(CheckRow *row, int kind, CheckResult result, const GError *error)
{
    const char *remedy = NULL;

    if (kind == CHECK_MEMORY_HUGETLB && result == CHECK_UNTRIED) {
        remedy = HUGE_REMEDY;
    } else if (g_error_matches(error, SF_ERROR, SF_ERROR_FAILED)) {
        remedy = BUG_REMEDY;
    }
    check_row_answer(row, result, remedy, "%s", error->message);
}

void probe_memory(CheckRow *row, guint64 features, int kind)
{
    g_auto(CheckMemory) memory = { 0 };
    g_autoptr(GError) error = NULL;

    if (!check_memory_map(&memory, (CheckMemoryKind)kind, &error) ||
        !check_memory_populate(&memory, &error)) {
        answer_failure(row, kind, CHECK_UNTRIED, error);
        return;
    }
    g_autoptr(Trap) trap = trap_new(&memory, features, 0, &error);
    if (!trap || !write_rounds(&memory, trap, &error)) {
        answer_failure(row, kind, CHECK_NO, error);
        return;
    }
    check_row_answer(row, CHECK_YES, NULL, "%u writes trapped",
                     ROUNDS * check_memory_count(&memory));
}
