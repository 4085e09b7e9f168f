/*
 * Memory that is given back while the snapshot is taken: the image is right, or there is none.
 *
 * Our guest has no balloon driver, so the tests do to QEMU's memory from outside what its balloon
 * does: a hole is punched into the file behind it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/autofd.h"
#include "writer-guest.h"

#define MIB (1024 * 1024LL)
#define HUGE_MIB 2
/* Guest memory that the writer guest neither writes nor reads. */
#define SPARE (70 * MIB)
#define SPARE_LENGTH (8 * MIB)
/* A reader that begins late: the snapshot stands in the middle of its sweep. */
#define SLOW_READER "exec:sleep 3; cat > '%s'"

static TestVm *start_shared(const char *more)
{
    g_autofree char *object =
        g_strdup_printf("memory-backend-memfd,id=mem0,size=96M,share=on%s", more);

    return writer_guest_start("-machine", "memory-backend=mem0", "-object", object, NULL);
}

/* The memory file of the guest, opened anew. */
static int open_memory(TestVm *vm)
{
    g_autofree char *folder = g_strdup_printf("/proc/%d/fd", (int)test_vm_get_pid(vm));
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *entry;

    while ((entry = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, entry, NULL);
        g_autofree char *target = g_file_read_link(path, NULL);
        struct stat st;
        if (target && g_str_has_prefix(target, "/memfd:") && stat(path, &st) == 0 &&
            st.st_size == 96 * MIB) {
            int fd = open(path, O_RDWR | O_CLOEXEC);
            g_assert_no_errno(fd);
            return fd;
        }
    }
    g_error("QEMU has no memory file");
}

/* Through QEMU's mapping, as the guest would: then its page table has the pages. */
static void fill_spare(TestVm *vm)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/mem", (int)test_vm_get_pid(vm));
    g_autofree char *maps = g_strdup_printf("/proc/%d/maps", (int)test_vm_get_pid(vm));
    g_autofree char *text = NULL;
    g_autofree char *data = g_strnfill((gsize)SPARE_LENGTH, 'b');
    sf_autofd memory = open(path, O_RDWR | O_CLOEXEC);
    guint64 start = 0;

    g_assert_no_errno(memory);
    g_assert_true(g_file_get_contents(maps, &text, NULL, NULL));
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (guint i = 0; lines[i] && !start; i++) {
        guint64 from = g_ascii_strtoull(lines[i], NULL, 16);
        const char *dash = strchr(lines[i], '-');
        guint64 to = dash ? g_ascii_strtoull(dash + 1, NULL, 16) : 0;
        if (strstr(lines[i], "/memfd:") && to - from == 96 * MIB) {
            start = from;
        }
    }
    g_assert_cmpuint(start, !=, 0);
    g_assert_cmpint(pwrite(memory, data, (gsize)SPARE_LENGTH, (off_t)(start + SPARE)), ==,
                    SPARE_LENGTH);
}

static void punch(int memory, gint64 at, gint64 length)
{
    g_assert_no_errno(fallocate(memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, length));
}

static TestTool *start_slow(TestVm *vm, TestDir *dir)
{
    g_autofree char *path = test_dir_file(dir, "image");
    g_autofree char *uri = g_strdup_printf(SLOW_READER, path);
    const char *const args[] = { "snapshot", "--max-buffer",         "8M",
                                 "--qmp",    test_vm_get_socket(vm), uri,
                                 NULL };
    TestTool *tool = test_tool_start(args);

    g_usleep(1000000);
    return tool;
}

static void assert_given_up(TestTool *tool, TestVm *vm)
{
    g_autofree char *said = NULL;

    g_assert_cmpint(test_tool_finish(tool, 60000, NULL, &said), ==, 1);
    g_assert_nonnull(strstr(said, "balloon"));
    g_assert_nonnull(strstr(said, "mem0"));
    writer_guest_assert_goes_on(vm);
    test_vm_assert_status(vm, "running");
}

static void assert_punch_is_noticed(const char *more, gint64 length)
{
    g_autoptr(TestVm) vm = start_shared(more);
    g_autoptr(TestDir) dir = test_dir_new();
    sf_autofd memory = open_memory(vm);

    fill_spare(vm);
    TestTool *tool = start_slow(vm, dir);
    punch(memory, SPARE + 4 * MIB, length);
    assert_given_up(tool, vm);
}

static void test_one_page(void)
{
    assert_punch_is_noticed("", 4096);
}

static void test_many_pages(void)
{
    assert_punch_is_noticed("", 2 * MIB);
}

static void test_huge_page(void)
{
    TestReaper *hugepages = NULL;

    if (test_hugepages_reserve(96, &hugepages)) {
        assert_punch_is_noticed(",hugetlb=on,hugetlbsize=2M", HUGE_MIB * MIB);
        test_reaper_finish(hugepages);
    }
}

/* The guest reads it, which fills the hole with zeros: that does not hide it. */
static void test_huge_page_read_again(void)
{
    TestReaper *hugepages = NULL;

    if (!test_hugepages_reserve(96, &hugepages)) {
        return;
    }
    g_autoptr(TestVm) vm = start_shared(",hugetlb=on,hugetlbsize=2M");
    g_autoptr(TestDir) dir = test_dir_new();
    sf_autofd memory = open_memory(vm);

    fill_spare(vm);
    TestTool *tool = start_slow(vm, dir);
    punch(memory, SPARE + 4 * MIB, HUGE_MIB * MIB);
    guint64 word = 1;
    test_vm_read_memory(vm, SPARE + 4 * MIB, &word, sizeof(word));
    g_assert_cmpuint(word, ==, 0);
    assert_given_up(tool, vm);
    g_clear_pointer(&vm, test_vm_free);
    test_reaper_finish(hugepages);
}

/* Given back before: the image has zeros there. And zero pages that stay are no reason to fail. */
static void test_before_the_snapshot(void)
{
    g_autoptr(TestVm) vm = start_shared(",prealloc=on");
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");
    g_autofree char *out = NULL, *said = NULL;
    sf_autofd memory = open_memory(vm);

    fill_spare(vm);
    punch(memory, SPARE, SPARE_LENGTH);
    TestTool *tool = start_slow(vm, dir);
    int status = test_tool_finish(tool, 60000, &out, &said);
    g_assert_cmpstr(said, ==, "");
    g_assert_cmpint(status, ==, 0);
    gsize length = 0;
    g_autofree char *image = NULL;
    g_assert_true(g_file_get_contents(path, &image, &length, NULL));
    g_assert_null(memmem(image, length, "bbbbbbbbbbbbbbbb", 16));
    writer_guest_assert_goes_on(vm);
}

/* The control of the one above: what is not given back is in the image. */
static void test_nothing_given_back(void)
{
    g_autoptr(TestVm) vm = start_shared("");
    g_autoptr(TestDir) dir = test_dir_new();
    g_autoptr(InstantMemory) memory = instant_memory_new();
    g_autofree char *path = test_dir_file(dir, "image");
    gsize length = 0;
    g_autofree char *image = NULL, *said = NULL;

    fill_spare(vm);
    g_assert_cmpint(test_tool_finish(start_slow(vm, dir), 60000, NULL, &said), ==, 0);
    g_assert_cmpstr(said, ==, "");
    g_assert_true(g_file_get_contents(path, &image, &length, NULL));
    g_assert_nonnull(memmem(image, length, "bbbbbbbbbbbbbbbb", 16));
    instant_memory_map(memory, 0, (guint64)(96 * MIB), "mem0", 0);
    instant_check_image(memory, path);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/balloon/one-page", test_one_page);
    g_test_add_func("/balloon/many-pages", test_many_pages);
    g_test_add_func("/balloon/huge-page", test_huge_page);
    g_test_add_func("/balloon/huge-page-read-again", test_huge_page_read_again);
    g_test_add_func("/balloon/before-the-snapshot", test_before_the_snapshot);
    g_test_add_func("/balloon/nothing-given-back", test_nothing_given_back);
    return g_test_run();
}
