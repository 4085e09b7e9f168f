/*
 * A VM that has a real device handed over by VFIO writes memory where no userfaultfd sees it: it
 * is refused, with the device's name, before anything is touched. The device is QEMU's "edu" of
 * the machine around this one, behind its IOMMU.
 *
 * For the nested rig, tests/nested/run-nested.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <string.h>

#include "tests/qtest/writer-guest.h"

#define PCI_DEVICES "/sys/bus/pci/devices"
#define EDU_ID "0x11e8"

static char *read_attribute(const char *device, const char *name)
{
    g_autofree char *path = g_build_filename(PCI_DEVICES, device, name, NULL);
    char *text = NULL;

    return g_file_get_contents(path, &text, NULL, NULL) ? g_strstrip(text) : g_strdup("");
}

static void write_attribute(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");

    g_assert_nonnull(file);
    g_assert_cmpint(fputs(text, file), >=, 0);
    g_assert_cmpint(fclose(file), ==, 0);
}

/* The address of the device that may be handed over; NULL where there is none. */
static char *find_device(void)
{
    g_autoptr(GDir) dir = g_dir_open(PCI_DEVICES, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *id = read_attribute(name, "device");

        if (g_str_equal(id, EDU_ID)) {
            return g_strdup(name);
        }
    }
    return NULL;
}

/* Gives the device to vfio-pci; FALSE, after g_test_skip(), where it has no IOMMU. */
static gboolean hand_over(const char *device)
{
    g_autofree char *group = g_build_filename(PCI_DEVICES, device, "iommu_group", NULL);
    g_autofree char *driver = g_build_filename(PCI_DEVICES, device, "driver_override", NULL);
    g_autofree char *bound = g_build_filename("/sys/bus/pci/drivers/vfio-pci", device, NULL);

    if (!g_file_test(group, G_FILE_TEST_EXISTS)) {
        g_test_skip("the device is in no IOMMU group");
        return FALSE;
    }
    write_attribute(driver, "vfio-pci");
    write_attribute("/sys/bus/pci/drivers_probe", device);
    g_assert_true(g_file_test(bound, G_FILE_TEST_EXISTS));
    return TRUE;
}

static void test_refused_by_name(void)
{
    g_autofree char *device = find_device();

    if (!device) {
        g_test_skip("no edu device here");
        return;
    }
    if (!hand_over(device)) {
        return;
    }
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *image = test_dir_file(dir, "image");
    g_autofree char *option = g_strdup_printf("vfio-pci,host=%s,id=handed-over", device);
    g_autofree char *said = NULL, *listed = NULL;
    g_autoptr(TestVm) vm = test_vm_start(TEST_VM_NO_ACCEL, "-accel", "kvm", "-machine", "q35", "-m",
                                         "96", "-device", option, "-kernel", test_guest_path(),
                                         "-append", "ranges=0x1000000+0x800000", NULL);

    test_vm_serial_wait(vm, "VV", WRITER_TIMEOUT_MS);
    int status =
        test_tool_run(NULL, &said, "snapshot", "--qmp", test_vm_get_socket(vm), image, NULL);
    g_test_message("%s", said);
    g_assert_cmpint(status, ==, 1);
    g_assert_nonnull(strstr(said, "handed-over"));
    g_assert_nonnull(strstr(said, "vfio-pci"));
    test_dir_assert_holds(dir, NULL);

    g_assert_cmpint(test_tool_run(&listed, NULL, "list", "--json", NULL), ==, 0);
    g_assert_nonnull(strstr(listed, "handed-over"));
    test_vm_assert_status(vm, "running");
    writer_guest_assert_goes_on(vm);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vfio/refused-by-name", test_refused_by_name);
    return g_test_run();
}
