/*
 * The parser of "info ramblock", on the text of real QEMUs and on text that is broken.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "monitor/machine.h"

#define OLD_HEADER                                                                                 \
    "              Block Name    PSize              Offset               Used              Total\r\n"
#define NEW_HEADER                                                                                 \
    "              Block Name    PSize              Offset               Used              Total " \
    "               HVA  RO\n"

/* As 7.2 prints it, with huge pages behind one block and a block that does not migrate. */
static const char old_text[] = OLD_HEADER
    "                    ram0    2 MiB  0x0000000000000000 0x0000000008000000 0x0000000008000000\r\n"
    "    /rom@etc/acpi/tables    4 KiB  0x00000000110c0000 0x0000000000020000 0x0000000000200000\r\n"
    "                            4 KiB  0x00000000213c0000 0x0000000000001000 0x0000000000001000\r\n"
    "a name with 3 words 4 KiB    1 GiB  0x0000000040000000 0x0000000080000000 0x0000000080000000\r\n";

static const char new_text[] = NEW_HEADER
    "                  pc.ram    4 KiB  0x0000000000000000 0x0000000004000000 0x0000000004000000 "
    "0x00007fa393e00000  rw\n"
    "                 pc.bios    4 KiB  0x0000000004000000 0x0000000000040000 0x0000000000040000 "
    "0x00007fa3dc600000  ro\n";

static void assert_block(const RamBlock *block, const char *name, guint64 page_size, guint64 offset,
                         guint64 used, guint64 max, guint64 address, gboolean read_only)
{
    g_assert_cmpstr(block->name, ==, name);
    g_assert_cmphex(block->page_size, ==, page_size);
    g_assert_cmphex(block->offset, ==, offset);
    g_assert_cmphex(block->used_length, ==, used);
    g_assert_cmphex(block->max_length, ==, max);
    g_assert_cmphex(block->host_address, ==, address);
    g_assert_cmpint(block->read_only, ==, read_only);
}

static void test_old(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) blocks = ram_blocks_parse(old_text, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(blocks->len, ==, 3);
    assert_block(blocks->pdata[0], "ram0", 2 << 20, 0, 128 << 20, 128 << 20, 0, FALSE);
    assert_block(blocks->pdata[1], "/rom@etc/acpi/tables", 4096, 0x110c0000, 0x20000, 0x200000, 0,
                 FALSE);
    assert_block(blocks->pdata[2], "a name with 3 words 4 KiB", 1 << 30, 0x40000000, 0x80000000,
                 0x80000000, 0, FALSE);
}

static void test_new(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) blocks = ram_blocks_parse(new_text, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(blocks->len, ==, 2);
    assert_block(blocks->pdata[0], "pc.ram", 4096, 0, 64 << 20, 64 << 20, 0x7fa393e00000, FALSE);
    assert_block(blocks->pdata[1], "pc.bios", 4096, 64 << 20, 0x40000, 0x40000, 0x7fa3dc600000,
                 TRUE);
}

static void test_broken(void)
{
    static const char *const cases[] = {
        "",
        "unknown command: 'info ramblock'\r\n",
        /* a column is missing */
        OLD_HEADER "pc.ram 4 KiB 0x0 0x1000\n",
        NEW_HEADER "pc.ram 4 KiB 0x0 0x1000 0x1000\n",
        NEW_HEADER "pc.ram 4 KiB 0x0 0x1000 0x1000 0x7000 xx\n",
        /* numbers */
        OLD_HEADER "pc.ram 4 KiB 0x0 0x1000 1000\n",
        OLD_HEADER "pc.ram 4 KiB 0x0 0x1000 0x\n",
        OLD_HEADER "pc.ram 4 KiB 0x0 0x1000 0x10000000000001000\n",
        OLD_HEADER "pc.ram 4 KiB -0x1 0x1000 0x1000\n",
        OLD_HEADER "pc.ram 3 KiB 0x0 0x1000 0x1000\n",
        OLD_HEADER "pc.ram 4 XiB 0x0 0x1000 0x1000\n",
        OLD_HEADER "pc.ram 1 B 0x0 0x1000 0x1000\n",
        OLD_HEADER "pc.ram 99999999999 GiB 0x0 0x1000 0x1000\n",
        /* lengths that make no sense */
        OLD_HEADER "pc.ram 4 KiB 0x0 0x2000 0x1000\n",
        OLD_HEADER "pc.ram 4 KiB 0x0 0x0 0x1000\n",
        OLD_HEADER "pc.ram 4 KiB 0x0 0x1001 0x2000\n",
        OLD_HEADER "pc.ram 4 KiB 0xfffffffffffff000 0x2000 0x2000\n",
        NEW_HEADER "pc.ram 4 KiB 0x0 0x2000 0x2000 0xfffffffffffff000 rw\n",
        NEW_HEADER "pc.ram 4 KiB 0x0 0x1000 0x1000 0x7fff00000001 rw\n",
        /* one name, two blocks */
        OLD_HEADER "a 4 KiB 0x0 0x1000 0x1000\na 4 KiB 0x1000 0x1000 0x1000\n",
    };
    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(GPtrArray) blocks = ram_blocks_parse(cases[i], &error);
        if (blocks) {
            g_error("accepted: %s", cases[i]);
        }
        g_assert_error(error, SF_ERROR, SF_ERROR_MONITOR_PROTOCOL);
    }
}

/* The stream has one byte for the length of a name. */
static void test_name_length(void)
{
    for (guint length = 255; length <= 256; length++) {
        g_autofree char *name = g_strnfill(length, 'n');
        g_autofree char *text = g_strconcat(OLD_HEADER, name, " 4 KiB 0x0 0x1000 0x1000\n", NULL);
        g_autoptr(GPtrArray) blocks = ram_blocks_parse(text, NULL);
        g_assert_cmpint(blocks != NULL, ==, length == 255);
    }
}

/* Cut at any byte it is an error or fewer blocks, never something else. */
static void test_truncated(void)
{
    for (gsize length = 0; length < sizeof(new_text); length++) {
        g_autofree char *text = g_strndup(new_text, length);
        g_autoptr(GPtrArray) blocks = ram_blocks_parse(text, NULL);
        for (guint i = 0; blocks && i < blocks->len; i++) {
            const RamBlock *block = blocks->pdata[i];
            g_assert_cmphex(block->max_length, ==, i == 0 ? 64 << 20 : 0x40000);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/ramblock/before-8", test_old);
    g_test_add_func("/ramblock/since-8", test_new);
    g_test_add_func("/ramblock/broken", test_broken);
    g_test_add_func("/ramblock/name-length", test_name_length);
    g_test_add_func("/ramblock/truncated", test_truncated);
    return g_test_run();
}
