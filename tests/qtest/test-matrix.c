/*
 * The instant in every combination: accelerator, QEMU, kind of memory, number of vCPUs, device that
 * writes, fallback of the kernel's.
 *
 *   test-matrix tcg|kvm            a selection in which every value stands with others (make check)
 *   test-matrix tcg|kvm all        the complete product
 *   test-matrix tcg|kvm series     many snapshots in a row of each guest at full write rate
 *
 * STILLFRAME_OTHER_QEMU is scripts/other-qemu; what needs it is skipped where it cannot run.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "instant-case.h"

#define SNAPSHOTS 2
#define SERIES_WRITER 200
#define SERIES_OTHERS 100

typedef struct MatrixCase {
    InstantCase instant;
    gboolean other_qemu;
    guint snapshots;
    const char *skip; /* the reason, or NULL */
} MatrixCase;

/* What is fixed for a run of the program. */
typedef struct Matrix {
    gboolean kvm;
    const char *other;    /* the program, or NULL */
    const char *no_other; /* why not */
} Matrix;

/* ---- The other QEMU ---- */

static void find_other_qemu(Matrix *matrix)
{
    const char *program = g_getenv("STILLFRAME_OTHER_QEMU");
    g_autofree char *out = NULL, *said = NULL;
    int status;

    if (!program || !*program) {
        matrix->no_other = "STILLFRAME_OTHER_QEMU is not set";
        return;
    }
    const char *const argv[] = { program, "path", NULL };
    status = test_tool_finish(test_tool_start_command(argv), 30000, &out, &said);
    if (status != 0) {
        matrix->no_other = g_strdup(g_strstrip(said));
        return;
    }
    matrix->other = program;
}

/* ---- One case ---- */

static void test_case(gconstpointer data)
{
    const MatrixCase *c = data;

    if (c->skip) {
        g_test_skip(c->skip);
        return;
    }
    instant_case_run(&c->instant, c->snapshots);
}

static void add_case(const Matrix *matrix, const char *group, const MatrixCase *given)
{
    MatrixCase *c = g_memdup2(given, sizeof(*given));
    InstantCase *instant = &c->instant;

    instant->kvm = matrix->kvm;
    if (c->other_qemu) {
        instant->qemu = matrix->other;
        c->skip = matrix->other ? NULL : matrix->no_other;
    }
    if (c->snapshots == 0) {
        c->snapshots = SNAPSHOTS;
    }
    g_autofree char *path = g_strdup_printf(
        "/%s/%s/%s/%s/%u-vcpus/%s/%s", group, matrix->kvm ? "kvm" : "tcg",
        c->other_qemu ? "other-qemu" : "qemu", instant->kind->name, MAX(instant->cpus, 1),
        instant_device_name(instant->device), instant->faults ? instant->faults : "all-features");
    g_test_add_data_func_full(path, c, test_case, g_free);
}

/* ---- The three sets ---- */

typedef struct Choice {
    const char *kind;
    guint cpus;
    InstantDevice device;
    const char *faults;
    gboolean other_qemu;
    gboolean on_kvm; /* KVM has it too */
} Choice;

static const Choice choices[] = {
    { "anonymous-4k", 4, INSTANT_NO_DEVICE, NULL, FALSE, TRUE },
    { "anonymous-4k", 2, INSTANT_DISK, "no-wp-unpopulated", FALSE, FALSE },
    { "transparent-huge", 2, INSTANT_DISK, NULL, FALSE, TRUE },
    { "memfd-shared", 4, INSTANT_DISK_IOTHREAD, NULL, FALSE, TRUE },
    { "memfd-shared", 1, INSTANT_NET, "no-uffd-device", FALSE, FALSE },
    { "memfd-private", 1, INSTANT_NET, NULL, FALSE, FALSE },
    { "hugetlb-shared", 2, INSTANT_NET, NULL, FALSE, TRUE },
    { "hugetlb-private", 4, INSTANT_DISK_IOTHREAD, NULL, FALSE, FALSE },
    { "two-numa-nodes", 4, INSTANT_NET, NULL, FALSE, TRUE },
    { "sparse", 2, INSTANT_NO_DEVICE, "no-wp-unpopulated", FALSE, TRUE },
    { "sparse", 1, INSTANT_DISK_IOTHREAD, NULL, FALSE, FALSE },
    { "anonymous-4k", 2, INSTANT_NET, NULL, TRUE, TRUE },
    { "memfd-shared", 1, INSTANT_DISK_IOTHREAD, "no-uffd-syscall", TRUE, TRUE },
    { "hugetlb-shared", 4, INSTANT_NO_DEVICE, NULL, TRUE, FALSE },
    { "two-numa-nodes", 2, INSTANT_DISK, NULL, TRUE, FALSE },
};

static void add_selection(const Matrix *matrix)
{
    for (guint i = 0; i < G_N_ELEMENTS(choices); i++) {
        const Choice *choice = &choices[i];
        MatrixCase c = { .other_qemu = choice->other_qemu };

        c.instant.kind = memory_kind_find(choice->kind);
        c.instant.cpus = choice->cpus;
        c.instant.device = choice->device;
        c.instant.faults = choice->faults;
        if (!matrix->kvm || choice->on_kvm) {
            add_case(matrix, "matrix", &c);
        }
    }
}

static void add_product_of_kind(const Matrix *matrix, const MemoryKind *kind)
{
    static const char *const faults[] = { NULL, "no-wp-unpopulated", "no-uffd-syscall",
                                          "no-uffd-device" };
    static const guint cpus[] = { 1, 2, 4 };

    for (guint i = 0; i < G_N_ELEMENTS(cpus) * INSTANT_DEVICES * G_N_ELEMENTS(faults) * 2; i++) {
        MatrixCase c = { .other_qemu = i % 2 };

        c.instant.kind = kind;
        c.instant.faults = faults[i / 2 % G_N_ELEMENTS(faults)];
        c.instant.device = i / 2 / G_N_ELEMENTS(faults) % INSTANT_DEVICES;
        c.instant.cpus = cpus[i / 2 / G_N_ELEMENTS(faults) / INSTANT_DEVICES];
        add_case(matrix, "matrix", &c);
    }
}

static void add_product(const Matrix *matrix)
{
    for (guint i = 0; i < memory_kinds_count; i++) {
        if (!memory_kinds[i].extra) {
            add_product_of_kind(matrix, &memory_kinds[i]);
        }
    }
}

/* Half of each in private memory and half in shared: what faults differs. */
static void add_series(const Matrix *matrix)
{
    static const struct {
        const char *group;
        guint cpus;
        InstantDevice device;
        guint snapshots;
    } series[] = {
        { "series/a-one-vcpu", 1, INSTANT_NO_DEVICE, SERIES_WRITER },
        { "series/b-vcpus", 2, INSTANT_NO_DEVICE, SERIES_OTHERS },
        { "series/b-vcpus", 4, INSTANT_NO_DEVICE, SERIES_OTHERS },
        { "series/c-devices", 1, INSTANT_DISK, SERIES_OTHERS },
        { "series/c-devices", 1, INSTANT_DISK_IOTHREAD, SERIES_OTHERS },
        { "series/c-devices", 1, INSTANT_NET, SERIES_OTHERS },
    };
    static const char *const kinds[] = { "anonymous-4k", "memfd-shared" };

    for (guint i = 0; i < G_N_ELEMENTS(series) * G_N_ELEMENTS(kinds); i++) {
        guint at = i / G_N_ELEMENTS(kinds);
        MatrixCase c = { .snapshots = test_repeat(series[at].snapshots / G_N_ELEMENTS(kinds)) };

        c.instant.kind = memory_kind_find(kinds[i % G_N_ELEMENTS(kinds)]);
        c.instant.cpus = series[at].cpus;
        c.instant.device = series[at].device;
        add_case(matrix, series[at].group, &c);
    }
}

int main(int argc, char **argv)
{
    Matrix matrix = { 0 };
    g_autofree char *reason = NULL;

    g_test_init(&argc, &argv, NULL);
    const char *set = argc > 2 ? argv[2] : "selection";
    matrix.kvm = argc > 1 && g_str_equal(argv[1], "kvm");
    if (matrix.kvm && !test_have_kvm(&reason)) {
        test_skip_all(reason);
    }
    if (g_str_equal(set, "series")) {
        add_series(&matrix);
    } else {
        find_other_qemu(&matrix);
        if (g_str_equal(set, "all")) {
            add_product(&matrix);
        } else {
            add_selection(&matrix);
        }
    }
    return g_test_run();
}
