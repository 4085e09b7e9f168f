/*
 * The promise of the whole: an image is the guest's memory at one instant, stock QEMU and our
 * restore go on from it, and the guest that was snapshotted never notices. For every kind of
 * memory that a VM has. "test-instant kvm" does it with KVM. The product with vCPUs, devices, QEMUs
 * and fallbacks is test-matrix.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "instant-case.h"
#include "tests/process.h"

#define MIB (1024 * 1024ULL)
#define SNAPSHOTS 2

static void test_kind(gconstpointer data)
{
    instant_case_run(data, test_repeat(SNAPSHOTS));
}

/* The judge itself, with a real guest: memory read while it writes is no instant. */
static void test_control(gconstpointer data)
{
    const InstantCase *c = data;
    g_autoptr(TestDir) dir = test_dir_new();
    g_autoptr(TestVm) vm = instant_case_new_vm(c, dir, FALSE);
    g_autoptr(InstantMemory) live = instant_case_new_memory(c);
    g_autoptr(InstantMemory) stopped = instant_case_new_memory(c);
    InstantResult result;

    instant_case_launch(c, vm);
    instant_memory_load_live(live, vm);
    g_assert_false(instant_check(live, &result));
    g_assert_cmpuint(result.early + result.late, >, 0);
    instant_result_clear(&result);

    test_vm_qmp_void(vm, "stop", NULL);
    instant_memory_load_live(stopped, vm);
    instant_check_assert(stopped);
}

static guint64 read_rss_kib(pid_t pid)
{
    g_autofree char *text = read_status(pid, "VmRSS");

    return g_ascii_strtoull(text, NULL, 10);
}

/* Memory of which the guest has touched little. */
typedef struct SparseCase {
    const char *name;
    const char *object;
    const char *faults;
} SparseCase;

static const SparseCase sparse_cases[] = {
    { "anonymous", "memory-backend-ram,id=mem0,size=1536M", NULL },
    { "anonymous-populated", "memory-backend-ram,id=mem0,size=1536M", "no-wp-unpopulated" },
    { "memfd", "memory-backend-memfd,id=mem0,size=1536M,share=on", NULL },
    { "memfd-without-window", "memory-backend-memfd,id=mem0,size=1536M,share=on", "no-window" },
};

/* @slow: the guest takes 512 ns an instruction. */
static TestVm *start_sparse(const SparseCase *c, const char *ranges, gboolean slow)
{
    g_assert_no_errno(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
    TestVm *vm = test_vm_start(TEST_VM_DEFAULT, "-machine", "q35,memory-backend=mem0", "-m", "1536",
                               "-object", c->object, "-kernel", test_guest_path(), "-append",
                               ranges, slow ? "-icount" : NULL, "shift=9,align=on", NULL);
    g_assert_no_errno(prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0));
    return vm;
}

/* Takes a snapshot and judges it; returns the instant. */
static guint64 snapshot_sparse(TestVm *vm, const SparseCase *c, const char *image)
{
    g_autoptr(InstantMemory) memory = instant_memory_new();
    g_autofree char *said = NULL;
    TestTool *tool = test_tool_start_faulty(
        c->faults, (const char *const[]){ "snapshot", "--no-sync", "--qmp", test_vm_get_socket(vm),
                                          image, NULL });

    int status = test_tool_finish(tool, 60000, NULL, &said);
    g_assert_cmpstr(said, ==, "");
    g_assert_cmpint(status, ==, 0);
    instant_memory_map(memory, 0, 1536 * MIB, "mem0", 0);
    return instant_check_image(memory, image);
}

/* Memory that the guest never touched costs nothing: neither in QEMU nor in the image. */
static void test_holes(gconstpointer data)
{
    const SparseCase *c = data;

    if (c->faults && !test_need_faults()) {
        return;
    }
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *image = test_dir_file(dir, "image");
    g_autoptr(TestVm) vm = start_sparse(c, "ranges=0x1000000+0x800000,0x40000000+0x800000", FALSE);
    struct stat info;

    test_vm_serial_wait(vm, "VV", WRITER_TIMEOUT_MS);
    guint64 before = read_rss_kib(test_vm_get_pid(vm));
    snapshot_sparse(vm, c, image);
    guint64 after = read_rss_kib(test_vm_get_pid(vm));

    /* 16 MiB are written; 1.5 GiB would show. */
    g_assert_cmpuint(after, <, before + 16 * 1024);
    g_assert_no_errno(stat(image, &info));
    g_assert_cmpint(info.st_size, <, 48 * MIB);
    writer_guest_assert_goes_on(vm);
}

/* The guest writes to pages for the first time ever while the snapshot is taken. */
static void test_first_writes(gconstpointer data)
{
    const SparseCase *c = data;
    const guint64 pages = 0x20000000 / 4096;
    if (c->faults && !test_need_faults()) {
        return;
    }
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *image = test_dir_file(dir, "image");

    /* The first round is short, and the snapshot may come too late for it. */
    for (guint i = 0; i < 5; i++) {
        g_autoptr(TestVm) vm = start_sparse(c, "ranges=0x1000000+0x20000000", c->faults != NULL);
        while (writer_guest_read_counter(vm) == 0) {
            g_usleep(1000);
        }
        guint64 instant = snapshot_sparse(vm, c, image);
        writer_guest_assert_goes_on(vm);
        if (instant < pages) {
            return;
        }
    }
    g_test_skip("the guest's first round was always over before the instant");
}

static void add_kinds(gboolean kvm)
{
    for (guint i = 0; i < memory_kinds_count; i++) {
        g_autofree char *path = NULL;
        InstantCase *c;

        if (kvm && !memory_kinds[i].on_kvm) {
            continue;
        }
        c = g_new0(InstantCase, 1);
        c->kind = &memory_kinds[i];
        c->kvm = kvm;
        path = g_strdup_printf("/instant/%s/%s", kvm ? "kvm" : "tcg", memory_kinds[i].name);
        g_test_add_data_func_full(path, c, test_kind, g_free);
    }
}

int main(int argc, char **argv)
{
    static const InstantCase control = { .kind = &memory_kinds[0], .cpus = 2 };
    static const InstantCase control_kvm = { .kind = &memory_kinds[0], .kvm = TRUE };
    g_autofree char *reason = NULL;
    gboolean kvm;

    g_test_init(&argc, &argv, NULL);
    kvm = argc > 1 && g_str_equal(argv[1], "kvm");
    if (kvm && !test_have_kvm(&reason)) {
        test_skip_all(reason);
    }
    g_test_add_data_func(kvm ? "/instant/kvm/control" : "/instant/tcg/control",
                         kvm ? &control_kvm : &control, test_control);
    add_kinds(kvm);
    for (guint i = 0; !kvm && i < G_N_ELEMENTS(sparse_cases); i++) {
        const SparseCase *c = &sparse_cases[i];
        g_autofree char *holes = g_strdup_printf("/instant/tcg/holes-%s", c->name);
        g_autofree char *first = g_strdup_printf("/instant/tcg/first-writes-%s", c->name);
        g_test_add_data_func(holes, c, test_holes);
        g_test_add_data_func(first, c, test_first_writes);
    }
    return g_test_run();
}
