/*
 * Threads that wait in madvise() are found, with their ranges: on text, and on a real thread that a
 * userfaultfd holds there.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "attach/discards.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "util/autofd.h"

#define PAGE 4096UL
#define LENGTH (8 * PAGE)

static void assert_parsed(const char *line, guint n, guint64 start, guint64 end, int advice)
{
    Discard found[4] = { { .advice = -1 } };

    g_assert_cmpuint(discards_parse(line, getpid(), found, 4), ==, n);
    if (n) {
        g_assert_cmphex(found[0].start, ==, start);
        g_assert_cmphex(found[0].end, ==, end);
        g_assert_cmpint(found[0].advice, ==, advice);
    }
}

static void test_parse(void)
{
    assert_parsed("28 0x7f0000001000 0x2000 0x4 0x0 0x0 0x0 0x7ffc 0x7fff\n", 1, 0x7f0000001000,
                  0x7f0000003000, 4);
    assert_parsed("28 0x1000 0x1 0x9 0x0 0x0 0x0 0x0 0x0\n", 1, 0x1000, 0x2000, 9);
    assert_parsed("28 0x1000 0x0 0x4 0x0 0x0 0x0 0x0 0x0\n", 0, 0, 0, 0);
    assert_parsed("28 0x1001 0x1000 0x4 0x0 0x0 0x0 0x0 0x0\n", 0, 0, 0, 0);
    assert_parsed("28 0xfffffffffffff000 0x2000 0x4 0x0 0x0 0x0 0x0 0x0\n", 0, 0, 0, 0);
    assert_parsed("28 0x1000 0xffffffffffffffff 0x4 0x0 0x0 0x0 0x0 0x0\n", 0, 0, 0, 0);
    assert_parsed("202 0x1000 0x1000 0x4 0x0 0x0 0x0 0x0 0x0\n", 0, 0, 0, 0);
    assert_parsed("running\n", 0, 0, 0, 0);
    assert_parsed("-1 0x7ffc 0x7fff\n", 0, 0, 0, 0);
    assert_parsed("28", 0, 0, 0, 0);
    assert_parsed("", 0, 0, 0, 0);
}

static void test_parse_vectors(void)
{
    struct iovec vectors[] = { { (void *)0x10000, 0x1000 }, { (void *)0x20000, 0x3000 } };
    g_autofree char *line = g_strdup_printf("%d 0x3 0x%" G_GINT64_MODIFIER "x 0x2 0x4 0x0 0x0 0x0",
                                            SYS_process_madvise, (guint64)(guintptr)vectors);
    Discard found[4];

    g_assert_cmpuint(discards_parse(line, getpid(), found, 4), ==, 2);
    g_assert_cmphex(found[1].start, ==, 0x20000);
    g_assert_cmphex(found[1].end, ==, 0x23000);
    g_assert_cmpuint(discards_parse(line, getpid(), found, 1), ==, 1);
}

static gpointer give_back(gpointer memory)
{
    g_assert_no_errno(madvise(memory, LENGTH, MADV_DONTNEED));
    return NULL;
}

static int open_userfaultfd(guint8 *memory)
{
    struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE };
    struct uffdio_register reg = { .range = { (guintptr)memory, LENGTH },
                                   .mode = UFFDIO_REGISTER_MODE_MISSING };
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

    if (fd < 0) {
        g_test_skip("no userfaultfd may be made here");
        return -1;
    }
    g_assert_no_errno(ioctl(fd, UFFDIO_API, &api));
    g_assert_no_errno(ioctl(fd, UFFDIO_REGISTER, &reg));
    return fd;
}

static void test_thread(void)
{
    guint8 *memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sf_autofd tasks = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    Discard found[4] = { { .start = 0 } };
    struct uffd_msg message;

    memset(memory, 'b', LENGTH);
    sf_autofd uffd = open_userfaultfd(memory);
    if (uffd < 0) {
        return;
    }
    g_assert_cmpuint(discards_find(tasks, getpid(), found, 4), ==, 0);
    GThread *thread = g_thread_new("gives-back", give_back, memory);
    for (guint i = 0; i < 5000 && discards_find(tasks, getpid(), found, 4) == 0; i++) {
        g_usleep(1000);
    }
    g_assert_cmphex(found[0].start, ==, (guintptr)memory);
    g_assert_cmphex(found[0].end, ==, (guintptr)memory + LENGTH);
    g_assert_cmpint(found[0].advice, ==, MADV_DONTNEED);
    g_assert_cmpint(memory[PAGE], ==, 'b');
    while (read(uffd, &message, sizeof(message)) != sizeof(message)) {
        g_usleep(1000); /* it was seen a moment before its event was queued */
    }
    g_assert_cmpint(message.event, ==, UFFD_EVENT_REMOVE);
    g_thread_join(thread);
    munmap(memory, LENGTH);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/discards/parse", test_parse);
    g_test_add_func("/discards/parse-vectors", test_parse_vectors);
    g_test_add_func("/discards/thread", test_thread);
    return g_test_run();
}
