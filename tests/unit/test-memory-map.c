/*
 * What the index tells about the machine beside its pages: the guest-physical map out of HMP's
 * text, and the screen as PNG.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <png.h>
#include <string.h>

#include "migration/screen.h"
#include "monitor/memory-map.h"

/* In the form of QEMU 7.2 and 10.0; the first view is not the guest's. */
static const char sample[] =
    "FlatView #0\n"
    " AS \"I/O\", root: io\n"
    " Root memory region: io\n"
    "  0000000000000000-0000000000000fff (prio 0, ram): not this one\n"
    "\n"
    "FlatView #1\n"
    " AS \"memory\", root: system\n"
    " AS \"cpu-memory-0\", root: system\n"
    " Root memory region: system\n"
    "  0000000000000000-000000000009ffff (prio 0, ram): pc.ram KVM\n"
    "  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem\n"
    "  00000000000e0000-00000000000fffff (prio 0, rom): pc.bios @0000000000020000 KVM\n"
    "  00000000fd000000-00000000fdffffff (prio 1, ram): vga.vram\n"
    "  0000000100000000-000000013fffffff (prio 0, ram): pc.ram @0000000080000000 KVM\n"
    "  0000000200000000-0000000100000000 (prio 0, ram): backwards\n"
    "  0000000000000000-ffffffffffffffff (prio 0, ram): all\n"
    "  00000002x0000000-0000000200000fff (prio 0, ram): no number\n"
    "  0000000300000000-0000000300000fff (prio 0, ram): cut @\n"
    "\n"
    "FlatView #2\n"
    " AS \"cpu-smm-0\", root: memory\n"
    "  0000000000000000-000000000009ffff (prio 0, ram): pc.ram\n";

static void assert_piece(GPtrArray *pieces, guint i, const char *region, guint64 address,
                         guint64 length, guint64 offset)
{
    const MemoryPiece *piece = g_ptr_array_index(pieces, i);

    g_assert_cmpstr(piece->region, ==, region);
    g_assert_cmpuint(piece->address, ==, address);
    g_assert_cmpuint(piece->length, ==, length);
    g_assert_cmpuint(piece->offset, ==, offset);
}

static void test_parse(void)
{
    g_autoptr(GPtrArray) pieces = memory_map_parse(sample);
    g_autoptr(GPtrArray) nothing = memory_map_parse("unknown command: 'info mtree -f'");

    g_assert_cmpuint(pieces->len, ==, 4);
    assert_piece(pieces, 0, "pc.ram", 0, 0xa0000, 0);
    assert_piece(pieces, 1, "pc.bios", 0xe0000, 0x20000, 0x20000);
    assert_piece(pieces, 2, "vga.vram", 0xfd000000, 16 << 20, 0);
    assert_piece(pieces, 3, "pc.ram", 1ULL << 32, 1 << 30, 2ULL << 30);
    g_assert_cmpuint(nothing->len, ==, 0);
}

static void test_block_names(void)
{
    const MemoryPiece piece = { .region = (char *)"vga.vram" };

    g_assert_true(memory_piece_is_of_block(&piece, "vga.vram"));
    g_assert_true(memory_piece_is_of_block(&piece, "0000:00:01.0/vga.vram"));
    g_assert_false(memory_piece_is_of_block(&piece, "0000:00:01.0/xvga.vram"));
    g_assert_false(memory_piece_is_of_block(&piece, "vga.vram2"));
    g_assert_false(memory_piece_is_of_block(&piece, "/vga.vram"));
}

static void test_screen(void)
{
    static const guint8 ppm[] = "P6\n2 1\n255\n\x01\x02\x03\xff\xfe\xfd";
    gsize length = 0;
    g_autofree guint8 *png = screen_ppm_to_png(ppm, sizeof(ppm) - 1, &length);
    png_image image = { .version = PNG_IMAGE_VERSION };
    guint8 pixels[6];

    g_assert_nonnull(png);
    g_assert_true(png_image_begin_read_from_memory(&image, png, length));
    g_assert_cmpuint(image.width, ==, 2);
    g_assert_cmpuint(image.height, ==, 1);
    image.format = PNG_FORMAT_RGB;
    g_assert_true(png_image_finish_read(&image, NULL, pixels, 0, NULL));
    g_assert_cmpmem(pixels, sizeof(pixels), ppm + sizeof(ppm) - 7, 6);
}

/* Whatever QEMU wrote there. */
static void test_no_screen(void)
{
    static const char *const bad[] = { "",
                                       "P",
                                       "P6",
                                       "P6\n",
                                       "P6\n2 1\n255\n12345",
                                       "P6\n2 1\n65535\n123456789012",
                                       "P6\n0 1\n255\n",
                                       "P6\n99999999999999999999 1\n255\n123",
                                       "P6\n16384 16384\n255\n123",
                                       "P5\n2 1\n255\n123456" };
    gsize length;

    for (guint i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autofree guint8 *copy = g_memdup2(bad[i], strlen(bad[i]));
        g_assert_null(screen_ppm_to_png(copy, strlen(bad[i]), &length));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/memory-map/parse", test_parse);
    g_test_add_func("/memory-map/block-names", test_block_names);
    g_test_add_func("/screen/png", test_screen);
    g_test_add_func("/screen/none", test_no_screen);
    return g_test_run();
}
