/*
 * Memory that a balloon, free page reporting or virtio-mem gives back while the snapshot is taken:
 * an image has it as it was at T0. Where that cannot be, there is no image. The devices are QEMU's
 * own, driven by the test (virtio-driver.h), so that QEMU's own threads wait in madvise().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include <sys/prctl.h>

#include "virtio-driver.h"
#include "writer-guest.h"

#define MIB (1024 * 1024ULL)
#define PAGE 4096ULL
/* Guest memory that the writer guest leaves alone: filled with 'b' before the snapshot. */
#define SPARE (70 * MIB)
#define SPARE_LENGTH (8 * MIB)
/* What of it is given back, and what stays. */
#define GIVEN (72 * MIB)
#define GIVEN_LENGTH (4 * MIB)
#define RINGS (80 * MIB)
#define BALLOON_QUEUES 4

#define BACKEND(kind, more) kind ",id=mem0,size=96M" more

typedef struct Case {
    const char *name;
    const char *backend; /* NULL: QEMU's own anonymous memory */
    void (*give)(VirtioDevice *device, guint64 at, guint64 length);
    gboolean small_pages;
    guint hugepages_mib;
    const char *faults;
    gboolean lost; /* the snapshot is given up */
} Case;

static const Case cases[] = {
    { .name = "inflate/anonymous", .give = balloon_inflate, .small_pages = TRUE },
    { .name = "inflate/transparent-huge", .give = balloon_inflate },
    { .name = "inflate/memfd-private",
      .backend = BACKEND("memory-backend-memfd", ",share=off"),
      .give = balloon_inflate },
    { .name = "inflate/shared-without-file",
      .backend = BACKEND("memory-backend-ram", ",share=on"),
      .give = balloon_inflate },
    { .name = "inflate/memfd-shared",
      .backend = BACKEND("memory-backend-memfd", ",share=on"),
      .give = balloon_inflate,
      .lost = TRUE },
    { .name = "inflate/without-wp-unpopulated",
      .give = balloon_inflate,
      .faults = "no-wp-unpopulated" },
    { .name = "inflate/unseen",
      .give = balloon_inflate,
      .small_pages = TRUE,
      .faults = "discard-unseen",
      .lost = TRUE },
    { .name = "report/anonymous", .give = balloon_report, .small_pages = TRUE },
    { .name = "report/transparent-huge", .give = balloon_report },
    { .name = "report/memfd-shared",
      .backend = BACKEND("memory-backend-memfd", ",share=on"),
      .give = balloon_report,
      .lost = TRUE },
    { .name = "report/hugetlb-private",
      .backend = BACKEND("memory-backend-memfd", ",share=off,hugetlb=on,hugetlbsize=2M"),
      .give = balloon_report,
      .hugepages_mib = 96,
      .lost = TRUE },
};

typedef struct Machine {
    TestVm *vm;
    TestDir *dir;
    QtestSocket *qtest;
    VirtioDevice *balloon;
} Machine;

static void fill(Machine *machine, guint64 at, guint64 length, char byte)
{
    qtest_command(machine->qtest, "memset 0x%" G_GINT64_MODIFIER "x 0x%" G_GINT64_MODIFIER "x 0x%x",
                  at, length, byte);
}

static void machine_start(Machine *machine, const Case *c)
{
    machine->dir = test_dir_new();
    g_autofree char *qtest = qtest_socket_argument(machine->dir);

    g_assert_no_errno(prctl(PR_SET_THP_DISABLE, c->small_pages ? 1 : 0, 0, 0, 0));
    machine->vm = writer_guest_start("-qtest", qtest, "-qtest-log", "none", "-device",
                                     "virtio-balloon-pci,free-page-reporting=on",
                                     c->backend ? "-machine" : NULL, "memory-backend=mem0",
                                     "-object", c->backend, NULL);
    g_assert_no_errno(prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0));
    machine->qtest = qtest_socket_open(machine->dir);
    machine->balloon = virtio_device_open(machine->qtest, VIRTIO_ID_BALLOON, BALLOON_F_REPORTING,
                                          BALLOON_QUEUES, RINGS);
    fill(machine, SPARE, SPARE_LENGTH, 'b');
}

static void machine_end(Machine *machine)
{
    g_clear_pointer(&machine->balloon, virtio_device_free);
    g_clear_pointer(&machine->qtest, qtest_socket_free);
    g_clear_pointer(&machine->vm, test_vm_free);
    g_clear_pointer(&machine->dir, test_dir_free);
}

static TestTool *start_slow(Machine *machine, guint mib, const char *faults)
{
    g_autofree char *path = test_dir_file(machine->dir, "image");

    return writer_guest_start_slow(machine->vm, path, mib, faults);
}

static InstantMemory *finish_and_load(Machine *machine, TestTool *tool, const char *block)
{
    g_autofree char *path = test_dir_file(machine->dir, "image");
    g_autofree char *said = NULL;
    g_autoptr(GError) error = NULL;
    InstantMemory *memory = instant_memory_new();

    int status = test_tool_finish(tool, 60000, NULL, &said);
    g_assert_cmpstr(said, ==, "");
    g_assert_cmpint(status, ==, 0);
    instant_memory_map(memory, 0, 96 * MIB, block, 0);
    instant_memory_load_image(memory, path, 0, &error);
    g_assert_no_error(error);
    instant_check_assert(memory);
    return memory;
}

static void assert_lost(TestTool *tool)
{
    g_autofree char *said = NULL;

    g_assert_cmpint(test_tool_finish(tool, 60000, NULL, &said), ==, 1);
    g_assert_nonnull(strstr(said, "balloon"));
}

/* QEMU really has given it back. */
static void assert_given(Machine *machine)
{
    g_autofree guint8 *now = g_malloc(GIVEN_LENGTH);

    test_vm_read_memory(machine->vm, GIVEN, now, GIVEN_LENGTH);
    for (guint64 at = 0; at < GIVEN_LENGTH; at++) {
        g_assert_cmpuint(now[at], ==, 0);
    }
}

static const char *block_of(const Case *c)
{
    return c->backend ? "mem0" : "pc.ram";
}

static void run_after_t0(const Case *c)
{
    Machine machine;

    machine_start(&machine, c);
    TestTool *tool = start_slow(&machine, 8, c->faults);
    writer_guest_wait_for_instant(machine.vm);
    c->give(machine.balloon, GIVEN, GIVEN_LENGTH);
    /* A private huge page that is read again afterwards looks as if it had never gone. */
    if (!c->hugepages_mib) {
        assert_given(&machine);
        fill(&machine, GIVEN, MIB, 'c');
    }
    if (c->lost) {
        assert_lost(tool);
    } else {
        g_autoptr(InstantMemory) memory = finish_and_load(&machine, tool, block_of(c));
        g_assert_cmpuint(instant_memory_count(memory, SPARE, SPARE_LENGTH, 'b'), ==,
                         SPARE_LENGTH / PAGE);
    }
    writer_guest_assert_goes_on(machine.vm);
    machine_end(&machine);
}

static void test_after_t0(gconstpointer data)
{
    const Case *c = data;
    TestReaper *hugepages = NULL;

    if ((c->faults && !test_need_faults()) ||
        (c->hugepages_mib && !test_hugepages_reserve(c->hugepages_mib, &hugepages))) {
        return;
    }
    run_after_t0(c);
    test_reaper_finish(hugepages);
}

/* Before T0 it is a change like any other, and what is written into it after T0 is caught. */
static void test_before_t0(void)
{
    static const Case c = { .small_pages = TRUE };
    Machine machine;

    if (!test_need_faults()) {
        return;
    }
    machine_start(&machine, &c);
    TestTool *tool = start_slow(&machine, 8, "long-arm");
    g_usleep(1000000);
    balloon_inflate(machine.balloon, GIVEN, GIVEN_LENGTH);
    fill(&machine, GIVEN, MIB, 'c');
    g_usleep(1800000);
    fill(&machine, GIVEN, GIVEN_LENGTH, 'd');
    g_autoptr(InstantMemory) memory = finish_and_load(&machine, tool, "pc.ram");
    g_assert_cmpuint(instant_memory_count(memory, GIVEN, GIVEN_LENGTH, 'd'), ==, 0);
    g_assert_cmpuint(instant_memory_count(memory, GIVEN, MIB, 'c'), ==, MIB / PAGE);
    g_assert_cmpuint(instant_memory_count(memory, GIVEN + MIB, GIVEN_LENGTH - MIB, 0), ==,
                     (GIVEN_LENGTH - MIB) / PAGE);
    g_assert_cmpuint(instant_memory_count(memory, SPARE, SPARE_LENGTH, 'b'), ==,
                     (SPARE_LENGTH - GIVEN_LENGTH) / PAGE);
    writer_guest_assert_goes_on(machine.vm);
    machine_end(&machine);
}

/* In a region that has been saved it does no harm, whatever is seen of it. */
static void test_after_the_region_was_saved(void)
{
    static const Case c = { .small_pages = TRUE };
    const guint64 low = 8 * MIB;
    Machine machine;

    if (!test_need_faults()) {
        return;
    }
    machine_start(&machine, &c);
    fill(&machine, low, GIVEN_LENGTH, 'b');
    /* The guest's 48 MiB are swept first, then the regions in their order. */
    TestTool *tool = start_slow(&machine, 55, "discard-unseen");
    g_usleep(2000000);
    balloon_inflate(machine.balloon, low, GIVEN_LENGTH);
    fill(&machine, low, GIVEN_LENGTH, 'c');
    g_autoptr(InstantMemory) memory = finish_and_load(&machine, tool, "pc.ram");
    g_assert_cmpuint(instant_memory_count(memory, low, GIVEN_LENGTH, 'b'), ==, GIVEN_LENGTH / PAGE);
    writer_guest_assert_goes_on(machine.vm);
    machine_end(&machine);
}

/* ---- virtio-mem ---- */

#define MEM_LENGTH (64 * MIB)

typedef struct MemCase {
    const char *name;
    const char *backend;
    gboolean lost;
} MemCase;

static const MemCase mem_cases[] = {
    { "virtio-mem/anonymous", "memory-backend-ram,id=vm0,size=64M", FALSE },
    { "virtio-mem/memfd-shared", "memory-backend-memfd,id=vm0,size=64M,share=on", TRUE },
};

static void mem_machine_start(Machine *machine, const char *backend)
{
    machine->dir = test_dir_new();
    g_autofree char *qtest = qtest_socket_argument(machine->dir);

    /* "-m" once more: the last one counts. */
    machine->vm = writer_guest_start("-m", "96,maxmem=1G", "-qtest", qtest, "-qtest-log", "none",
                                     "-object", backend, "-device",
                                     "virtio-mem-pci,memdev=vm0,requested-size=64M", NULL);
    machine->qtest = qtest_socket_open(machine->dir);
    machine->balloon = virtio_device_open(machine->qtest, VIRTIO_ID_MEM, 0, 1, RINGS);
}

/* Plugs the second half and unplugs a part of the first while the snapshot is taken. */
static void test_virtio_mem(gconstpointer data)
{
    const MemCase *c = data;
    const guint64 half = MEM_LENGTH / 2;
    Machine machine = { NULL };

    mem_machine_start(&machine, c->backend);
    guint64 at = virtio_mem_address(machine.balloon);
    g_assert_cmpuint(virtio_mem_change(machine.balloon, TRUE, 0, half), ==, 0);
    fill(&machine, at, half, 'b');
    TestTool *tool = start_slow(&machine, 8, NULL);
    writer_guest_wait_for_instant(machine.vm);
    g_assert_cmpuint(virtio_mem_change(machine.balloon, TRUE, half, half), ==, 0);
    fill(&machine, at + half, half / 2, 'c');
    test_vm_qmp_void(machine.vm, "qom-set",
                     "{'path': '/machine/peripheral-anon/device[0]', 'property': 'requested-size', "
                     "'value': %" G_GUINT64_FORMAT "}",
                     half);
    g_assert_cmpuint(virtio_mem_change(machine.balloon, FALSE, half / 2, half / 2), ==, 0);
    if (c->lost) {
        assert_lost(tool);
    } else {
        g_autoptr(InstantMemory) memory = finish_and_load(&machine, tool, "pc.ram");
        g_autoptr(InstantMemory) plugged = instant_memory_new();
        g_autofree char *path = test_dir_file(machine.dir, "image");
        instant_memory_map(plugged, at, MEM_LENGTH, "vm0", 0);
        instant_memory_load_image(plugged, path, 0, NULL);
        g_assert_cmpuint(instant_memory_count(plugged, at, half, 'b'), ==, half / PAGE);
        g_assert_cmpuint(instant_memory_count(plugged, at + half, half, 0), ==, half / PAGE);
    }
    writer_guest_assert_goes_on(machine.vm);
    machine_end(&machine);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *path = g_strdup_printf("/discard/%s", cases[i].name);
        g_test_add_data_func(path, &cases[i], test_after_t0);
    }
    for (guint i = 0; i < G_N_ELEMENTS(mem_cases); i++) {
        g_autofree char *path = g_strdup_printf("/discard/%s", mem_cases[i].name);
        g_test_add_data_func(path, &mem_cases[i], test_virtio_mem);
    }
    g_test_add_func("/discard/before-t0", test_before_t0);
    g_test_add_func("/discard/after-the-region-was-saved", test_after_the_region_was_saved);
    return g_test_run();
}
