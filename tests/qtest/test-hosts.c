/*
 * Hosts and managers that do strange things in the middle of a snapshot: KSM, swapping, a QEMU that
 * forks, a VM that is reset, powered off, plugged or unplugged. The image is one instant, or there
 * is none.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "attach/ksm.h"
#include "tests/process.h"
#include "util/autofd.h"
#include "virtio-driver.h"
#include "writer-guest.h"

#define MIB (1024 * 1024ULL)
#define PAGE 4096ULL
/* Guest memory that the writer guest leaves alone. */
#define SPARE (70 * MIB)
#define SPARE_LENGTH (8 * MIB)

typedef struct Host {
    TestVm *vm;
    TestDir *dir;
    QtestSocket *qtest;
} Host;

static void fill(Host *host, char byte)
{
    qtest_command(host->qtest, "memset 0x%" G_GINT64_MODIFIER "x 0x%" G_GINT64_MODIFIER "x 0x%x",
                  (guint64)SPARE, (guint64)SPARE_LENGTH, byte);
}

/* A writer guest of small anonymous pages, 8 MiB of them filled with 'b'. */
static void host_start(Host *host, const char *option, const char *value)
{
    host->dir = test_dir_new();
    g_autofree char *qtest = qtest_socket_argument(host->dir);

    g_assert_no_errno(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
    host->vm = writer_guest_start("-qtest", qtest, "-qtest-log", "none", option, value, NULL);
    g_assert_no_errno(prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0));
    host->qtest = qtest_socket_open(host->dir);
    fill(host, 'b');
}

static void host_end(Host *host)
{
    qtest_socket_free(host->qtest);
    test_vm_free(host->vm);
    test_dir_free(host->dir);
}

static TestTool *start_slow(Host *host, const char *faults)
{
    g_autofree char *path = test_dir_file(host->dir, "image");
    TestTool *tool = writer_guest_start_slow(host->vm, path, 8, faults);

    if (faults && g_str_equal(faults, "long-arm")) {
        g_usleep(1000000); /* what is armed in the meantime is armed for another second */
    } else {
        writer_guest_wait_for_instant(host->vm);
    }
    return tool;
}

/* The image is whole, one instant, and has what lay in the spare pages before it. */
static void assert_exact(Host *host, TestTool *tool)
{
    g_autofree char *path = test_dir_file(host->dir, "image");
    g_autofree char *said = NULL;

    int status = test_tool_finish(tool, 60000, NULL, &said);
    g_assert_cmpstr(said, ==, "");
    g_assert_cmpint(status, ==, 0);
    writer_guest_check_image(path, 0);
    g_autoptr(InstantMemory) memory = writer_guest_load_image(path, 0);
    g_assert_cmpuint(instant_memory_count(memory, SPARE, SPARE_LENGTH, 'b'), ==,
                     SPARE_LENGTH / PAGE);
}

static void assert_fails(TestTool *tool, const char *because)
{
    g_autofree char *said = NULL;

    g_assert_cmpint(test_tool_finish(tool, 60000, NULL, &said), ==, 1);
    if (!strstr(said, because)) {
        g_error("stillframe should have said \"%s\"; it said: %s", because, said);
    }
}

/* ---- KSM ---- */

#define KSM "/sys/kernel/mm/ksm/"

typedef struct KsmSettings {
    guint64 run, pages_to_scan, sleep_millisecs;
} KsmSettings;

static guint64 read_number(const char *path)
{
    g_autofree char *text = NULL;

    return g_file_get_contents(path, &text, NULL, NULL) ? g_ascii_strtoull(text, NULL, 10) : 0;
}

static gboolean write_number(const char *path, guint64 number)
{
    g_autofree char *text = g_strdup_printf("%" G_GUINT64_FORMAT "\n", number);
    sf_autofd fd = open(path, O_WRONLY | O_CLOEXEC);

    return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

static void restore_ksm(gpointer data)
{
    const KsmSettings *settings = data;

    write_number(KSM "pages_to_scan", settings->pages_to_scan);
    write_number(KSM "sleep_millisecs", settings->sleep_millisecs);
    write_number(KSM "run", settings->run);
}

/* Switches KSM on, and fast. FALSE, after g_test_skip(), where that cannot be. */
static gboolean start_ksm(TestReaper **reaper)
{
    KsmSettings settings = { .run = read_number(KSM "run"),
                             .pages_to_scan = read_number(KSM "pages_to_scan"),
                             .sleep_millisecs = read_number(KSM "sleep_millisecs") };

    if (access(KSM "run", W_OK) < 0) {
        g_test_skip("this kernel has no KSM, or it may not be switched on");
        return FALSE;
    }
    *reaper = test_reaper_start(restore_ksm, &settings);
    g_assert_true(write_number(KSM "pages_to_scan", 20000));
    g_assert_true(write_number(KSM "sleep_millisecs", 5));
    g_assert_true(write_number(KSM "run", 1));
    return TRUE;
}

/* What is merged loses its protection: KSM is held off, and set back. */
static void test_ksm(void)
{
    TestReaper *reaper = NULL;
    Host host;

    if (!start_ksm(&reaper)) {
        return;
    }
    host_start(&host, "-machine", "mem-merge=on");
    TestTool *tool = start_slow(&host, NULL);
    g_assert_cmpuint(read_number(KSM "run"), ==, 0);
    fill(&host, 'c');
    assert_exact(&host, tool);
    g_assert_cmpuint(read_number(KSM "run"), ==, 1);
    writer_guest_assert_goes_on(host.vm);
    host_end(&host);
    test_reaper_finish(reaper);
}

/* The engine killed: it is set back all the same. */
static void test_ksm_killed(void)
{
    TestReaper *reaper = NULL;
    Host host;

    if (!start_ksm(&reaper)) {
        return;
    }
    host_start(&host, "-machine", "mem-merge=on");
    TestTool *tool = start_slow(&host, NULL);
    g_assert_cmpuint(read_number(KSM "run"), ==, 0);
    kill(test_tool_get_pid(tool), SIGKILL);
    g_assert_cmpint(test_tool_finish(tool, 60000, NULL, NULL), ==, 128 + SIGKILL);
    for (guint i = 0; i < 5000 && read_number(KSM "run") == 0; i++) {
        g_usleep(1000);
    }
    g_assert_cmpuint(read_number(KSM "run"), ==, 1);
    writer_guest_assert_goes_on(host.vm);
    host_end(&host);
    test_reaper_finish(reaper);
}

/* Somebody switches it on again: the snapshot notices. And the control of the test above. */
static void test_ksm_not_held(void)
{
    TestReaper *reaper = NULL;
    Host host;

    if (!test_need_faults() || !start_ksm(&reaper)) {
        return;
    }
    host_start(&host, "-machine", "mem-merge=on");
    TestTool *tool = start_slow(&host, "ksm-not-held");
    fill(&host, 'c');
    assert_fails(tool, "KSM");
    writer_guest_assert_goes_on(host.vm);
    host_end(&host);
    test_reaper_finish(reaper);
}

/* Memory that may not be merged does not care, and KSM goes on for the others. */
static void test_ksm_no_merge(void)
{
    TestReaper *reaper = NULL;
    Host host;

    if (!start_ksm(&reaper)) {
        return;
    }
    host_start(&host, "-machine", "mem-merge=off");
    g_autofree char *path = g_strdup_printf("/proc/%d/ksm_stat", (int)test_vm_get_pid(host.vm));
    g_autofree char *stat = NULL;
    if (g_file_get_contents(path, &stat, NULL, NULL) && strstr(stat, "ksm_mergeable: no")) {
        TestTool *tool = start_slow(&host, NULL);
        g_assert_cmpuint(read_number(KSM "run"), ==, 1);
        fill(&host, 'c');
        assert_exact(&host, tool);
    } else {
        g_test_skip("this kernel does not tell whether a process's memory may be merged");
    }
    host_end(&host);
    test_reaper_finish(reaper);
}

/* Several holds: the last one switches it on. One that was taken while it was off does nothing. */
static void test_ksm_holds(void)
{
    TestReaper *reaper = NULL;
    g_autoptr(GError) error = NULL;
    Host host;

    if (!start_ksm(&reaper)) {
        return;
    }
    host_start(&host, "-machine", "mem-merge=on");
    g_autoptr(KsmHold) first = ksm_hold_new(test_vm_get_pid(host.vm), &error);
    g_assert_no_error(error);
    g_autoptr(KsmHold) second = ksm_hold_new(test_vm_get_pid(host.vm), &error);
    g_assert_no_error(error);
    g_assert_cmpuint(read_number(KSM "run"), ==, 0);
    g_clear_pointer(&first, ksm_hold_free);
    g_assert_cmpuint(read_number(KSM "run"), ==, 0);
    g_assert_true(ksm_hold_check(second, &error));
    g_clear_pointer(&second, ksm_hold_free);
    g_assert_cmpuint(read_number(KSM "run"), ==, 1);

    g_assert_true(write_number(KSM "run", 0));
    g_autoptr(KsmHold) none = ksm_hold_new(test_vm_get_pid(host.vm), &error);
    g_assert_no_error(error);
    g_clear_pointer(&none, ksm_hold_free);
    g_assert_cmpuint(read_number(KSM "run"), ==, 0);
    host_end(&host);
    test_reaper_finish(reaper);
}

/* ---- Swapping ---- */

#define ZRAM_CONTROL "/sys/class/zram-control/"

static void remove_zram(gpointer data)
{
    guint64 id = *(guint64 *)data;
    g_autofree char *device = g_strdup_printf("/dev/zram%" G_GUINT64_FORMAT, id);
    g_autofree char *reset = g_strdup_printf("/sys/block/zram%" G_GUINT64_FORMAT "/reset", id);

    swapoff(device);
    write_number(reset, 1);
    write_number(ZRAM_CONTROL "hot_remove", id);
}

/* A zram device as swap space. FALSE, after g_test_skip(), where that cannot be. */
static gboolean start_swap(TestReaper **reaper)
{
    g_autofree char *added = NULL;

    if (!g_file_get_contents(ZRAM_CONTROL "hot_add", &added, NULL, NULL)) {
        g_test_skip("no zram device can be made here for swapping: no zram, or not root");
        return FALSE;
    }
    guint64 id = g_ascii_strtoull(added, NULL, 10);
    *reaper = test_reaper_start(remove_zram, &id);
    g_autofree char *size = g_strdup_printf("/sys/block/zram%" G_GUINT64_FORMAT "/disksize", id);
    g_autofree char *device = g_strdup_printf("/dev/zram%" G_GUINT64_FORMAT, id);
    g_autofree char *format = g_strdup_printf("PATH=$PATH:/sbin mkswap -q %s", device);
    for (guint i = 0; i < 1000 && access(device, F_OK) < 0; i++) {
        g_usleep(1000);
    }
    if (!write_number(size, 256 * MIB) || system(format) != 0 || swapon(device, 0) < 0) {
        test_reaper_finish(g_steal_pointer(reaper));
        g_test_skip("the zram device cannot be used for swapping");
        return FALSE;
    }
    return TRUE;
}

/* Pushes all of the guest's memory out. */
static void page_out(TestVm *vm)
{
    g_autofree char *answer = test_vm_hmp(vm, "gpa2hva 0");
    const char *is = strstr(answer, " is ");
    sf_autofd pidfd = (int)syscall(SYS_pidfd_open, test_vm_get_pid(vm), 0);

    g_assert_nonnull(is);
    struct iovec memory = { .iov_base = GSIZE_TO_POINTER(g_ascii_strtoull(is + 4, NULL, 16)),
                            .iov_len = 96 * MIB };
    long done = syscall(SYS_process_madvise, pidfd, &memory, 1, MADV_PAGEOUT, 0);
    g_assert_cmpint(done, ==, (gint64)memory.iov_len);
}

static guint64 read_swapped(TestVm *vm)
{
    g_autofree char *text = read_status(test_vm_get_pid(vm), "VmSwap");

    return g_ascii_strtoull(text, NULL, 10) / 1024;
}

/* Swapped out before it is armed, and once more after T0, protection and all. */
static void test_swap(gconstpointer faults)
{
    TestReaper *reaper = NULL;
    Host host;

    if ((faults && !test_need_faults()) || !start_swap(&reaper)) {
        return;
    }
    host_start(&host, NULL, NULL);
    page_out(host.vm);
    g_assert_cmpuint(read_swapped(host.vm), >=, SPARE_LENGTH / MIB / 2);
    TestTool *tool = start_slow(&host, faults);
    page_out(host.vm);
    g_assert_cmpuint(read_swapped(host.vm), >=, SPARE_LENGTH / MIB / 2);
    fill(&host, 'c');
    assert_exact(&host, tool);
    writer_guest_assert_goes_on(host.vm);
    host_end(&host);
    test_reaper_finish(reaper);
}

/* ---- A QEMU that forks ---- */

static void test_fork(void)
{
    Host host;

    if (access("/dev/net/tun", R_OK | W_OK) < 0) {
        g_test_skip("no network device can be made here: /dev/net/tun does not open");
        return;
    }
    host_start(&host, NULL, NULL);
    g_autofree char *script = test_dir_file(host.dir, "script");
    g_autofree char *mark = test_dir_file(host.dir, "mark");
    g_autofree char *text = g_strdup_printf("#!/bin/sh\ntouch '%s'\n", mark);
    g_assert_true(g_file_set_contents_full(script, text, -1, G_FILE_SET_CONTENTS_NONE, 0700, NULL));
    TestTool *tool = start_slow(&host, NULL);
    test_vm_qmp_void(host.vm, "netdev_add",
                     "{'type': 'tap', 'id': 'n0', 'ifname': 'sf-test%%d', 'script': '%s', "
                     "'downscript': 'no'}",
                     script);
    g_assert_cmpint(access(mark, F_OK), ==, 0);
    fill(&host, 'c');
    assert_exact(&host, tool);
    writer_guest_assert_goes_on(host.vm);
    host_end(&host);
}

/* A migration in the middle, through a program: a fork, dirty logging, and the VM's end here. */
static void test_migration(void)
{
    Host host;

    host_start(&host, NULL, NULL);
    TestTool *tool = start_slow(&host, NULL);
    fill(&host, 'c');
    test_vm_qmp_void(host.vm, "migrate-set-parameters", "{'downtime-limit': 20000}");
    test_vm_qmp_void(host.vm, "migrate", "{'uri': 'exec:cat > /dev/null'}");
    assert_exact(&host, tool);
    test_vm_assert_status(host.vm, "postmigrate");
    host_end(&host);
}

/* ---- Power ---- */

static void test_reset(void)
{
    Host host;

    host_start(&host, NULL, NULL);
    TestTool *tool = start_slow(&host, NULL);
    test_vm_qmp_void(host.vm, "system_reset", NULL);
    assert_exact(&host, tool);
    writer_guest_assert_goes_on(host.vm);
    host_end(&host);
}

/* What a guest does to power q35 off: SLP_EN with sleeping type 0 into PM1a_CNT. */
static void power_off(Host *host)
{
    g_autofree char *said = test_vm_hmp(host->vm, "o /w 0x604 0x2000");

    g_assert_cmpstr(said, ==, "");
}

static void test_power_off_stays(void)
{
    Host host;

    host_start(&host, "-action", "shutdown=pause");
    TestTool *tool = start_slow(&host, NULL);
    power_off(&host);
    test_vm_assert_status(host.vm, "shutdown");
    assert_exact(&host, tool);
    host_end(&host);
}

static void assert_no_image(Host *host, TestTool *tool)
{
    assert_fails(tool, "QEMU exited");
    g_assert_false(test_vm_is_alive(host->vm));
    host_end(host);
}

static void test_power_off(void)
{
    Host host;

    host_start(&host, NULL, NULL);
    TestTool *tool = start_slow(&host, NULL);
    power_off(&host);
    assert_no_image(&host, tool);
}

static void test_quit(void)
{
    Host host;

    host_start(&host, NULL, NULL);
    TestTool *tool = start_slow(&host, NULL);
    test_vm_qmp_void(host.vm, "quit", NULL);
    assert_no_image(&host, tool);
}

/* ---- Memory plugged and unplugged ---- */

#define DIMM_ADDRESS 0x100000000ULL
#define DIMM_LENGTH (128 * MIB)
/* The ports of q35's memory hot-plug (ACPI): which slot, and bit 3: eject it. */
#define HOTPLUG_SLOT 0xa00
#define HOTPLUG_FLAGS 0xa14
#define HOTPLUG_EJECT 8

static void plug_dimm(Host *host)
{
    g_autofree char *object =
        test_vm_hmp(host->vm, "object_add memory-backend-ram,id=dimm0-mem,size=128M");
    g_autofree char *device = test_vm_hmp(host->vm, "device_add pc-dimm,id=dimm0,memdev=dimm0-mem");

    g_assert_cmpstr(object, ==, "");
    g_assert_cmpstr(device, ==, "");
}

/* As a guest does that was asked to give it up. */
static void unplug_dimm(Host *host)
{
    qtest_command(host->qtest, "outl 0x%x 0", HOTPLUG_SLOT);
    qtest_command(host->qtest, "outb 0x%x 0x%x", HOTPLUG_FLAGS, HOTPLUG_EJECT);
    g_assert_nonnull(
        qmp_client_wait_event(test_vm_get_qmp(host->vm), "DEVICE_DELETED", 5000, NULL));
    g_autofree char *object = test_vm_hmp(host->vm, "object_del dimm0-mem");
    g_assert_cmpstr(object, ==, "");
}

static void test_plug(void)
{
    Host host;

    host_start(&host, "-m", "96,slots=2,maxmem=1G");
    TestTool *tool = start_slow(&host, NULL);
    plug_dimm(&host);
    fill(&host, 'c');
    assert_exact(&host, tool);
    writer_guest_assert_goes_on(host.vm);
    host_end(&host);
}

/* Before T0: the device state has a DIMM whose memory the image would not have. */
static void test_plug_before_t0(void)
{
    Host host;

    if (!test_need_faults()) {
        return;
    }
    host_start(&host, "-m", "96,slots=2,maxmem=1G");
    TestTool *tool = start_slow(&host, "long-arm");
    plug_dimm(&host);
    assert_fails(tool, "plugged");
    writer_guest_assert_goes_on(host.vm);
    host_end(&host);
}

/*
 * After the instant QEMU lets go of the memory when it likes: until then it is there to be saved,
 * as it was at the instant.
 */
static void assert_fails_or_has_dimm(Host *host, TestTool *tool)
{
    g_autofree char *path = test_dir_file(host->dir, "image");
    g_autofree char *said = NULL;

    if (test_tool_finish(tool, 60000, NULL, &said) != 0) {
        if (!strstr(said, "dimm0-mem")) {
            g_error("stillframe should have named dimm0-mem; it said: %s", said);
        }
        return;
    }
    writer_guest_check_image(path, 0);
    g_autoptr(InstantMemory) memory = instant_memory_new();
    g_autoptr(GError) error = NULL;
    instant_memory_map(memory, DIMM_ADDRESS, DIMM_LENGTH, "dimm0-mem", 0);
    instant_memory_load_image(memory, path, 0, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(instant_memory_count(memory, DIMM_ADDRESS, DIMM_LENGTH, 'd'), ==,
                     DIMM_LENGTH / PAGE);
}

static void test_unplug(gconstpointer faults)
{
    Host host;

    if (faults && !test_need_faults()) {
        return;
    }
    host_start(&host, "-m", "96,slots=2,maxmem=1G");
    plug_dimm(&host);
    qtest_command(host.qtest, "memset 0x%" G_GINT64_MODIFIER "x 0x%" G_GINT64_MODIFIER "x 0x%x",
                  (guint64)DIMM_ADDRESS, (guint64)DIMM_LENGTH, 'd');
    TestTool *tool = start_slow(&host, faults);
    unplug_dimm(&host);
    /* New memory where the old one was does not hide it. */
    plug_dimm(&host);
    if (faults) {
        assert_fails(tool, "dimm0-mem");
    } else {
        assert_fails_or_has_dimm(&host, tool);
    }
    writer_guest_assert_goes_on(host.vm);
    host_end(&host);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/hosts/ksm/held-off", test_ksm);
    g_test_add_func("/hosts/ksm/killed", test_ksm_killed);
    g_test_add_func("/hosts/ksm/not-held", test_ksm_not_held);
    g_test_add_func("/hosts/ksm/not-merged", test_ksm_no_merge);
    g_test_add_func("/hosts/ksm/holds", test_ksm_holds);
    g_test_add_data_func("/hosts/swap", NULL, test_swap);
    g_test_add_data_func("/hosts/swap-without-wp-unpopulated", "no-wp-unpopulated", test_swap);
    g_test_add_func("/hosts/fork", test_fork);
    g_test_add_func("/hosts/migration", test_migration);
    g_test_add_func("/hosts/reset", test_reset);
    g_test_add_func("/hosts/power-off", test_power_off);
    g_test_add_func("/hosts/power-off-stays", test_power_off_stays);
    g_test_add_func("/hosts/quit", test_quit);
    g_test_add_func("/hosts/plug", test_plug);
    g_test_add_func("/hosts/plug-before-t0", test_plug_before_t0);
    g_test_add_data_func("/hosts/unplug", NULL, test_unplug);
    g_test_add_data_func("/hosts/unplug-before-t0", "long-arm", test_unplug);
    return g_test_run();
}
