/*
 * The window onto shared memory: it shows what is in the file, and never fills a hole of it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "migration/guest-window.h"

#define PAGE 4096ULL
#define PAGES 64ULL

/* A memory file whose odd pages have content, and the block that it is. */
typedef struct Fixture {
    GuestBlock block;
    GuestWindow *window;
} Fixture;

static void put_page(int fd, guint64 page, guint8 byte)
{
    guint8 bytes[PAGE];

    memset(bytes, byte, sizeof(bytes));
    g_assert_cmpint(pwrite(fd, bytes, sizeof(bytes), (off_t)(page * PAGE)), ==, sizeof(bytes));
}

static gboolean setup(Fixture *f)
{
    *f = (Fixture){ .block = { .page_size = PAGE, .pages = PAGES, .shared = TRUE } };
    f->window = guest_window_new();
    if (!f->window) {
        g_test_skip("no userfaultfd that sees the kernel's faults is given to this user");
        return FALSE;
    }
    f->block.file = memfd_create("window", MFD_CLOEXEC);
    g_assert_cmpint(ftruncate(f->block.file, PAGES * PAGE), ==, 0);
    for (guint64 page = 1; page < PAGES; page += 2) {
        put_page(f->block.file, page, (guint8)page);
    }
    g_assert_true(guest_window_open(f->window, &f->block, 0, PAGES));
    return TRUE;
}

static void teardown(Fixture *f)
{
    guest_window_free(f->window);
    close(f->block.file);
}

static void assert_hole(Fixture *f, guint64 page)
{
    g_assert_cmpint(lseek(f->block.file, (off_t)(page * PAGE), SEEK_DATA), !=,
                    (off_t)(page * PAGE));
}

static void test_shows_the_file(void)
{
    Fixture f;

    if (!setup(&f)) {
        return;
    }
    for (guint64 page = 1; page < PAGES; page += 2) {
        const guint8 *data = guest_window_look(f.window, &f.block, page, 1);
        g_assert_cmpuint(data[0], ==, page);
        g_assert_cmpuint(data[PAGE - 1], ==, page);
    }
    g_assert_cmpuint(guest_window_get_holes(f.window), ==, 0);
    /* What the guest writes later shows too. */
    const guint8 *data = guest_window_look(f.window, &f.block, 3, 1);
    put_page(f.block.file, 3, 99);
    g_assert_cmpuint(data[0], ==, 99);
    /* Only what is open. */
    g_assert_null(guest_window_look(f.window, &f.block, PAGES - 1, 2));
    g_assert_true(guest_window_open(f.window, &f.block, 10, 10));
    g_assert_null(guest_window_look(f.window, &f.block, 9, 1));
    g_assert_cmpuint(guest_window_look(f.window, &f.block, 11, 1)[0], ==, 11);
    teardown(&f);
}

static void test_meets_holes_and_leaves_them(void)
{
    Fixture f;

    if (!setup(&f)) {
        return;
    }
    /* A read in this program. */
    g_assert_cmpuint(guest_window_look(f.window, &f.block, 4, 1)[0], ==, 0);
    g_assert_cmpuint(guest_window_get_holes(f.window), >=, 1);
    assert_hole(&f, 4);

    /* A read by the kernel, over content and holes. */
    guint64 before = guest_window_get_holes(f.window);
    const guint8 *data = guest_window_look(f.window, &f.block, 5, 1);
    int out = memfd_create("out", MFD_CLOEXEC);
    g_assert_cmpint(write(out, data, 4 * PAGE), ==, 4 * PAGE);
    g_assert_cmpuint(guest_window_get_holes(f.window), >=, before + 2);
    guint8 copy[4 * PAGE];
    g_assert_cmpint(pread(out, copy, sizeof(copy), 0), ==, sizeof(copy));
    g_assert_cmpuint(copy[0], ==, 5);
    g_assert_cmpuint(copy[PAGE], ==, 0);
    g_assert_cmpuint(copy[2 * PAGE], ==, 7);
    assert_hole(&f, 6);
    close(out);
    teardown(&f);
}

static void test_meets_a_hole_punched_later(void)
{
    Fixture f;

    if (!setup(&f)) {
        return;
    }
    const guint8 *data = guest_window_look(f.window, &f.block, 21, 1);
    g_assert_cmpuint(data[0], ==, 21);
    g_assert_cmpint(
        fallocate(f.block.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 21 * PAGE, PAGE), ==,
        0);
    g_assert_cmpuint(*(const volatile guint8 *)data, ==, 0);
    g_assert_cmpuint(guest_window_get_holes(f.window), ==, 1);
    assert_hole(&f, 21);
    teardown(&f);
}

static void test_only_shared_memory_of_normal_pages(void)
{
    Fixture f;

    if (!setup(&f)) {
        return;
    }
    f.block.shared = FALSE;
    g_assert_false(guest_window_open(f.window, &f.block, 0, 1));
    g_assert_null(guest_window_look(f.window, &f.block, 0, 1));
    f.block.shared = TRUE;
    f.block.hugetlb = TRUE;
    g_assert_false(guest_window_open(f.window, &f.block, 0, 1));
    g_assert_false(guest_window_open(NULL, &f.block, 0, 1));
    g_assert_cmpuint(guest_window_get_holes(NULL), ==, 0);
    teardown(&f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/guest-window/shows-the-file", test_shows_the_file);
    g_test_add_func("/guest-window/meets-holes-and-leaves-them", test_meets_holes_and_leaves_them);
    g_test_add_func("/guest-window/meets-a-hole-punched-later", test_meets_a_hole_punched_later);
    g_test_add_func("/guest-window/only-shared-memory-of-normal-pages",
                    test_only_shared_memory_of_normal_pages);
    return g_test_run();
}
