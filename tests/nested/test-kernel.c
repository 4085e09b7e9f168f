/*
 * What is particular to the kernel and the KVM of the nested rig: its missing features are really
 * missing and what replaces them is used; and in all that ran before, no KVM_RUN returned EFAULT,
 * which ends a VM with "kvm run failed Bad address". So this program is run last.
 *
 * For the nested rig, tests/nested/run-nested, which has the kernel trace such ends.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "attach/userfaultfd.h"
#include "kernel-version.h"
#include "pagemap-scan.h"
#include "tests/process.h"
#include "tests/qtest/writer-guest.h"
#include "userfaultfd-compat.h"
#include "util/autofd.h"

#define MIB (1024 * 1024ULL)
#define TRACE "/sys/kernel/tracing/trace"
#define EVENT "kvm_userspace_exit"

/* Of 6.1: memory on files can be protected, holes of anonymous memory cannot. */
static void test_features_are_missing(void)
{
    g_autoptr(GError) error = NULL;
    guint64 features = 0;

    if (!test_need_kernel_before_6_4()) {
        return;
    }
    g_assert_true(userfaultfd_query_features(&features, &error));
    g_assert_no_error(error);
    g_assert_cmphex(features & UFFD_FEATURE_WP_HUGETLBFS_SHMEM, !=, 0);
    g_assert_cmphex(features & (UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC), ==, 0);

    sf_autofd pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    struct pm_scan_arg scan = { .size = sizeof(scan) };
    g_assert_no_errno(pagemap);
    g_assert_cmpint(ioctl(pagemap, PAGEMAP_SCAN, &scan), ==, -1);
    g_assert_cmpint(errno, ==, ENOTTY);
}

/* Most of the memory was never written: it is read, stays as small as it was, and comes as zeros.
 */
static void test_holes_are_read(void)
{
    if (!test_need_kernel_before_6_4()) {
        return;
    }
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *image = test_dir_file(dir, "image");
    g_autoptr(InstantMemory) memory = instant_memory_new();
    g_autofree char *report = NULL, *said = NULL;
    g_autoptr(TestVm) vm = test_vm_start(
        TEST_VM_NO_ACCEL, "-accel", "kvm", "-machine", "q35,memory-backend=mem0", "-m", "192",
        "-object", "memory-backend-ram,id=mem0,size=192M", "-kernel", test_guest_path(), "-append",
        "ranges=0x1000000+0x400000,0x8000000+0x400000", NULL);

    test_vm_serial_wait(vm, "VV", WRITER_TIMEOUT_MS);
    g_autofree char *before = read_status(test_vm_get_pid(vm), "RssAnon");
    int status = test_tool_run(&report, &said, "snapshot", "--no-sync", "--json", "--qmp",
                               test_vm_get_socket(vm), image, NULL);
    g_autofree char *after = read_status(test_vm_get_pid(vm), "RssAnon");
    g_assert_cmpstr(said, ==, "");
    g_assert_cmpint(status, ==, 0);
    g_assert_nonnull(strstr(report, "\"holes-by\" : \"reading\""));

    instant_memory_map(memory, 0, 192 * MIB, "mem0", 0);
    instant_check_image(memory, image);
    writer_guest_assert_goes_on(vm);
    g_assert_cmpuint(g_ascii_strtoull(after, NULL, 10), <,
                     g_ascii_strtoull(before, NULL, 10) + 64 * 1024);
}

/* ---- KVM_RUN and EFAULT ---- */

/* A vCPU that is about to fetch an instruction from address 0, in real mode. */
static int make_vcpu(int machine)
{
    struct kvm_sregs sregs;
    struct kvm_regs regs = { .rflags = 2 };
    int vcpu = ioctl(machine, KVM_CREATE_VCPU, 0);

    g_assert_no_errno(vcpu);
    g_assert_no_errno(ioctl(vcpu, KVM_GET_SREGS, &sregs));
    sregs.cs.base = sregs.cs.selector = 0;
    g_assert_no_errno(ioctl(vcpu, KVM_SET_SREGS, &sregs));
    g_assert_no_errno(ioctl(vcpu, KVM_SET_REGS, &regs));
    return vcpu;
}

/* Runs a vCPU in memory that was unmapped behind KVM's back: the very error that is looked for. */
static void provoke_efault(void)
{
    const gsize size = 64 * 1024;
    sf_autofd kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    g_assert_no_errno(kvm);
    g_assert_true(memory != MAP_FAILED);
    sf_autofd machine = ioctl(kvm, KVM_CREATE_VM, 0);
    g_assert_no_errno(machine);
    struct kvm_userspace_memory_region region = { .memory_size = size,
                                                  .userspace_addr = GPOINTER_TO_SIZE(memory) };
    g_assert_no_errno(ioctl(machine, KVM_SET_USER_MEMORY_REGION, &region));
    sf_autofd vcpu = make_vcpu(machine);
    g_assert_no_errno(munmap(memory, size));
    g_assert_cmpint(ioctl(vcpu, KVM_RUN, 0), ==, -1);
    g_assert_cmpint(errno, ==, EFAULT);
}

static guint count_efaults(void)
{
    g_autofree char *text = NULL;
    guint count = 0;

    g_assert_true(g_file_get_contents(TRACE, &text, NULL, NULL));
    for (const char *at = text; (at = strstr(at, EVENT ":")); at++) {
        count++;
    }
    if (count) {
        g_test_message("%s", text);
    }
    return count;
}

static void test_no_efault(void)
{
    g_assert_cmpuint(count_efaults(), ==, 0);
    provoke_efault();
    g_assert_cmpuint(count_efaults(), ==, 1);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/kernel/features-are-missing", test_features_are_missing);
    g_test_add_func("/kernel/holes-are-read", test_holes_are_read);
    g_test_add_func("/kernel/no-run-ended-in-efault", test_no_efault);
    return g_test_run();
}
