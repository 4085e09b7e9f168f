/*
 * stillframe restore --lazy: the guest runs before its memory is read and finds every byte of it
 * right, in every kind of memory and from every form of image; afterwards QEMU is as if it had
 * loaded the plain way. And the death of the page server costs the guest nothing but time.
 *
 *   test-lazy          as in make check
 *   test-lazy series   50 deaths
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <signal.h>
#include <string.h>

#include "instant-case.h"

#define MIB (1024 * 1024ULL)
#define LIST(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define EXIT_WAIT_MS 60000

/* ---- Everything there, everything right ---- */

static void assert_no_userfaultfd(TestVm *vm)
{
    g_autofree char *folder = g_strdup_printf("/proc/%d/fd", (int)test_vm_get_pid(vm));
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        g_autofree char *target = g_file_read_link(path, NULL);
        g_assert_cmpstr(target, !=, "anon_inode:[userfaultfd]");
    }
}

/* The snapshot of a restored guest is one instant like any other. */
static void restore_and_snapshot(const InstantCase *c, TestDir *dir, const char *image)
{
    g_autofree char *again = test_dir_file(dir, "again");
    g_autoptr(TestVm) vm = instant_case_restore_with(c, dir, image, LIST("--lazy"));

    assert_no_userfaultfd(vm);
    instant_case_snapshot(c, vm, again, NULL);
    instant_case_check_image(c, again);
    instant_case_assert_goes_on(c, vm);
}

static void convert(const char *from, const char *to, const char *format)
{
    g_autofree char *said = NULL;

    if (test_tool_run(NULL, &said, "convert", "--format", format, from, to, NULL) != 0) {
        g_error("convert failed: %s", said);
    }
}

static char *take_image(const InstantCase *c, TestDir *dir)
{
    char *image = test_dir_file(dir, "image");
    g_autoptr(TestVm) vm = instant_case_new_vm(c, dir, FALSE);

    instant_case_launch(c, vm);
    instant_case_snapshot(c, vm, image, NULL);
    return image;
}

static void run_kind(const InstantCase *c)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *image = take_image(c, dir);
    g_autofree char *mapped = test_dir_file(dir, "mapped");

    restore_and_snapshot(c, dir, image);
    convert(image, mapped, "mapped-ram");
    TestVm *vm = instant_case_restore_with(c, dir, mapped, LIST("--lazy"));
    test_vm_free(vm);
}

static void test_kind(gconstpointer data)
{
    const InstantCase c = { .kind = memory_kind_find(data), .cpus = 2, .device = INSTANT_DISK };
    TestReaper *hugepages;

    if (instant_case_begin(&c, &hugepages)) {
        run_kind(&c);
        instant_case_end(hugepages);
    }
}

/* ---- While it lasts ---- */

typedef struct Slow {
    InstantCase c;
    TestDir *dir;
    char *image;
    TestVm *vm;
    TestTool *tool;
    TestReaper *hugepages;
} Slow;

/* Until the QEMU that somebody else starts has its guest running. */
static void wait_running(TestVm *vm)
{
    g_autoptr(QmpClient) qmp = NULL;
    gboolean running = FALSE;

    for (guint i = 0; i < 4000 && !qmp; i++) {
        g_usleep(5000);
        qmp = qmp_client_open(test_vm_get_socket(vm), 10000, NULL);
    }
    g_assert_nonnull(qmp);
    for (guint i = 0; i < 4000 && !running; i++) {
        g_autoptr(JsonNode) status = qmp_client_execute(qmp, "query-status", NULL, NULL);
        running = json_object_get_boolean_member(json_node_get_object(status), "running");
        g_usleep(5000);
    }
    g_assert_true(running);
}

/* A restore that takes some seconds, for its background is limited; the guest runs already. */
static void slow_begin(Slow *slow, const char *kind, const char *limit, const char *option)
{
    *slow = (Slow){ .c = { .kind = memory_kind_find(kind) }, .dir = test_dir_new() };
    g_assert_true(instant_case_begin(&slow->c, &slow->hugepages));
    slow->image = take_image(&slow->c, slow->dir);
    slow->vm = instant_case_new_vm(&slow->c, slow->dir, TRUE);
    g_autoptr(GPtrArray) args = instant_case_restore_args(
        slow->vm, slow->image, LIST("--lazy", "--max-bandwidth", limit, option));
    slow->tool = test_tool_start((const char *const *)args->pdata);
    wait_running(slow->vm);
    test_vm_adopt(slow->vm);
}

static void slow_end(Slow *slow)
{
    test_vm_free(slow->vm);
    g_free(slow->image);
    test_dir_free(slow->dir);
    instant_case_end(slow->hugepages);
}

/* A snapshot in the meantime is refused, at once and with the reason. */
static void test_snapshot_meanwhile(void)
{
    Slow slow;
    g_autofree char *said = NULL;

    slow_begin(&slow, "anonymous-4k", "4M", "--no-supervisor");
    g_autofree char *again = test_dir_file(slow.dir, "again");
    int status =
        test_tool_run(NULL, &said, "snapshot", "--qmp", test_vm_get_socket(slow.vm), again, NULL);
    g_assert_cmpint(status, !=, 0);
    g_assert_nonnull(strstr(said, "lazy restore"));
    test_vm_kill(slow.vm);
    g_autofree char *end = NULL;
    g_assert_cmpint(test_tool_finish(slow.tool, EXIT_WAIT_MS, NULL, &end), ==, 1);
    g_assert_nonnull(strstr(end, "ended before all of its memory was there"));
    slow_end(&slow);
}

int main(int argc, char **argv)
{
    static const char *const kinds[] = { "anonymous-4k",   "transparent-huge", "memfd-shared",
                                         "memfd-private",  "hugetlb-shared",   "hugetlb-private",
                                         "two-numa-nodes", "hot-plugged-dimm", "sparse" };

    g_test_init(&argc, &argv, NULL);
    for (guint i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autofree char *path = g_strdup_printf("/lazy/kind/%s", kinds[i]);
        g_test_add_data_func(path, kinds[i], test_kind);
    }
    g_test_add_func("/lazy/snapshot-meanwhile", test_snapshot_meanwhile);
    return g_test_run();
}
