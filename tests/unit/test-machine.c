/*
 * Typed questions to a real QEMU, and the two judges of untrappable writers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "monitor/machine.h"
#include "real-qemu.h"

static void test_device_types(void)
{
    static const char *const untrappable[] = {
        "vfio-pci",
        "vfio-pci-nohotplug",
        "vfio-ap",
        "vfio-ccw",
        "vfio-user-pci",
        "vhost-user-blk-pci",
        "vhost-user-blk",
        "vhost-user-fs-pci",
        "vhost-user-vga",
        "vhost-user-gpu-pci",
        "vhost-user-scsi-pci-non-transitional",
        "vhost-vdpa-device-pci",
    };
    static const char *const trappable[] = {
        "virtio-blk-pci", "vhost-vsock-pci", "vhost-scsi-pci", "e1000e", "VGA",  "pc-dimm",
        "memory-region",  "ivshmem-plain",   "my-vfio-pci",    "",       "nvme",
    };
    for (guint i = 0; i < G_N_ELEMENTS(untrappable); i++) {
        g_test_message("%s", untrappable[i]);
        g_assert_true(machine_device_type_is_untrappable(untrappable[i]));
    }
    for (guint i = 0; i < G_N_ELEMENTS(trappable); i++) {
        g_test_message("%s", trappable[i]);
        g_assert_false(machine_device_type_is_untrappable(trappable[i]));
    }
}

static void test_netdev_lines(void)
{
    static const char *const untrappable[] = {
        " \\ net0: index=0,type=vhost-user,vhost-user0 to chr0\r",
        "hub: index=0,type=vhost-vdpa,vhost-vdpa0",
        "n: index=1,type=vhost-vdpa",
    };
    static const char *const trappable[] = {
        "e1000e.0: index=0,type=nic,model=e1000e,macaddr=52:54:00:12:34:56",
        " \\ n0: index=0,type=user,net=10.0.2.0,restrict=off",
        " \\ n0: index=0,type=tap,ifname=type=vhost-user,script=no",
        "n: index=0,type=vhost-user-not",
        "type=vhost-user",
        "",
    };
    for (guint i = 0; i < G_N_ELEMENTS(untrappable); i++) {
        g_test_message("%s", untrappable[i]);
        g_assert_true(machine_netdev_line_is_untrappable(untrappable[i]));
    }
    for (guint i = 0; i < G_N_ELEMENTS(trappable); i++) {
        g_test_message("%s", trappable[i]);
        g_assert_false(machine_netdev_line_is_untrappable(trappable[i]));
    }
}

static void test_real_machine(void)
{
    if (!real_qemu_available()) {
        return;
    }
    RealQemu qemu;
    const char *arguments[] = { "-M", "pc-q35-6.2", "-m", "48M", "-device", "VGA", NULL };
    real_qemu_run(&qemu, arguments);
    g_autoptr(GError) error = NULL;
    g_autoptr(QmpClient) client = real_qemu_connect(&qemu);

    g_autofree char *type = machine_query_type(client, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(type, ==, "pc-q35-6.2");
    g_autofree char *target = machine_query_target(client, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(target, ==, "x86_64");

    gboolean running = TRUE;
    g_autofree char *before = machine_query_status(client, &running, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(before, ==, "prelaunch");
    g_assert_false(running);
    g_autoptr(JsonNode) cont = qmp_client_execute(client, "cont", NULL, &error);
    g_assert_nonnull(cont);
    g_autofree char *after = machine_query_status(client, &running, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(after, ==, "running");
    g_assert_true(running);

    g_autoptr(GPtrArray) blocks = machine_query_ram_blocks(client, &error);
    g_assert_no_error(error);
    guint found = 0;
    for (guint i = 0; i < blocks->len; i++) {
        const RamBlock *block = blocks->pdata[i];
        if (!strcmp(block->name, "pc.ram")) {
            g_assert_cmpuint(block->used_length, ==, 48 << 20);
            g_assert_cmpuint(block->page_size, ==, 4096);
            found++;
        } else if (!strcmp(block->name, "0000:00:01.0/vga.vram")) {
            g_assert_cmpuint(block->used_length, ==, 16 << 20);
            found++;
        }
    }
    g_assert_cmpuint(found, ==, 2);
    real_qemu_clear(&qemu);
}

static void test_real_no_ram(void)
{
    if (!real_qemu_available()) {
        return;
    }
    RealQemu qemu;
    const char *arguments[] = { "-M", "none", NULL };
    real_qemu_run(&qemu, arguments);
    g_autoptr(GError) error = NULL;
    g_autoptr(QmpClient) client = real_qemu_connect(&qemu);
    g_assert_null(machine_query_ram_blocks(client, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_UNSUPPORTED);
    real_qemu_clear(&qemu);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/machine/device-types", test_device_types);
    g_test_add_func("/machine/netdev-lines", test_netdev_lines);
    g_test_add_func("/machine/real/machine", test_real_machine);
    g_test_add_func("/machine/real/no-ram", test_real_no_ram);
    return g_test_run();
}
