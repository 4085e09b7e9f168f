/*
 * The promise of the whole: an image is the guest's memory at one instant, stock QEMU and our
 * restore go on from it, and the guest that was snapshotted never notices. For every kind of
 * memory that a VM has. "test-instant kvm" does it with KVM.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "tests/process.h"
#include "writer-guest.h"

#define MIB (1024 * 1024ULL)
#define DIMM_ADDRESS 0x100000000ULL /* q35's first hot-plug address with little memory */

typedef struct MemoryMap {
    guint64 address;
    guint64 length;
    const char *block;
} MemoryMap;

typedef struct MemoryKind {
    const char *name;
    const char *args[20];
    const char *ranges; /* that the guest writes */
    MemoryMap map[3];
    guint hugepages_mib;
    gboolean small_pages; /* no transparent huge pages */
    const char *dimm;     /* object_add arguments of a DIMM to plug while the machine stands */
    gboolean on_kvm;      /* the KVM run has it too */
} MemoryKind;

/* q35 keeps 16 MiB at the top of its memory for SMM, and SeaBIOS its tables below them. */
#define RANGES "ranges=0x1000000+0x3000000"
/* KVM may be slow where it is nested or emulated: fewer pages for a round. */
#define RANGES_KVM "ranges=0x1000000+0x800000"
#define RANGES_DIMM "ranges=0x1000000+0x1000000,0x100000000+0x2000000"

static const MemoryKind kinds[] = {
    {
        .name = "anonymous-4k",
        .args = { "-machine", "q35", "-m", "96" },
        .map = { { 0, 96 * MIB, "pc.ram" } },
        .small_pages = TRUE,
        .on_kvm = TRUE,
    },
    {
        .name = "page-after-page", /* the fault service saves ahead of such a guest */
        .args = { "-machine", "q35,memory-backend=mem0", "-m", "96", "-object",
                  "memory-backend-memfd,id=mem0,size=96M,share=on" },
        .ranges = RANGES " order=linear",
        .map = { { 0, 96 * MIB, "mem0" } },
    },
    {
        .name = "page-after-page-private",
        .args = { "-machine", "q35", "-m", "96" },
        .ranges = RANGES " order=linear",
        .map = { { 0, 96 * MIB, "pc.ram" } },
        .small_pages = TRUE,
    },
    {
        .name = "transparent-huge",
        .args = { "-machine", "q35", "-m", "96" },
        .map = { { 0, 96 * MIB, "pc.ram" } },
        .on_kvm = TRUE,
    },
    {
        .name = "memfd-shared",
        .args = { "-machine", "q35,memory-backend=mem0", "-m", "96", "-object",
                  "memory-backend-memfd,id=mem0,size=96M,share=on" },
        .map = { { 0, 96 * MIB, "mem0" } },
        .on_kvm = TRUE,
    },
    {
        .name = "memfd-private",
        .args = { "-machine", "q35,memory-backend=mem0", "-m", "96", "-object",
                  "memory-backend-memfd,id=mem0,size=96M,share=off" },
        .map = { { 0, 96 * MIB, "mem0" } },
    },
    {
        .name = "hugetlb-shared",
        .args = { "-machine", "q35,memory-backend=mem0", "-m", "96", "-object",
                  "memory-backend-memfd,id=mem0,size=96M,share=on,hugetlb=on,hugetlbsize=2M" },
        .map = { { 0, 96 * MIB, "mem0" } },
        .hugepages_mib = 192, /* the one that is restored may overlap */
        .on_kvm = TRUE,
    },
    {
        .name = "hugetlb-private",
        .args = { "-machine", "q35,memory-backend=mem0", "-m", "96", "-object",
                  "memory-backend-memfd,id=mem0,size=96M,share=off,hugetlb=on,hugetlbsize=2M" },
        .map = { { 0, 96 * MIB, "mem0" } },
        .hugepages_mib = 192,
    },
    {
        .name = "two-numa-nodes",
        .args = { "-machine", "q35", "-m", "96", "-object",
                  "memory-backend-memfd,id=mem0,size=48M,share=on", "-object",
                  "memory-backend-ram,id=mem1,size=48M", "-numa", "node,memdev=mem0", "-numa",
                  "node,memdev=mem1" },
        .map = { { 0, 48 * MIB, "mem0" }, { 48 * MIB, 48 * MIB, "mem1" } },
    },
    {
        .name = "hot-plugged-dimm",
        .args = { "-machine", "q35", "-m", "64,slots=2,maxmem=1G" },
        .ranges = RANGES_DIMM,
        .map = { { 0, 64 * MIB, "pc.ram" }, { DIMM_ADDRESS, 128 * MIB, "dimm0-mem" } },
        .dimm = "memory-backend-ram,id=dimm0-mem,size=128M",
    },
};

typedef struct Case {
    const MemoryKind *kind;
    gboolean kvm;
} Case;

/* Prepares a VM with the kind's memory; @plugged: the DIMM is there from the beginning. */
static TestVm *new_vm(const Case *c, gboolean plugged)
{
    const MemoryKind *kind = c->kind;
    const char *ranges = kind->ranges ? kind->ranges : c->kvm ? RANGES_KVM : RANGES;
    g_autoptr(GPtrArray) args = g_ptr_array_new();

    for (guint i = 0; kind->args[i]; i++) {
        g_ptr_array_add(args, (gpointer)kind->args[i]);
    }
    g_ptr_array_add(args, (gpointer) "-accel");
    g_ptr_array_add(args, (gpointer)(c->kvm ? "kvm" : "tcg"));
    g_ptr_array_add(args, (gpointer) "-kernel");
    g_ptr_array_add(args, (gpointer)test_guest_path());
    g_ptr_array_add(args, (gpointer) "-append");
    g_ptr_array_add(args, (gpointer)ranges);
    if (kind->dimm && plugged) {
        g_ptr_array_add(args, (gpointer) "-object");
        g_ptr_array_add(args, (gpointer)kind->dimm);
        g_ptr_array_add(args, (gpointer) "-device");
        g_ptr_array_add(args, (gpointer) "pc-dimm,id=dimm0,memdev=dimm0-mem");
    } else if (kind->dimm) {
        g_ptr_array_add(args, (gpointer) "-S");
    }
    g_ptr_array_add(args, NULL);
    return test_vm_new(TEST_VM_NO_ACCEL, (const char *const *)args->pdata);
}

static void plug_dimm(TestVm *vm, const MemoryKind *kind)
{
    g_autofree char *add = g_strdup_printf("object_add %s", kind->dimm);
    g_autofree char *answer = test_vm_hmp(vm, add);
    g_autofree char *plugged = NULL;
    g_autofree char *devices = NULL;

    g_assert_cmpstr(answer, ==, "");
    plugged = test_vm_hmp(vm, "device_add pc-dimm,id=dimm0,memdev=dimm0-mem");
    g_assert_cmpstr(plugged, ==, "");
    devices = test_vm_hmp(vm, "info memory-devices");
    g_assert_nonnull(strstr(devices, "addr: 0x100000000"));
    test_vm_qmp_void(vm, "cont", NULL);
}

static InstantMemory *new_memory(const MemoryKind *kind)
{
    InstantMemory *memory = instant_memory_new();

    for (guint i = 0; kind->map[i].length; i++) {
        instant_memory_map(memory, kind->map[i].address, kind->map[i].length, kind->map[i].block,
                           0);
    }
    return memory;
}

/* The report is there, and the guest's writes really came as faults after the instant. */
static void check_report(const char *text)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(JsonNode) report = json_from_string(text, &err);
    JsonObject *faults;

    g_assert_no_error(err);
    g_assert_true(report && JSON_NODE_HOLDS_OBJECT(report));
    faults = json_object_get_object_member(json_node_get_object(report), "faults");
    g_assert_nonnull(faults);
    g_assert_cmpint(json_object_get_int_member(faults, "count"), >, 0);
}

/* Takes one snapshot and judges it. */
static void take_snapshot(TestVm *vm, const MemoryKind *kind, const char *image)
{
    g_autoptr(InstantMemory) memory = new_memory(kind);
    g_autofree char *out = NULL, *said = NULL;
    guint64 before, after, instant;
    int status;

    before = writer_guest_read_counter(vm);
    status = test_tool_run(&out, &said, "snapshot", "--qmp", test_vm_get_socket(vm), "--json",
                           "--no-sync", image, NULL);
    after = writer_guest_read_counter(vm);
    g_assert_cmpstr(said, ==, "");
    g_assert_cmpint(status, ==, 0);
    check_report(out);

    instant = instant_check_image(memory, image);
    g_assert_cmpuint(instant, >=, before);
    g_assert_cmpuint(instant, <=, after);
    writer_guest_assert_goes_on(vm);
}

static void check_restored(TestVm *vm, const MemoryKind *kind, const char *image)
{
    g_autoptr(InstantMemory) memory = new_memory(kind);

    test_vm_assert_status(vm, "running");
    writer_guest_assert_goes_on(vm);
    g_assert_cmpuint(writer_guest_read_counter(vm), >, instant_check_image(memory, image));
}

static void restore_by_stock_qemu(const Case *c, const char *image)
{
    g_autoptr(TestVm) vm = new_vm(c, TRUE);
    g_autofree char *uri = g_strdup_printf("exec:cat '%s'", image);

    test_vm_launch_incoming(vm, uri);
    /* A stopped VM (-S) would have been told to go on by its user. */
    check_restored(vm, c->kind, image);
}

static void restore_by_stillframe(const Case *c, const char *image)
{
    g_autoptr(TestVm) vm = new_vm(c, TRUE);
    g_autoptr(GPtrArray) args = g_ptr_array_new();
    g_autofree char *said = NULL;
    int status;

    g_ptr_array_add(args, (gpointer) "restore");
    g_ptr_array_add(args, (gpointer)image);
    g_ptr_array_add(args, (gpointer) "--");
    for (char **arg = test_vm_get_argv(vm); *arg; arg++) {
        g_ptr_array_add(args, *arg);
    }
    g_ptr_array_add(args, NULL);
    status = test_tool_runv(NULL, &said, (const char *const *)args->pdata);
    if (status != 0) {
        g_error("restore failed: %s", said);
    }
    test_vm_adopt(vm);
    check_restored(vm, c->kind, image);
}

static void run_case(const Case *c)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *image = test_dir_file(dir, "image");
    g_autoptr(TestVm) vm = new_vm(c, FALSE);

    test_vm_launch(vm);
    if (c->kind->dimm) {
        plug_dimm(vm, c->kind);
    }
    test_vm_serial_wait(vm, "VV", WRITER_TIMEOUT_MS);
    for (guint i = test_repeat(2); i > 0; i--) {
        take_snapshot(vm, c->kind, image);
        g_usleep((gulong)g_random_int_range(0, 20000));
    }
    g_clear_pointer(&vm, test_vm_free);
    restore_by_stock_qemu(c, image);
    restore_by_stillframe(c, image);
}

static void test_kind(gconstpointer data)
{
    const Case *c = data;
    TestReaper *hugepages = NULL;

    if (c->kind->hugepages_mib && !test_hugepages_reserve(c->kind->hugepages_mib, &hugepages)) {
        return;
    }
    /* Inherited by QEMU, which asks for huge pages by itself. */
    g_assert_no_errno(prctl(PR_SET_THP_DISABLE, c->kind->small_pages ? 1 : 0, 0, 0, 0));
    run_case(c);
    g_assert_no_errno(prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0));
    test_reaper_finish(hugepages);
}

/* The judge itself, with a real guest: memory read while it writes is no instant. */
static void test_control(gconstpointer data)
{
    const Case *c = data;
    g_autoptr(TestVm) vm = new_vm(c, FALSE);
    g_autoptr(InstantMemory) live = new_memory(c->kind);
    g_autoptr(InstantMemory) stopped = new_memory(c->kind);
    InstantResult result;

    test_vm_launch(vm);
    test_vm_serial_wait(vm, "VV", WRITER_TIMEOUT_MS);
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
    for (guint i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autofree char *path = NULL;
        Case *c;

        if (kvm && !kinds[i].on_kvm) {
            continue;
        }
        c = g_new0(Case, 1);
        c->kind = &kinds[i];
        c->kvm = kvm;
        path = g_strdup_printf("/instant/%s/%s", kvm ? "kvm" : "tcg", kinds[i].name);
        g_test_add_data_func_full(path, c, test_kind, g_free);
    }
}

int main(int argc, char **argv)
{
    static const Case control = { .kind = &kinds[0] };
    static const Case control_kvm = { .kind = &kinds[0], .kvm = TRUE };
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
