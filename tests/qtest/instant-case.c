/*
 * The cases in which a snapshot must be one instant, and how one is run.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "instant-case.h"

#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "tests/guest/layout.h"

#define TOOL_TIMEOUT_MS 120000

/* KVM may be slow where it is nested or emulated: fewer pages for a round. */
#define RANGES "ranges=0x1000000+0x3000000"
#define RANGES_KVM "ranges=0x1000000+0x100000,0x3400000+0x100000"
/* Beside a device, which writes in the middle (and over the border of two NUMA nodes). */
#define RANGES_DEVICE "ranges=0x1000000+0x1000000"
#define DEVICE_RANGE "0x2c00000+0x800000"
#define DEVICE_RANGE_KVM "0x2f80000+0x100000"

#define DISK_BLOCKS 1021 /* prime: a slot has the same block again only after so many rounds */
#define DISK_BLOCK_PAGES 4

#define LEGACY ",disable-modern=on,disable-legacy=off"

const char *instant_device_name(InstantDevice device)
{
    static const char *const names[] = { "no-device", "disk", "disk-iothread", "net" };

    return names[device];
}

/* ---- The VM ---- */

static char *make_disk(TestDir *dir)
{
    const guint pages = DISK_BLOCKS * DISK_BLOCK_PAGES;
    char *path = test_dir_file(dir, "disk");
    g_autofree guint64 *words = NULL;
    g_autoptr(GError) err = NULL;

    if (access(path, F_OK) == 0) {
        return path;
    }
    words = g_new(guint64, (gsize)pages * GUEST_WORDS);
    for (guint i = 0; i < pages * GUEST_WORDS; i++) {
        guint page = i / GUEST_WORDS;

        words[i] = guest_disk_word(page / DISK_BLOCK_PAGES, page % DISK_BLOCK_PAGES);
    }
    g_file_set_contents_full(path, (const char *)words, (gssize)pages * GUEST_PAGE_SIZE,
                             G_FILE_SET_CONTENTS_NONE, 0600, &err);
    g_assert_no_error(err);
    return path;
}

static void add(GPtrArray *args, const char *arg)
{
    g_ptr_array_add(args, g_strdup(arg));
}

static void add_disk(const InstantCase *c, GPtrArray *args, TestDir *dir)
{
    const gboolean iothread = c->device == INSTANT_DISK_IOTHREAD;
    g_autofree char *path = make_disk(dir);

    add(args, "-blockdev");
    g_ptr_array_add(args,
                    g_strdup_printf("driver=file,filename=%s,node-name=disk0,read-only=on", path));
    if (iothread) {
        add(args, "-object");
        add(args, "iothread,id=io0");
    }
    add(args, "-device");
    g_ptr_array_add(args, g_strdup_printf("virtio-blk-pci,drive=disk0" LEGACY "%s",
                                          iothread ? ",iothread=io0" : ""));
}

static void add_net(GPtrArray *args)
{
    /* After a restore QEMU sends packets of its own, which would have slots of the guest's. */
    add(args, "-global");
    add(args, "migration.announce-rounds=0");
    for (guint i = 0; i < 2; i++) {
        add(args, "-netdev");
        g_ptr_array_add(args, g_strdup_printf("hubport,id=port%u,hubid=0", i));
        add(args, "-device");
        g_ptr_array_add(args, g_strdup_printf("virtio-net-pci,netdev=port%u,romfile=" LEGACY, i));
    }
}

static const char *ranges_of(const InstantCase *c)
{
    const MemoryKind *kind = c->kind;

    if (c->ranges) {
        return c->ranges;
    }
    if (c->kvm) {
        return kind->ranges_kvm ? kind->ranges_kvm : RANGES_KVM;
    }
    if (kind->ranges) {
        return kind->ranges;
    }
    return c->device == INSTANT_NO_DEVICE ? RANGES : RANGES_DEVICE;
}

static char *append_of(const InstantCase *c)
{
    static const char *const words[] = { "", "disk=", "disk=", "net=" };
    const char *range = c->kvm ? DEVICE_RANGE_KVM : DEVICE_RANGE;

    return g_strdup_printf("%s cpus=%u %s%s", ranges_of(c), MAX(c->cpus, 1), words[c->device],
                           c->device == INSTANT_NO_DEVICE ? "" : range);
}

static void add_dimm(const InstantCase *c, GPtrArray *args, gboolean plugged)
{
    if (c->kind->dimm && plugged) {
        add(args, "-object");
        add(args, c->kind->dimm);
        add(args, "-device");
        add(args, "pc-dimm,id=dimm0,memdev=dimm0-mem");
    } else if (c->kind->dimm) {
        add(args, "-S");
    }
}

/* The harness takes the QEMU from the environment. */
static TestVm *new_vm_of(const char *qemu, GPtrArray *args)
{
    g_autofree char *usual = g_strdup(g_getenv("STILLFRAME_QEMU"));

    g_ptr_array_add(args, NULL);
    if (qemu) {
        g_setenv("STILLFRAME_QEMU", qemu, TRUE);
    }
    TestVm *vm = test_vm_new(TEST_VM_NO_ACCEL, (const char *const *)args->pdata);
    if (qemu && usual) {
        g_setenv("STILLFRAME_QEMU", usual, TRUE);
    } else if (qemu) {
        g_unsetenv("STILLFRAME_QEMU");
    }
    return vm;
}

TestVm *instant_case_new_vm(const InstantCase *c, TestDir *dir, gboolean plugged)
{
    g_autoptr(GPtrArray) args = g_ptr_array_new_with_free_func(g_free);

    for (guint i = 0; c->kind->args[i]; i++) {
        add(args, c->kind->args[i]);
    }
    add(args, "-accel");
    add(args, c->kvm ? "kvm" : "tcg");
    add(args, "-smp");
    g_ptr_array_add(args, g_strdup_printf("%u", MAX(c->cpus, 1)));
    add(args, "-kernel");
    add(args, test_guest_path());
    add(args, "-append");
    g_ptr_array_add(args, append_of(c));
    if (c->device == INSTANT_DISK || c->device == INSTANT_DISK_IOTHREAD) {
        add_disk(c, args, dir);
    } else if (c->device == INSTANT_NET) {
        add_net(args);
    }
    add_dimm(c, args, plugged);
    return new_vm_of(c->qemu, args);
}

static void plug_dimm(TestVm *vm, const MemoryKind *kind)
{
    g_autofree char *add_object = g_strdup_printf("object_add %s", kind->dimm);
    g_autofree char *answer = test_vm_hmp(vm, add_object);
    g_autofree char *plugged = NULL;
    g_autofree char *devices = NULL;

    g_assert_cmpstr(answer, ==, "");
    plugged = test_vm_hmp(vm, "device_add pc-dimm,id=dimm0,memdev=dimm0-mem");
    g_assert_cmpstr(plugged, ==, "");
    devices = test_vm_hmp(vm, "info memory-devices");
    g_assert_nonnull(strstr(devices, "addr: 0x100000000"));
    test_vm_qmp_void(vm, "cont", NULL);
}

void instant_case_launch(const InstantCase *c, TestVm *vm)
{
    test_vm_launch(vm);
    if (c->kind->dimm) {
        plug_dimm(vm, c->kind);
    }
    test_vm_serial_wait(vm, "VV", WRITER_TIMEOUT_MS);
}

InstantMemory *instant_case_new_memory(const InstantCase *c)
{
    InstantMemory *memory = instant_memory_new();

    for (guint i = 0; c->kind->map[i].length; i++) {
        const MemoryMap *map = &c->kind->map[i];

        instant_memory_map(memory, map->address, map->length, map->block, 0);
    }
    return memory;
}

/* ---- Whether it runs ---- */

static void assert_advances(TestVm *vm, guint64 address, const char *what)
{
    gint64 end = g_get_monotonic_time() + (gint64)WRITER_TIMEOUT_MS * 1000;
    guint64 before, now;

    test_vm_read_memory(vm, address, &before, sizeof(before));
    do {
        test_vm_read_memory(vm, address, &now, sizeof(now));
        if (now > before) {
            return;
        }
        g_usleep(1000);
    } while (g_get_monotonic_time() < end);
    g_error("%s stands still", what);
}

void instant_case_assert_goes_on(const InstantCase *c, TestVm *vm)
{
    for (guint cpu = 0; cpu < MAX(c->cpus, 1); cpu++) {
        assert_advances(vm, guest_state_address(cpu) + offsetof(struct guest_state, counter),
                        "a vCPU");
    }
    if (c->device != INSTANT_NO_DEVICE) {
        guint64 kind = c->device == INSTANT_NET ? GUEST_DMA_NET : GUEST_DMA_DISK;

        assert_advances(vm, guest_dma_address(kind) + offsetof(struct guest_dma, completed),
                        "a device");
    }
    writer_guest_assert_goes_on(vm);
}

/* ---- Snapshots ---- */

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

void instant_case_snapshot(const InstantCase *c, TestVm *vm, const char *image, char **report)
{
    const char *const args[] = { "snapshot", "--no-sync", "--json", "--qmp", test_vm_get_socket(vm),
                                 image,      NULL };
    g_autofree char *out = NULL, *said = NULL;

    int status =
        test_tool_finish(test_tool_start_faulty(c->faults, args), TOOL_TIMEOUT_MS, &out, &said);
    g_assert_cmpstr(said, ==, "");
    g_assert_cmpint(status, ==, 0);
    if (report) {
        *report = g_steal_pointer(&out);
    }
}

guint64 instant_case_check_image(const InstantCase *c, const char *image)
{
    g_autoptr(InstantMemory) memory = instant_case_new_memory(c);
    g_autoptr(GError) err = NULL;
    InstantResult result;

    instant_memory_load_image(memory, image, 0, &err);
    g_assert_no_error(err);
    if (!instant_check(memory, &result)) {
        g_error("not one instant:\n%s", result.text->str);
    }
    g_test_message("%s", result.text->str);
    g_assert_cmpuint(result.cpus, ==, MAX(c->cpus, 1));
    g_assert_cmpint(result.requests > 0, ==, c->device != INSTANT_NO_DEVICE);
    guint64 instant = result.counter;
    instant_result_clear(&result);
    return instant;
}

/* Takes one snapshot and judges it. */
static void snapshot_and_check(const InstantCase *c, TestVm *vm, const char *image)
{
    g_autofree char *report = NULL;
    guint64 before = writer_guest_read_counter(vm);

    instant_case_snapshot(c, vm, image, &report);
    guint64 after = writer_guest_read_counter(vm);
    check_report(report);

    guint64 instant = instant_case_check_image(c, image);
    g_assert_cmpuint(instant, >=, before);
    g_assert_cmpuint(instant, <=, after);
    instant_case_assert_goes_on(c, vm);
}

/* ---- Restoring ---- */

static void check_restored(const InstantCase *c, TestVm *vm, const char *image)
{
    test_vm_assert_status(vm, "running");
    instant_case_assert_goes_on(c, vm);
    g_assert_cmpuint(writer_guest_read_counter(vm), >, instant_case_check_image(c, image));
    writer_guest_assert_checks_itself(vm);
}

void instant_case_restore_by_qemu(const InstantCase *c, TestDir *dir, const char *image)
{
    g_autoptr(TestVm) vm = instant_case_new_vm(c, dir, TRUE);
    g_autofree char *uri = g_strdup_printf("exec:cat '%s'", image);

    test_vm_launch_incoming(vm, uri);
    /* A stopped VM (-S) would have been told to go on by its user. */
    check_restored(c, vm, image);
}

GPtrArray *instant_case_restore_args(TestVm *vm, const char *image, const char *const *options)
{
    GPtrArray *args = g_ptr_array_new();

    g_ptr_array_add(args, (gpointer) "restore");
    for (; *options; options++) {
        g_ptr_array_add(args, (gpointer)*options);
    }
    g_ptr_array_add(args, (gpointer)image);
    g_ptr_array_add(args, (gpointer) "--");
    for (char **arg = test_vm_get_argv(vm); *arg; arg++) {
        g_ptr_array_add(args, *arg);
    }
    g_ptr_array_add(args, NULL);
    return args;
}

TestVm *instant_case_restore_with(const InstantCase *c, TestDir *dir, const char *image,
                                  const char *const *options)
{
    g_autoptr(TestVm) vm = instant_case_new_vm(c, dir, TRUE);
    g_autoptr(GPtrArray) args = instant_case_restore_args(vm, image, options);
    g_autofree char *said = NULL;
    int status = test_tool_runv(NULL, &said, (const char *const *)args->pdata);

    if (status != 0) {
        g_error("restore failed: %s", said);
    }
    test_vm_adopt(vm);
    check_restored(c, vm, image);
    return g_steal_pointer(&vm);
}

void instant_case_restore_by_stillframe(const InstantCase *c, TestDir *dir, const char *image)
{
    test_vm_free(instant_case_restore_with(c, dir, image, (const char *const[]){ NULL }));
}

/* ---- All of it ---- */

gboolean instant_case_begin(const InstantCase *c, TestReaper **hugepages)
{
    const MemoryKind *kind = c->kind;

    *hugepages = NULL;
    if (c->faults && !test_need_faults()) {
        return FALSE;
    }
    if (g_strcmp0(c->faults, "no-uffd-syscall") == 0 && access("/dev/userfaultfd", R_OK) != 0) {
        g_test_skip("no /dev/userfaultfd here: there is no other door");
        return FALSE;
    }
    if (kind->hugepages_mib && !test_hugepages_reserve(kind->hugepages_mib, hugepages)) {
        return FALSE;
    }
    /* Inherited by QEMU, which asks for huge pages by itself. */
    g_assert_no_errno(prctl(PR_SET_THP_DISABLE, kind->small_pages ? 1 : 0, 0, 0, 0));
    return TRUE;
}

void instant_case_end(TestReaper *hugepages)
{
    g_assert_no_errno(prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0));
    test_reaper_finish(hugepages);
}

static void run(const InstantCase *c, guint snapshots)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *image = test_dir_file(dir, "image");
    g_autoptr(TestVm) vm = instant_case_new_vm(c, dir, FALSE);

    instant_case_launch(c, vm);
    for (guint i = snapshots; i > 0; i--) {
        snapshot_and_check(c, vm, image);
        g_usleep((gulong)g_random_int_range(0, 20000));
    }
    writer_guest_assert_checks_itself(vm);
    g_clear_pointer(&vm, test_vm_free);
    instant_case_restore_by_qemu(c, dir, image);
    instant_case_restore_by_stillframe(c, dir, image);
}

void instant_case_run(const InstantCase *c, guint snapshots)
{
    TestReaper *hugepages;

    if (instant_case_begin(c, &hugepages)) {
        run(c, snapshots);
        instant_case_end(hugepages);
    }
}
