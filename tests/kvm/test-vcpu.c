/*
 * The failure of 2016, for good: a vCPU's write to a page that is protected through userfaultfd
 * must wait and complete, however often the fault is tried again and while pages are protected anew
 * all the time. KVM_RUN must never return EFAULT ("kvm run failed Bad address"). No QEMU is needed:
 * the vCPU is the one that "stillframe check" runs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>

#include "attach/userfaultfd.h"
#include "check/trap.h"
#include "check/vcpu.h"
#include "tests/qtest/vm.h"

#define RELEASES 10000
#define RETRIES_OF_ONE 300

/* One VM with its memory, and the trap around that. */
typedef struct Rig {
    CheckMemory memory;
    Vcpu *vcpu;
    Trap *trap;
    gint stop;
    guint64 armed;
} Rig;

static void rig_clear(Rig *rig)
{
    g_clear_pointer(&rig->trap, trap_free);
    g_clear_pointer(&rig->vcpu, vcpu_free);
    check_memory_clear(&rig->memory);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Rig, rig_clear)

static void assert_writes(Rig *rig, guint32 value)
{
    g_autoptr(GError) error = NULL;
    VcpuResult result = vcpu_write_all(rig->vcpu, value, &error);

    g_assert_no_error(error);
    g_assert_cmpint(result, ==, VCPU_DONE);
    for (guint i = 0; i < check_memory_count(&rig->memory); i++) {
        g_assert_cmpuint(*check_memory_word(&rig->memory, i), ==, value + i);
    }
}

/* FALSE after g_test_skip() where this host has no such memory. */
static gboolean rig_up(Rig *rig, CheckMemoryKind kind, TrapFlags flags)
{
    g_autoptr(GError) error = NULL;
    guint64 features;

    g_assert_true(userfaultfd_query_features(&features, &error));
    if (!check_memory_map(&rig->memory, kind, &error) ||
        !check_memory_populate(&rig->memory, &error)) {
        g_test_skip(error->message);
        return FALSE;
    }
    rig->vcpu = vcpu_new(&rig->memory, &error);
    g_assert_no_error(error);
    assert_writes(rig, 1);
    rig->trap = trap_new(&rig->memory, features, flags, &error);
    if (g_error_matches(error, SF_ERROR, SF_ERROR_PERMISSION)) {
        g_test_skip(error->message);
        return FALSE;
    }
    g_assert_no_error(error);
    return TRUE;
}

/* Protects everything again and again, at moments that the vCPU does not choose. */
static gpointer arm_all_the_time(gpointer data)
{
    Rig *rig = data;

    while (!g_atomic_int_get(&rig->stop)) {
        g_autoptr(GError) error = NULL;
        trap_arm(rig->trap, &error);
        g_assert_no_error(error);
        rig->armed++;
        g_usleep((gulong)g_random_int_range(0, 200));
    }
    return NULL;
}

static void run_rearmed(CheckMemoryKind kind, guint retries)
{
    g_auto(Rig) rig = { 0 };
    guint32 rounds = 0;

    if (!rig_up(&rig, kind, TRAP_FOR_KERNEL)) {
        return;
    }
    trap_set_service(rig.trap, retries, 0);
    GThread *armer = g_thread_new("armer", arm_all_the_time, &rig);
    while (trap_get_releases(rig.trap) < RELEASES) {
        assert_writes(&rig, 1000 + rounds++);
    }
    g_atomic_int_set(&rig.stop, 1);
    g_thread_join(armer);
    g_assert_cmpstr(trap_get_problem(rig.trap), ==, NULL);
    g_test_message("%u rounds of %u writes, %" G_GUINT64_FORMAT " trapped, %" G_GUINT64_FORMAT
                   " tried again, armed %" G_GUINT64_FORMAT " times meanwhile",
                   rounds, check_memory_count(&rig.memory), trap_get_releases(rig.trap),
                   trap_get_retries(rig.trap), rig.armed);
    g_assert_cmpuint(rig.armed, >, 1);
    g_assert_cmpuint(trap_get_retries(rig.trap), >=, retries ? RELEASES : 0);
}

static void test_rearmed(gconstpointer data)
{
    run_rearmed((CheckMemoryKind)GPOINTER_TO_INT(data), 0);
}

static void test_rearmed_and_retried(gconstpointer data)
{
    run_rearmed((CheckMemoryKind)GPOINTER_TO_INT(data), 2);
}

static void test_huge_pages(void)
{
    TestReaper *reaper = NULL;

    if (test_hugepages_reserve(8, &reaper)) {
        run_rearmed(CHECK_MEMORY_HUGETLB, 1);
    }
    test_reaper_finish(reaper);
}

/* The second try was fatal once; here is the three hundredth. */
static void test_one_fault_many_times(gconstpointer data)
{
    g_auto(Rig) rig = { 0 };

    if (!rig_up(&rig, (CheckMemoryKind)GPOINTER_TO_INT(data), TRAP_FOR_KERNEL)) {
        return;
    }
    trap_set_service(rig.trap, RETRIES_OF_ONE, 0);
    g_assert_true(trap_arm(rig.trap, NULL));
    assert_writes(&rig, 7);
    g_assert_cmpstr(trap_get_problem(rig.trap), ==, NULL);
    g_assert_cmpuint(trap_get_retries(rig.trap), >=, RETRIES_OF_ONE);
}

/* A kernel that refuses the fault for real: the guest's write fails, and it is seen that it does.
 */
static void test_refused_fault_is_recognised(gconstpointer data)
{
    g_auto(Rig) rig = { 0 };
    g_autoptr(GError) error = NULL;

    if (!rig_up(&rig, (CheckMemoryKind)GPOINTER_TO_INT(data), TRAP_REFUSES_KERNEL)) {
        return;
    }
    g_assert_true(trap_arm(rig.trap, NULL));
    VcpuResult result = vcpu_write_all(rig.vcpu, 7, &error);
    g_assert_true(result == VCPU_EFAULT || result == VCPU_MMIO);
    g_assert_nonnull(strstr(error->message, "Bad address"));
    g_assert_cmpuint(*check_memory_word(&rig.memory, 0), ==, 1);
    g_assert_cmpuint(trap_get_releases(rig.trap), ==, 0);
}

/* ---- What "stillframe check" makes of it ---- */

static char *run_check(const char *faults, int expected)
{
    char *out = NULL;
    TestTool *tool =
        test_tool_start_faulty(faults, (const char *const[]){ "check", "--json", NULL });

    g_assert_cmpint(test_tool_finish(tool, 60000, &out, NULL), ==, expected);
    return out;
}

/* How often the 2016 failure is told, and that it is told with its remedy. */
static void assert_verdict(const char *faults, const char *note)
{
    g_autofree char *out = run_check(faults, 1);

    g_assert_nonnull(strstr(out, note));
    g_assert_nonnull(strstr(out, "do not snapshot KVM guests here"));
    g_assert_nonnull(strstr(out, "\"kvm\" : false"));
    g_assert_nonnull(strstr(out, "\"tcg\" : true"));
}

static void test_check_tells_efault(void)
{
    if (test_need_faults()) {
        assert_verdict("kvm-efault=2", "KVM_RUN returns EFAULT");
    }
}

static void test_check_tells_refusal(void)
{
    if (test_need_faults()) {
        assert_verdict("kvm-refuses-faults", "EFAULT");
    }
}

static void test_check_says_yes(void)
{
    if (geteuid() != 0) {
        g_test_skip("the kernel's faults are shown to root");
        return;
    }
    g_autofree char *out = run_check(NULL, 0);
    g_assert_nonnull(strstr(out, "\"kvm\" : true"));
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
    static const struct {
        const char *name;
        GTestDataFunc run;
    } promises[] = {
        { "rearmed", test_rearmed },
        { "rearmed-and-retried", test_rearmed_and_retried },
        { "one-fault-many-times", test_one_fault_many_times },
        { "refused-fault-is-recognised", test_refused_fault_is_recognised },
    };
    g_autofree char *reason = NULL;

    g_test_init(&argc, &argv, NULL);
    if (!test_have_kvm(&reason)) {
        test_skip_all(reason);
    }
    for (guint i = 0; i < G_N_ELEMENTS(promises); i++) {
        for (guint k = 0; k < G_N_ELEMENTS(kinds); k++) {
            g_autofree char *path = g_strdup_printf("/vcpu/%s/%s", promises[i].name, kinds[k].name);
            g_test_add_data_func(path, GINT_TO_POINTER(kinds[k].kind), promises[i].run);
        }
    }
    g_test_add_func("/vcpu/rearmed-and-retried/hugetlb", test_huge_pages);
    g_test_add_func("/vcpu/check-says-yes", test_check_says_yes);
    g_test_add_func("/vcpu/check-tells-efault", test_check_tells_efault);
    g_test_add_func("/vcpu/check-tells-refusal", test_check_tells_refusal);
    return g_test_run();
}
