/*
 * The formats of an image with a guest that checks its own memory: each is loaded by whoever it is
 * made for, has its index behind it, and a chain of incremental images is the youngest one's
 * instant or an error by name.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "migration/image-chain.h"
#include "writer-guest.h"

#define MACHINE "-machine", "pc-q35-7.2"

/* Takes a snapshot; what it says on standard error, NULL where it succeeded. The caller frees. */
static char *take(TestVm *vm, const char *destination, const char *option, const char *value,
                  char **report)
{
    g_autofree char *said = NULL;
    int status = option ? test_tool_run(report, &said, "snapshot", "--no-sync", "--json", "--qmp",
                                        test_vm_get_socket(vm), option, value, destination, NULL)
                        : test_tool_run(report, &said, "snapshot", "--no-sync", "--json", "--qmp",
                                        test_vm_get_socket(vm), destination, NULL);

    return status ? g_steal_pointer(&said) : NULL;
}

static void assert_takes(TestVm *vm, const char *destination, const char *option, const char *value)
{
    g_autofree char *said = take(vm, destination, option, value, NULL);

    g_assert_cmpstr(said, ==, NULL);
}

static const char *report_format(const char *report)
{
    return strstr(report, "\"incremental\"")  ? "incremental"
           : strstr(report, "\"mapped-ram\"") ? "mapped-ram"
                                              : "stream";
}

/* Every page is in the image or in its parents, with its hash; returns the image's own bytes of
 * pages. */
static guint64 check_index(const char *path)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(ImageChain) chain = image_chain_open(path, &error);
    g_assert_no_error(error);
    const ImageIndex *index = image_chain_get_index(chain);
    guint64 own = 0;

    for (guint i = 0; i < index->blocks->len; i++) {
        const IndexBlock *block = g_ptr_array_index(index->blocks, i);
        ChainPages found;
        for (guint64 page = 0; page < block->pages; page += found.count) {
            g_assert_true(image_chain_find(chain, i, page, &found));
            for (guint64 n = 0; found.run->kind == INDEX_HERE && n < found.count; n++) {
                g_assert_nonnull(image_chain_get_data(&found, n, &error));
                own += found.image == chain ? index->page_size : 0;
            }
        }
        g_assert_nonnull(block->heat);
    }
    g_assert_cmpstr(index->machine_type, ==, "pc-q35-7.2");
    g_assert_cmpstr(index->target, ==, "x86_64");
    g_assert_nonnull(index->command_line);
    g_assert_nonnull(strstr(index->statistics, "\"downtime"));
    g_assert_cmpuint(index->memory->len, >, 0);
    g_assert_cmpint(ABS(g_get_real_time() - index->created_us), <, 60 * G_USEC_PER_SEC);
    return own;
}

/* stillframe restore with the command line of @vm; its exit status. */
static int run_restore(TestVm *vm, const char *image, char **said)
{
    g_autoptr(GPtrArray) args = g_ptr_array_new();

    g_ptr_array_add(args, (gpointer) "restore");
    g_ptr_array_add(args, (gpointer)image);
    g_ptr_array_add(args, (gpointer) "--");
    for (char **arg = test_vm_get_argv(vm); *arg; arg++) {
        g_ptr_array_add(args, *arg);
    }
    g_ptr_array_add(args, NULL);
    return test_tool_runv(NULL, said, (const char *const *)args->pdata);
}

static TestVm *restore(const char *image)
{
    TestVm *vm = writer_guest_new(MACHINE, NULL);
    g_autofree char *said = NULL;

    if (run_restore(vm, image, &said) != 0) {
        g_error("restore failed: %s", said);
    }
    test_vm_adopt(vm);
    test_vm_assert_status(vm, "running");
    return vm;
}

static void assert_restores(const char *image)
{
    g_autoptr(TestVm) vm = restore(image);

    writer_guest_assert_goes_on(vm);
    g_assert_cmpuint(writer_guest_read_counter(vm), >, writer_guest_check_image(image, 0));
}

static void test_index(void)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *image = test_dir_file(dir, "image");
    g_autofree char *piped = test_dir_file(dir, "piped");
    g_autofree char *command = g_strdup_printf("exec:cat >'%s'", piped);
    g_autoptr(TestVm) vm = writer_guest_start(MACHINE, NULL);
    g_autoptr(GError) error = NULL;

    assert_takes(vm, image, "--label", "caf\303\251");
    guint64 own = check_index(image);
    g_autoptr(ImageChain) chain = image_chain_open(image, &error);
    const ImageIndex *index = image_chain_get_index(chain);
    g_assert_cmpstr(index->label, ==, "caf\303\251");
    g_assert_cmpuint(index->trailer_length, <=, own / 200);
    /* Some were saved by faults; the guest writes all the time. */
    const IndexBlock *ram = image_index_find_block(index, "pc.ram", NULL);
    guint64 by_fault = 0;
    for (guint64 i = 0; i < ram->n_runs; i++) {
        by_fault += ram->runs[i].source == INDEX_BY_FAULT ? ram->runs[i].count : 0;
    }
    g_assert_cmpuint(by_fault, >, 0);
    assert_takes(vm, command, NULL, NULL);
    check_index(piped);
    writer_guest_assert_goes_on(vm);
}

/* Loaded by our restore: by this QEMU itself if it can, and else as a stream made on the way. */
static void test_mapped_restore(void)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *image = test_dir_file(dir, "image");
    g_autoptr(TestVm) vm = writer_guest_start(MACHINE, NULL);

    assert_takes(vm, image, "--format", "mapped-ram");
    writer_guest_check_image(image, 0);
    check_index(image);
    writer_guest_assert_goes_on(vm);
    g_clear_pointer(&vm, test_vm_free);
    assert_restores(image);
}

static gboolean run_quietly(const char *format, ...) G_GNUC_PRINTF(1, 2);
static gboolean run_quietly(const char *format, ...)
{
    va_list args;
    int status = 1;

    va_start(args, format);
    g_autofree char *command = g_strdup_vprintf(format, args);
    va_end(args);
    /* Not into our own output, which is TAP. */
    g_autofree char *out = NULL, *err = NULL;
    return g_spawn_command_line_sync(command, &out, &err, &status, NULL) && status == 0;
}

static const char *other_qemu(void)
{
    const char *program = g_getenv("STILLFRAME_OTHER_QEMU");

    if (!program || !run_quietly("'%s' path", program)) {
        g_test_skip("there is no newer QEMU here (scripts/other-qemu make)");
        return NULL;
    }
    return program;
}

/* Stock QEMU, and nothing of ours: -incoming file: with the capability on. */
static void load_by_qemu(const char *image, const char *offset, gboolean mapped)
{
    g_autoptr(TestVm) vm = writer_guest_new(MACHINE, "-incoming", "defer", NULL);

    test_vm_launch(vm);
    if (mapped) {
        test_vm_qmp_void(vm, "migrate-set-capabilities",
                         "{'capabilities':[{'capability':'mapped-ram','state':true}]}");
    }
    test_vm_qmp_void(vm, "migrate-incoming", "{'uri':'file:%s%s'}", image, offset);
    test_vm_assert_status(vm, "running");
    writer_guest_assert_goes_on(vm);
}

static void test_other_qemu(void)
{
    const char *program = other_qemu();
    g_autofree char *own = g_strdup(g_getenv("STILLFRAME_QEMU"));
    if (!program) {
        return;
    }
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *mapped = test_dir_file(dir, "mapped");
    g_autofree char *stream = test_dir_file(dir, "stream");
    g_autofree char *later = test_dir_file(dir, "later");
    g_autofree char *there = g_strdup_printf("file:%s,offset=12345", later);
    g_autoptr(TestVm) vm = writer_guest_start(MACHINE, NULL);

    assert_takes(vm, mapped, "--format", "mapped-ram");
    assert_takes(vm, there, "--format", "mapped-ram");
    assert_takes(vm, stream, "--format", "stream");
    g_clear_pointer(&vm, test_vm_free);
    g_setenv("STILLFRAME_QEMU", program, TRUE);
    load_by_qemu(mapped, "", TRUE);
    load_by_qemu(later, ",offset=12345", TRUE);
    load_by_qemu(stream, "", FALSE);
    assert_restores(mapped);
    if (own) {
        g_setenv("STILLFRAME_QEMU", own, TRUE);
    } else {
        g_unsetenv("STILLFRAME_QEMU");
    }
}

static void test_mapped_elsewhere(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(MACHINE, NULL);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *witness = test_dir_file(dir, "witness");
    g_autofree char *command = g_strdup_printf("exec:touch '%s'; cat >/dev/null", witness);
    g_autofree char *said = take(vm, command, "--format", "mapped-ram", NULL);

    g_assert_nonnull(said);
    g_assert_nonnull(strstr(said, "regular file"));
    g_assert_false(g_file_test(witness, G_FILE_TEST_EXISTS));
    writer_guest_assert_goes_on(vm);
}

static void flip_byte(const char *path, goffset at)
{
    FILE *file = fopen(path, "r+b");

    g_assert_nonnull(file);
    g_assert_cmpint(fseek(file, at, SEEK_SET), ==, 0);
    int byte = fgetc(file);
    g_assert_cmpint(fseek(file, at, SEEK_SET), ==, 0);
    fputc(byte ^ 1, file);
    g_assert_cmpint(fclose(file), ==, 0);
}

/* Restore refuses, and names the one that is to blame. */
static void assert_refused(const char *image, const char *parent)
{
    g_autoptr(TestVm) vm = writer_guest_new(MACHINE, NULL);
    g_autofree char *said = NULL;

    g_assert_cmpint(run_restore(vm, image, &said), !=, 0);
    g_test_message("%s", said);
    g_assert_nonnull(strstr(said, parent));
}

/* Where in the file of its oldest image some page of @path is. */
static goffset find_oldest_page(const char *path)
{
    guint number = 0;
    g_autoptr(GError) error = NULL;
    g_autoptr(ImageChain) chain = image_chain_open(path, &error);
    g_assert_no_error(error);
    const ImageChain *oldest = image_chain_get_parent(image_chain_get_parent(chain));
    const IndexBlock *ram = image_index_find_block(image_chain_get_index(chain), "pc.ram", &number);
    ChainPages found;

    g_assert_null(image_chain_get_parent(oldest));
    for (guint64 page = 0; page < ram->pages; page += found.count) {
        g_assert_true(image_chain_find(chain, number, page, &found));
        if (found.image == oldest && found.run->kind == INDEX_HERE) {
            return (goffset)index_run_place(found.block, found.run, found.page) + 100;
        }
    }
    g_assert_not_reached();
}

/* What reads images reads a chain; convert makes one whole image of it, with the same pages. */
static void check_tools(const char *image, const char *flat)
{
    g_autofree char *said = NULL;

    g_assert_cmpint(test_tool_run(NULL, NULL, "verify", image, NULL), ==, 0);
    g_assert_cmpint(test_tool_run(&said, NULL, "info", image, NULL), ==, 0);
    g_assert_nonnull(strstr(said, "parent"));
    g_assert_cmpint(
        test_tool_run(NULL, NULL, "convert", image, flat, "--format", "mapped-ram", NULL), ==, 0);
    g_assert_cmpint(test_tool_run(NULL, NULL, "verify", flat, NULL), ==, 0);
    g_assert_cmpuint(writer_guest_check_image(flat, 0), ==, writer_guest_check_image(image, 0));
}

static void test_chain(void)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *first = test_dir_file(dir, "first");
    g_autofree char *second = test_dir_file(dir, "second");
    g_autofree char *third = test_dir_file(dir, "third");
    g_autofree char *hidden = test_dir_file(dir, "hidden");
    g_autofree char *flat = test_dir_file(dir, "flat");
    g_autofree char *report = NULL, *said = NULL;
    g_autoptr(TestVm) vm = writer_guest_start(MACHINE, NULL);
    struct stat st;

    assert_takes(vm, first, "--format", "stream");
    guint64 before = writer_guest_check_image(first, 0);
    test_vm_qmp_void(vm, "stop", NULL);
    assert_takes(vm, second, "--parent", first);
    /* The guest has written between the two, and not at all between these. */
    said = take(vm, third, "--parent", second, &report);
    g_assert_cmpstr(said, ==, NULL);
    g_assert_cmpstr(report_format(report), ==, "incremental");
    g_assert_cmpint(stat(third, &st), ==, 0);
    g_assert_cmpint(st.st_size, <, 1 << 20);
    check_index(third);
    g_assert_cmpuint(writer_guest_check_image(third, 0), >, before);
    check_tools(third, flat);
    g_clear_pointer(&vm, test_vm_free);

    goffset at = find_oldest_page(third);
    g_assert_cmpint(g_rename(second, hidden), ==, 0);
    assert_refused(third, second);
    g_assert_cmpint(g_rename(hidden, second), ==, 0);
    flip_byte(first, at);
    assert_refused(third, first);
    flip_byte(first, at);
    g_assert_cmpint(stat(first, &st), ==, 0);
    flip_byte(first, st.st_size - 100);
    assert_refused(third, first);
    flip_byte(first, st.st_size - 100);
}

static void test_chain_goes_on(void)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *first = test_dir_file(dir, "first");
    g_autofree char *second = test_dir_file(dir, "second");
    g_autoptr(TestVm) vm = writer_guest_start(MACHINE, NULL);

    assert_takes(vm, first, "--format", "mapped-ram");
    writer_guest_assert_goes_on(vm);
    assert_takes(vm, second, "--parent", first);
    writer_guest_check_image(second, 0);
    check_index(second);
    g_clear_pointer(&vm, test_vm_free);
    assert_restores(second);
}

/* ---- A file system that shares blocks ---- */

typedef struct Mount {
    char path[256];
} Mount;

static void unmount(gpointer data)
{
    umount2(((Mount *)data)->path, MNT_DETACH);
}

static TestReaper *mount_btrfs(TestDir *dir, Mount *mount)
{
    g_autofree char *disk = test_dir_file(dir, "disk");
    g_autofree char *point = test_dir_file(dir, "mnt");

    g_strlcpy(mount->path, point, sizeof(mount->path));
    if (!run_quietly("truncate -s 1G '%s'", disk) || !run_quietly("mkfs.btrfs -q '%s'", disk) ||
        g_mkdir(point, 0700) != 0) {
        g_test_skip("no btrfs can be made here (btrfs-progs)");
        return NULL;
    }
    TestReaper *reaper = test_reaper_start(unmount, mount);
    if (!run_quietly("mount -o loop '%s' '%s'", disk, point)) {
        g_test_skip("no btrfs can be mounted here (a loop device, root)");
        test_reaper_finish(reaper);
        return NULL;
    }
    return reaper;
}

/* A clone is whole: it loads with its parent gone. */
static void test_clone(void)
{
    g_autoptr(TestDir) dir = test_dir_new();
    Mount mount;
    TestReaper *reaper = mount_btrfs(dir, &mount);
    if (!reaper) {
        return;
    }
    g_autofree char *first = g_build_filename(mount.path, "first", NULL);
    g_autofree char *second = g_build_filename(mount.path, "second", NULL);
    g_autofree char *report = NULL;
    g_autoptr(TestVm) vm = writer_guest_start(MACHINE, NULL);

    assert_takes(vm, first, "--format", "mapped-ram");
    guint64 before = writer_guest_check_image(first, 0);
    g_autofree char *said = take(vm, second, "--parent", first, &report);
    g_assert_cmpstr(said, ==, NULL);
    g_assert_cmpstr(report_format(report), ==, "mapped-ram");
    g_assert_cmpint(g_unlink(first), ==, 0);
    g_clear_pointer(&vm, test_vm_free);
    g_assert_cmpuint(writer_guest_check_image(second, 0), >, before);
    check_index(second);
    assert_restores(second);
    test_reaper_finish(reaper);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/formats/index", test_index);
    g_test_add_func("/formats/mapped-ram", test_mapped_restore);
    g_test_add_func("/formats/mapped-ram-needs-a-file", test_mapped_elsewhere);
    g_test_add_func("/formats/other-qemu", test_other_qemu);
    g_test_add_func("/formats/chain", test_chain);
    g_test_add_func("/formats/chain-goes-on", test_chain_goes_on);
    g_test_add_func("/formats/clone", test_clone);
    return g_test_run();
}
