/*
 * The judge judged, end to end: with one rule of docs/devel/invariants.md broken, images are not
 * one instant, and the tests see it; with a feature of the kernel missing, they still are.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include <unistd.h>

#include "writer-guest.h"

/* A broken rule shows only when the guest writes at the right moment: its rounds are short. */
#define MUTANT_SNAPSHOTS 10
#define MUTANT_RANGES "ranges=0x1000000+0x400000"
#define FALLBACK_SNAPSHOTS 3

/* Returns the report as text; the caller frees. */
static char *take_snapshot(TestVm *vm, const char *faults, const char *image)
{
    g_autofree char *said = NULL;
    char *report = NULL;
    TestTool *tool = test_tool_start_faulty(
        faults, (const char *const[]){ "snapshot", "--no-sync", "--json", "--qmp",
                                       test_vm_get_socket(vm), image, NULL });

    int status = test_tool_finish(tool, 60000, &report, &said);
    g_assert_cmpstr(said, ==, "");
    g_assert_cmpint(status, ==, 0);
    return report;
}

/* Whether the image is one instant; what is wrong with it goes to the log. */
static gboolean image_is_one_instant(const char *image)
{
    g_autoptr(InstantMemory) memory = writer_guest_load_image(image, 0);
    InstantResult result;
    gboolean good = instant_check(memory, &result);

    if (!good) {
        g_test_message("%s", result.text->str);
        g_assert_cmpuint(result.missing + result.foreign, ==, 0);
    }
    instant_result_clear(&result);
    return good;
}

static void test_mutant(gconstpointer data)
{
    if (!test_need_faults()) {
        return;
    }
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *image = test_dir_file(dir, "image");
    g_autoptr(TestVm) vm = writer_guest_start("-append", MUTANT_RANGES, NULL);
    guint taken = 0;
    gboolean found = FALSE;

    while (!found && taken < MUTANT_SNAPSHOTS) {
        g_free(take_snapshot(vm, data, image));
        taken++;
        found = !image_is_one_instant(image);
    }
    if (!found) {
        g_error("%u snapshots with \"%s\" were all found to be right: the judge is blind to it",
                taken, (const char *)data);
    }
    g_test_message("found in snapshot %u", taken);
    /* The rules that are broken are about the image: the guest itself is not harmed. */
    writer_guest_assert_goes_on(vm);
}

typedef struct Fallback {
    const char *fault;
    const char *report; /* what the report must have then; NULL: it does not show */
} Fallback;

static void test_fallback(gconstpointer data)
{
    const Fallback *fallback = data;
    if (!test_need_faults()) {
        return;
    }
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *image = test_dir_file(dir, "image");
    g_autoptr(TestVm) vm = writer_guest_start(NULL);

    if (g_str_equal(fallback->fault, "no-uffd-syscall") && access("/dev/userfaultfd", R_OK) != 0) {
        g_test_skip("no /dev/userfaultfd here: there is no other door");
        return;
    }
    for (guint i = test_repeat(FALLBACK_SNAPSHOTS); i > 0; i--) {
        g_autofree char *report = take_snapshot(vm, fallback->fault, image);
        g_assert_true(!fallback->report || strstr(report, fallback->report));
        writer_guest_check_image(image, 0);
        test_dir_assert_holds(dir, "image", NULL);
    }
    writer_guest_assert_goes_on(vm);
    g_clear_pointer(&vm, test_vm_free);
    writer_guest_assert_loads(image, "running");
}

/*
 * The sweep unregisters a region of shared memory when all its pages are saved, though a fault
 * thread has yet to release one of them: the kernel answers ENOENT then, and the writer was woken
 * already.
 */
static void test_late_release(void)
{
    if (!test_need_faults()) {
        return;
    }
    g_autoptr(TestDir) dir = test_dir_new();
    g_autoptr(InstantMemory) memory = instant_memory_new();
    g_autofree char *image = test_dir_file(dir, "image");
    g_autoptr(TestVm) vm =
        writer_guest_start("-machine", "memory-backend=mem0", "-object",
                           "memory-backend-memfd,id=mem0,size=96M,share=on", NULL);

    g_free(take_snapshot(vm, "late-release", image));
    instant_memory_map(memory, 0, 96 << 20, "mem0", 0);
    instant_check_image(memory, image);
    writer_guest_assert_goes_on(vm);
}

int main(int argc, char **argv)
{
    static const char *const mutants[] = { "lose-touched-page", "release-before-copy",
                                           "ignore-claim" };
    static const Fallback fallbacks[] = {
        { "no-wp-unpopulated", "\"holes-by\" : \"reading\"" },
        { "no-uffd-syscall", "\"userfaultfd-by\" : \"/dev/userfaultfd\"" },
        { "no-uffd-device", "\"userfaultfd-by\" : \"userfaultfd(2)\"" },
        { "no-o-tmpfile", NULL },
        { "wp-one-mapping", NULL },
    };

    g_test_init(&argc, &argv, NULL);
    for (guint i = 0; i < G_N_ELEMENTS(mutants); i++) {
        g_autofree char *path = g_strdup_printf("/mutations/%s", mutants[i]);
        g_test_add_data_func(path, mutants[i], test_mutant);
    }
    for (guint i = 0; i < G_N_ELEMENTS(fallbacks); i++) {
        g_autofree char *path = g_strdup_printf("/mutations/%s", fallbacks[i].fault);
        g_test_add_data_func(path, &fallbacks[i], test_fallback);
    }
    g_test_add_func("/mutations/late-release", test_late_release);
    return g_test_run();
}
