/*
 * Finding RAM blocks in a real QEMU: each must be found, and at the right place.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <sys/uio.h>

#include "attach/ram-host.h"
#include "real-qemu.h"

static const char *const many_blocks[] = {
    "-M",      "q35",
    "-m",      "64M,slots=4,maxmem=1G",
    "-smp",    "2",
    "-object", "memory-backend-memfd,id=ram0,size=32M,share=on",
    "-object", "memory-backend-ram,id=ram1,size=32M",
    "-numa",   "node,memdev=ram0,cpus=0",
    "-numa",   "node,memdev=ram1,cpus=1",
    "-device", "VGA",
    "-device", "e1000e",
    NULL
};

static void execute(QmpClient *client, const char *command, const char *arguments)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) node = json_from_string(arguments, &error);
    g_assert_no_error(error);
    g_autoptr(JsonNode) answer =
        qmp_client_execute(client, command, json_node_dup_object(node), &error);
    g_assert_no_error(error);
    g_assert_nonnull(answer);
}

static void plug_dimm(QmpClient *client)
{
    execute(client, "object-add",
            "{\"qom-type\": \"memory-backend-ram\", \"id\": \"mem2\", \"size\": 134217728}");
    execute(client, "device_add",
            "{\"driver\": \"pc-dimm\", \"id\": \"dimm2\", \"memdev\": \"mem2\"}");
}

static RamBlock *find_block(GPtrArray *blocks, const char *name)
{
    for (guint i = 0; i < blocks->len; i++) {
        RamBlock *block = blocks->pdata[i];
        if (!strcmp(block->name, name)) {
            return block;
        }
    }
    g_error("no block %s", name);
}

/* gpa2hva's answer, an independent witness. */
static guint64 ask_address(QmpClient *client, guint64 physical)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *line = g_strdup_printf("gpa2hva 0x%" G_GINT64_MODIFIER "x", physical);
    g_autofree char *text = qmp_client_hmp(client, line, &error);
    g_assert_no_error(error);
    const char *is = strstr(text, ") is 0x");
    g_assert_nonnull(is);
    return g_ascii_strtoull(is + strlen(") is "), NULL, 16);
}

static void check_no_overlap(GPtrArray *blocks)
{
    for (guint i = 0; i < blocks->len; i++) {
        const RamBlock *a = blocks->pdata[i];
        for (guint k = i + 1; k < blocks->len; k++) {
            const RamBlock *b = blocks->pdata[k];
            g_assert_true(a->host_address + a->max_length <= b->host_address ||
                          b->host_address + b->max_length <= a->host_address);
        }
    }
}

static void read_memory(pid_t pid, guint64 address, void *to, gsize length)
{
    struct iovec local = { .iov_base = to, .iov_len = length };
    struct iovec remote = { .iov_base = (void *)(guintptr)address, .iov_len = length };
    g_assert_cmpint(process_vm_readv(pid, &local, 1, &remote, 1, 0), ==, (gssize)length);
}

/* The firmware's block holds the firmware: its last 16 bytes are the reset vector's far jump. */
static void check_bios(pid_t pid, const RamBlock *bios)
{
    unsigned char head[16];
    read_memory(pid, bios->host_address + bios->used_length - sizeof(head), head, sizeof(head));
    g_assert_cmphex(head[0], ==, 0xea);
    g_assert_cmpmem(head + 1, 4, "\x5b\xe0\x00\xf0", 4);
}

/* ACPI's tables begin with "FACS"; it is the block whose used length differs from what is mapped.
 */
static void check_tables(pid_t pid, const RamBlock *tables)
{
    char head[4];
    g_assert_cmpuint(tables->used_length, <, tables->max_length);
    read_memory(pid, tables->host_address, head, sizeof(head));
    g_assert_cmpmem(head, 4, "FACS", 4);
}

/* An option ROM's block begins with its signature. */
static void check_rom(pid_t pid, const RamBlock *rom)
{
    unsigned char head[2];
    read_memory(pid, rom->host_address, head, sizeof(head));
    g_assert_cmpmem(head, 2, "\x55\xaa", 2);
}

static void test_every_block(void)
{
    if (!real_qemu_available()) {
        return;
    }
    RealQemu qemu;
    real_qemu_run(&qemu, many_blocks);
    g_autoptr(QmpClient) client = real_qemu_connect(&qemu);
    plug_dimm(client);

    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) blocks = machine_query_ram_blocks(client, &error);
    g_assert_no_error(error);
    g_autoptr(GPtrArray) maps = proc_read_maps(qemu.pid, &error);
    g_assert_no_error(error);
    /* A QEMU that tells the addresses is one more witness. */
    g_autofree guint64 *told = g_new0(guint64, blocks->len);
    for (guint i = 0; i < blocks->len; i++) {
        RamBlock *block = blocks->pdata[i];
        told[i] = block->host_address;
        block->host_address = 0;
    }
    g_assert_true(ram_host_locate(qemu.pid, client, blocks, maps, &error));
    g_assert_no_error(error);

    for (guint i = 0; i < blocks->len; i++) {
        const RamBlock *block = blocks->pdata[i];
        g_test_message("%s at 0x%" G_GINT64_MODIFIER "x", block->name, block->host_address);
        g_assert_cmphex(block->host_address, !=, 0);
        g_assert_true(told[i] == 0 || told[i] == block->host_address);
    }
    check_no_overlap(blocks);
    g_assert_cmphex(find_block(blocks, "ram0")->host_address, ==, ask_address(client, 0));
    g_assert_cmphex(find_block(blocks, "ram1")->host_address, ==, ask_address(client, 32 << 20));
    g_assert_cmphex(find_block(blocks, "mem2")->host_address, ==, ask_address(client, 0x100000000));
    check_bios(qemu.pid, find_block(blocks, "pc.bios"));
    check_tables(qemu.pid, find_block(blocks, "/rom@etc/acpi/tables"));
    check_rom(qemu.pid, find_block(blocks, "0000:00:01.0/vga.rom"));
    real_qemu_clear(&qemu);
}

/* A machine of 32 MiB, what its monitor tells of it, and its mappings. */
typedef struct SmallQemu {
    RealQemu qemu;
    QmpClient *client;
    GPtrArray *blocks;
    GPtrArray *maps;
} SmallQemu;

static void small_qemu_run(SmallQemu *small)
{
    const char *args[] = { "-m", "32M", NULL };
    g_autoptr(GError) error = NULL;

    real_qemu_run(&small->qemu, args);
    small->client = real_qemu_connect(&small->qemu);
    small->blocks = machine_query_ram_blocks(small->client, &error);
    g_assert_no_error(error);
    small->maps = proc_read_maps(small->qemu.pid, &error);
    g_assert_no_error(error);
}

static gboolean small_qemu_locate(SmallQemu *small, GError **errp)
{
    return ram_host_locate(small->qemu.pid, small->client, small->blocks, small->maps, errp);
}

static void small_qemu_clear(SmallQemu *small)
{
    g_ptr_array_unref(small->blocks);
    g_ptr_array_unref(small->maps);
    qmp_client_free(small->client);
    real_qemu_clear(&small->qemu);
}

/* A block that QEMU does not have stays unknown, and a wrong length is not taken for the block. */
static void test_unknown_stays_unknown(void)
{
    if (!real_qemu_available()) {
        return;
    }
    SmallQemu small;
    small_qemu_run(&small);
    g_autoptr(GError) error = NULL;
    RamBlock *renamed = find_block(small.blocks, "pc.rom");
    renamed->host_address = 0;
    renamed->name[0] = 'q';
    RamBlock *resized = find_block(small.blocks, "pc.bios");
    resized->host_address = 0;
    resized->max_length += 4096;
    g_assert_true(small_qemu_locate(&small, &error));
    g_assert_no_error(error);
    g_assert_cmphex(renamed->host_address, ==, 0);
    g_assert_cmphex(resized->host_address, ==, 0);
    g_assert_cmphex(find_block(small.blocks, "pc.ram")->host_address, ==,
                    ask_address(small.client, 0));
    small_qemu_clear(&small);
}

static void test_contradiction_is_an_error(void)
{
    if (!real_qemu_available()) {
        return;
    }
    SmallQemu small;
    small_qemu_run(&small);
    g_autoptr(GError) error = NULL;
    find_block(small.blocks, "pc.ram")->host_address = 0x1000;
    g_assert_false(small_qemu_locate(&small, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_UNSUPPORTED);
    small_qemu_clear(&small);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/ram-host/every-block", test_every_block);
    g_test_add_func("/ram-host/unknown-stays-unknown", test_unknown_stays_unknown);
    g_test_add_func("/ram-host/contradiction-is-an-error", test_contradiction_is_an_error);
    return g_test_run();
}
