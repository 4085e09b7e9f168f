/*
 * Whether a real vCPU's writes to protected memory are trapped and the vCPU survives them. The
 * first snapshots by userfaultfd, in 2016, failed here: the second try of a fault was refused, and
 * KVM_RUN returned EFAULT ("kvm run failed Bad address"). Kernels since 5.7 try again as often as
 * it takes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "probes.h"
#include "trap.h"
#include "util/fault-injection.h"
#include "vcpu.h"

#define ROUNDS 6
#define HOLD_US 500
/* Faults of this round are tried again that often before they are released. */
#define RETRY_ROUND 1
#define RETRIES 3

#define EFAULT_NOTE "KVM_RUN returns EFAULT: a guest would die of \"kvm run failed Bad address\""
#define MMIO_NOTE "KVM gives the write up as a device's; other kinds of KVM return EFAULT"
#define EFAULT_REMEDY                                                                               \
    "do not snapshot KVM guests here; it takes Linux 5.7 or later, which tries a page fault again " \
    "as often as it takes"
#define NO_KVM_REMEDY                                                                              \
    "for KVM guests: load kvm_intel or kvm_amd, with virtualization switched on in the firmware "  \
    "(in a virtual machine: nested virtualization)"
#define KVM_PERMISSION_REMEDY "run stillframe check as root, or as a user of the group kvm"
#define UFFD_PERMISSION_REMEDY                                                                     \
    "run stillframe check as root, or let this user read /dev/userfaultfd"

/* One VM, its memory and the trap around that. */
typedef struct Rig {
    CheckMemory memory;
    Vcpu *vcpu;
    Trap *trap;
} Rig;

static void rig_clear(Rig *rig)
{
    /* The trap first: whoever waits in the memory is released by that. */
    g_clear_pointer(&rig->trap, trap_free);
    g_clear_pointer(&rig->vcpu, vcpu_free);
    check_memory_clear(&rig->memory);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Rig, rig_clear)

static void answer_no_vcpu(CheckRow *row, const GError *error)
{
    const char *remedy = NULL;

    if (g_error_matches(error, SF_ERROR, SF_ERROR_PERMISSION)) {
        remedy = KVM_PERMISSION_REMEDY;
    } else if (g_error_matches(error, SF_ERROR, SF_ERROR_UNSUPPORTED)) {
        remedy = NO_KVM_REMEDY;
    }
    check_row_answer(row, CHECK_NO, remedy, "%s", error->message);
}

/* A vCPU that fails where nothing is protected has another trouble than the one of 2016. */
static void answer_run(CheckRow *row, VcpuResult result, gboolean guarded, const GError *error)
{
    if (guarded && result == VCPU_EFAULT) {
        check_row_answer(row, CHECK_NO, EFAULT_REMEDY, EFAULT_NOTE);
    } else if (guarded && result == VCPU_MMIO) {
        check_row_answer(row, CHECK_NO, EFAULT_REMEDY, MMIO_NOTE);
    } else {
        check_row_answer(row, CHECK_NO, NULL, "%s", error->message);
    }
}

/* Whether the guest wrote what it was told, to every page. */
static gboolean holds_values(const CheckMemory *memory, guint32 value)
{
    for (guint i = 0; i < check_memory_count(memory); i++) {
        if (*check_memory_word(memory, i) != value + i) {
            return FALSE;
        }
    }
    return TRUE;
}

/* Answers where something is wrong, and returns FALSE. */
static gboolean vcpu_writes(CheckRow *row, Rig *rig, guint32 value)
{
    g_autoptr(GError) error = NULL;
    VcpuResult result = vcpu_write_all(rig->vcpu, value, &error);

    if (result != VCPU_DONE) {
        answer_run(row, result, rig->trap != NULL, error);
        return FALSE;
    }
    if (!holds_values(&rig->memory, value)) {
        check_row_answer(row, CHECK_NO, NULL, "what the guest wrote did not arrive");
        return FALSE;
    }
    return TRUE;
}

void probe_kvm(CheckRow *row, guint64 features, int unused)
{
    g_auto(Rig) rig = { 0 };
    g_autoptr(GError) error = NULL;

    if (!check_memory_map(&rig.memory, CHECK_MEMORY_ANONYMOUS, &error)) {
        check_row_answer(row, CHECK_UNTRIED, NULL, "%s", error->message);
        return;
    }
    rig.vcpu = vcpu_new(&rig.memory, &error);
    if (!rig.vcpu) {
        answer_no_vcpu(row, error);
        return;
    }
    if (vcpu_writes(row, &rig, 1)) {
        check_row_answer(row, CHECK_YES, NULL, "a vCPU runs");
    }
}

/* FALSE after an answer where the rig cannot be put up. */
static gboolean rig_up(CheckRow *row, Rig *rig, guint64 features, int kind, gboolean populate)
{
    g_autoptr(GError) error = NULL;
    TrapFlags flags = fault_injected("kvm-refuses-faults") ? TRAP_REFUSES_KERNEL : TRAP_FOR_KERNEL;

    if (!check_memory_map(&rig->memory, (CheckMemoryKind)kind, &error) ||
        (populate && !check_memory_populate(&rig->memory, &error))) {
        check_row_answer(row, CHECK_UNTRIED, NULL, "%s", error->message);
        return FALSE;
    }
    rig->vcpu = vcpu_new(&rig->memory, &error);
    if (!rig->vcpu) {
        check_row_answer(row, CHECK_UNTRIED, NULL, "there is no vCPU");
        return FALSE;
    }
    /* Once unprotected, so that KVM has its own tables filled: arming must empty them. */
    if (populate && !vcpu_writes(row, rig, 1)) {
        return FALSE;
    }
    rig->trap = trap_new(&rig->memory, features, flags, &error);
    if (!rig->trap) {
        gboolean refused = g_error_matches(error, SF_ERROR, SF_ERROR_PERMISSION);
        check_row_answer(row, refused ? CHECK_UNTRIED : CHECK_NO,
                         refused ? UFFD_PERMISSION_REMEDY : NULL, "%s", error->message);
        return FALSE;
    }
    return TRUE;
}

/* Protects, lets the guest write all of it, and does it again. */
static gboolean run_rounds(CheckRow *row, Rig *rig, gboolean punch)
{
    for (guint32 round = 0; round < ROUNDS; round++) {
        g_autoptr(GError) error = NULL;
        trap_set_service(rig->trap, round == RETRY_ROUND ? RETRIES : 0, round ? 0 : HOLD_US);
        if ((punch && !check_memory_punch(&rig->memory, &error)) || !trap_arm(rig->trap, &error)) {
            check_row_answer(row, CHECK_NO, NULL, "%s", error->message);
            return FALSE;
        }
        if (!vcpu_writes(row, rig, 1000 * (round + 1))) {
            return FALSE;
        }
    }
    return TRUE;
}

static void probe_rig(CheckRow *row, guint64 features, int kind, gboolean hole)
{
    g_auto(Rig) rig = { 0 };

    if (!rig_up(row, &rig, features, kind, !hole) || !run_rounds(row, &rig, hole)) {
        return;
    }
    const guint count = check_memory_count(&rig.memory);
    const char *problem = trap_get_problem(rig.trap);
    if (!problem && trap_get_releases(rig.trap) < (guint64)ROUNDS * count) {
        problem = "a guest's write to a protected page was not noticed";
    }
    if (!problem && trap_get_retries(rig.trap) < (guint64)RETRIES * count) {
        problem = "a fault was not tried again as often as it was woken";
    }
    if (problem) {
        check_row_answer(row, CHECK_NO, BUG_REMEDY, "%s", problem);
        return;
    }
    check_row_answer(row, CHECK_YES, NULL, "%u writes of a vCPU trapped", ROUNDS * count);
}

void probe_vcpu(CheckRow *row, guint64 features, int kind)
{
    probe_rig(row, features, kind, FALSE);
}

void probe_vcpu_hole(CheckRow *row, guint64 features, int kind)
{
    probe_rig(row, features, kind, TRUE);
}
