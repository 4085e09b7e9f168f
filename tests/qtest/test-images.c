/*
 * What is done with images: conversions there and back give the same pages, stock QEMU goes on from
 * them, damage and cuts are found, gdb opens a core.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "writer-guest.h"

typedef struct Fixture {
    TestVm *vm;
    TestDir *dir;
    char *image; /* a snapshot of the guest */
} Fixture;

static void setup(Fixture *f, gconstpointer data)
{
    f->vm = writer_guest_start(NULL);
    f->dir = test_dir_new();
    f->image = test_dir_file(f->dir, "image");
    g_assert_cmpint(
        test_tool_run(NULL, NULL, "snapshot", "--qmp", test_vm_get_socket(f->vm), f->image, NULL),
        ==, 0);
}

static void teardown(Fixture *f, gconstpointer data)
{
    test_vm_free(f->vm);
    g_free(f->image);
    test_dir_free(f->dir);
}

/* Converts @from; the path, to be freed. @more: two more arguments, or NULL. */
static char *convert(Fixture *f, const char *from, const char *format, const char *name,
                     const char *option, const char *value)
{
    char *to = test_dir_file(f->dir, name);
    g_autofree char *err = NULL;
    int status = test_tool_run(NULL, &err, "convert", "--no-sync", "--format", format, from, to,
                               option, value, NULL);

    g_assert_cmpstr(err, ==, "");
    g_assert_cmpint(status, ==, 0);
    return to;
}

static void assert_same_pages(const char *a, const char *b)
{
    g_autofree char *out = NULL;

    g_assert_cmpint(test_tool_run(&out, NULL, "diff", a, b, NULL), ==, 0);
    g_assert_cmpstr(out, ==, "0 pages differ, 0 bytes; device state is the same\n");
}

static void assert_good(const char *image)
{
    g_autofree char *out = NULL;

    g_assert_cmpint(test_tool_run(&out, NULL, "verify", image, NULL), ==, 0);
    g_assert_nonnull(strstr(out, "pages by their hashes"));
}

static void test_round_trip(Fixture *f, gconstpointer data)
{
    g_autofree char *xml = test_dir_file(f->dir, "xml");
    g_autofree char *mapped = convert(f, f->image, "mapped-ram", "mapped", NULL, NULL);
    g_autofree char *zstd = convert(f, mapped, "stream", "zstd", "--compress", "zstd");
    g_autofree char *mapped2 = convert(f, zstd, "mapped-ram", "mapped2", NULL, NULL);
    g_autofree char *gzip = convert(f, mapped2, "stream", "gzip", "--compress", "zlib");
    g_assert_true(g_file_set_contents(xml, "<domain><name>d</name></domain>", -1, NULL));
    g_autofree char *libvirt = convert(f, gzip, "libvirt", "libvirt", "--xml", xml);
    g_autofree char *last = convert(f, libvirt, "stream", "last", NULL, NULL);
    const char *const all[] = { mapped, zstd, mapped2, gzip, libvirt, last };

    for (guint i = 0; i < G_N_ELEMENTS(all); i++) {
        assert_good(all[i]);
        assert_same_pages(f->image, all[i]);
    }
    guint64 counter = writer_guest_check_image(f->image, 0);
    g_assert_cmpuint(writer_guest_check_image(last, 0), ==, counter);
    writer_guest_assert_loads(last, "running");
}

/* Raw memory is what the guest has at its addresses. */
static void test_raw(Fixture *f, gconstpointer data)
{
    g_autofree char *raw = convert(f, f->image, "raw", "raw", NULL, NULL);
    g_autofree char *content = NULL;
    g_autofree char *program = NULL;
    gsize length, program_length;

    g_assert_true(g_file_get_contents(raw, &content, &length, NULL));
    g_assert_cmpuint(length, ==, 96 * 1024 * 1024);
    /* The guest's program stands where its ELF file says, and never changes. */
    g_assert_true(g_file_get_contents(test_guest_path(), &program, &program_length, NULL));
    test_vm_qmp_void(f->vm, "stop", NULL);
    g_autofree guint8 *live = g_malloc(4096);
    test_vm_read_memory(f->vm, 0x100000, live, 4096);
    g_assert_cmpmem(content + 0x100000, 4096, live, 4096);
}

static void test_core(Fixture *f, gconstpointer data)
{
    g_autofree char *core = convert(f, f->image, "elf", "core", NULL, NULL);
    const char *const argv[] = {
        "gdb", "-nx", "-batch", "-ex", "info registers rip", "-ex", "x/2gx 0x100000",
        "-c",  core,  NULL
    };
    guint64 words[2];
    g_autofree char *gdb = g_find_program_in_path("gdb");
    g_autofree char *out = NULL;

    if (!gdb) {
        g_test_skip("no gdb here");
        return;
    }
    test_vm_read_memory(f->vm, 0x100000, words, sizeof(words));
    TestTool *tool = test_tool_start_command(argv);
    g_assert_cmpint(test_tool_finish(tool, 60000, &out, NULL), ==, 0);
    g_autofree char *expected =
        g_strdup_printf("0x100000:\t0x%016" G_GINT64_MODIFIER "x\t0x%016" G_GINT64_MODIFIER "x",
                        words[0], words[1]);
    g_assert_nonnull(strstr(out, expected));
    g_assert_nonnull(strstr(out, "rip "));
}

static void flip(const char *path, off_t at)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    guint8 byte;

    g_assert_cmpint(pread(fd, &byte, 1, at), ==, 1);
    byte ^= 0x10;
    g_assert_cmpint(pwrite(fd, &byte, 1, at), ==, 1);
    close(fd);
}

static void test_damage(Fixture *f, gconstpointer data)
{
    g_autofree char *image = convert(f, f->image, "mapped-ram", "mapped", NULL, NULL);
    g_autofree char *out = NULL;
    struct stat st;

    g_assert_cmpint(stat(image, &st), ==, 0);
    assert_good(image);
    /* Within the pages of the main block, which the guest writes all over. */
    flip(image, st.st_size / 3);
    g_assert_cmpint(test_tool_run(&out, NULL, "verify", image, NULL), ==, 1);
    g_assert_nonnull(strstr(out, "1 bad pages of"));
    g_assert_nonnull(strstr(out, "pc.ram at 0x"));
}

/* Cut anywhere, an image is an error and never good. */
static void test_cut(Fixture *f, gconstpointer data)
{
    g_autofree char *image = convert(f, f->image, "stream", "cut", NULL, NULL);
    guint places = test_repeat(60);
    struct stat st;

    g_assert_cmpint(stat(image, &st), ==, 0);
    /* From the end on, so that each cut is one truncate(): most of them near it. */
    for (guint i = 1; i <= places; i++) {
        off_t at = i <= places / 2 ? st.st_size - (off_t)i * (off_t)i
                                   : st.st_size - st.st_size / places * (off_t)i;
        if (at <= 0 || truncate(image, at) < 0) {
            break;
        }
        g_autofree char *err = NULL;
        int status = test_tool_run(NULL, &err, "verify", image, NULL);
        g_assert_cmpint(status, ==, 1);
        g_assert_cmpstr(err, !=, "");
    }
}

static void test_picture(Fixture *f, gconstpointer data)
{
    g_autofree char *png = test_dir_file(f->dir, "map.png");
    g_autofree char *content = NULL;
    g_autofree char *err = NULL;
    gsize length;

    g_assert_cmpint(test_tool_run(NULL, NULL, "map", f->image, png, NULL), ==, 0);
    g_assert_true(g_file_get_contents(png, &content, &length, NULL));
    g_assert_cmpmem(content, 8, "\x89PNG\r\n\x1a\n", 8);
    g_assert_cmpint(test_tool_run(NULL, &err, "map", png, png, NULL), ==, 1);
}

/* ---- Another QEMU: 10.0 loads what a machine of 7.2 was, and mapped-ram by itself ---- */

#define OLD_MACHINE "pc-q35-7.2"

/* scripts/other-qemu; NULL (skipped) where that QEMU is not there. */
static const char *find_other_qemu(void)
{
    const char *other = g_getenv("STILLFRAME_OTHER_QEMU");
    const char *const argv[] = { other, "path", NULL };
    int status = -1;

    if (!other ||
        !g_spawn_sync(NULL, (char **)argv, NULL,
                      G_SPAWN_STDOUT_TO_DEV_NULL | G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, NULL,
                      NULL, &status, NULL) ||
        status) {
        g_test_skip("scripts/other-qemu is not there; \"scripts/other-qemu make\" makes it");
        return NULL;
    }
    return other;
}

/* The harness takes the QEMU from the environment when it makes the VM. */
static TestVm *new_on(const char *qemu)
{
    g_autofree char *usual = g_strdup(g_getenv("STILLFRAME_QEMU"));

    g_setenv("STILLFRAME_QEMU", qemu, TRUE);
    TestVm *vm = writer_guest_new("-M", OLD_MACHINE, NULL);
    if (usual) {
        g_setenv("STILLFRAME_QEMU", usual, TRUE);
    } else {
        g_unsetenv("STILLFRAME_QEMU");
    }
    return vm;
}

static void test_other_qemu(void)
{
    const char *other = find_other_qemu();
    Fixture f = { 0 };

    if (!other) {
        return;
    }
    f.vm = writer_guest_start("-M", OLD_MACHINE, NULL);
    f.dir = test_dir_new();
    f.image = test_dir_file(f.dir, "image");
    g_assert_cmpint(
        test_tool_run(NULL, NULL, "snapshot", "--qmp", test_vm_get_socket(f.vm), f.image, NULL), ==,
        0);
    g_autofree char *mapped = convert(&f, f.image, "mapped-ram", "mapped", NULL, NULL);
    g_autofree char *stream = convert(&f, mapped, "stream", "stream", NULL, NULL);
    g_autofree char *uri = g_strdup_printf("file:%s", stream);
    g_autoptr(TestVm) from_stream = new_on(other);
    test_vm_launch_incoming(from_stream, uri);
    test_vm_assert_status(from_stream, "running");
    writer_guest_assert_goes_on(from_stream);

    g_autoptr(TestVm) from_mapped = new_on(other);
    test_vm_launch_incoming_defer(from_mapped);
    test_vm_qmp_void(from_mapped, "migrate-set-capabilities",
                     "{'capabilities': [{'capability': 'mapped-ram', 'state': true}]}");
    test_vm_qmp_void(from_mapped, "migrate-incoming", "{'uri': 'file:%s'}", mapped);
    test_vm_assert_status(from_mapped, "running");
    writer_guest_assert_goes_on(from_mapped);
    teardown(&f, NULL);
}

#define ADD(name, func) g_test_add("/images/" name, Fixture, NULL, setup, func, teardown)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("round-trip", test_round_trip);
    ADD("raw", test_raw);
    ADD("core", test_core);
    ADD("damage", test_damage);
    ADD("cut-off", test_cut);
    ADD("picture", test_picture);
    g_test_add_func("/images/other-qemu", test_other_qemu);
    return g_test_run();
}
