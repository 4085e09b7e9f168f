/*
 * The judge judged, end to end: with one rule of docs/devel/invariants.md broken, images are not
 * one instant, and the tests see it, whatever guest it is; with a feature of the kernel missing,
 * they still are. "test-mutations kvm" breaks the rules under KVM.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include <unistd.h>

#include "instant-case.h"

#define MUTANT_SNAPSHOTS 10
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
static gboolean image_is_one_instant(const InstantCase *c, const char *image)
{
    g_autoptr(InstantMemory) memory = instant_case_new_memory(c);
    g_autoptr(GError) err = NULL;
    InstantResult result;

    instant_memory_load_image(memory, image, 0, &err);
    g_assert_no_error(err);
    gboolean good = instant_check(memory, &result);

    if (!good) {
        g_test_message("%s", result.text->str);
        g_assert_cmpuint(result.missing + result.foreign, ==, 0);
    }
    instant_result_clear(&result);
    return good;
}

/*
 * A broken rule shows only when something is written at the right moment: the vCPUs' rounds are
 * short, or the vCPU has one page and it is the device that writes all the time.
 */
typedef struct MutantGuest {
    const char *name;
    const char *kind;
    guint cpus;
    InstantDevice device;
    const char *ranges;
} MutantGuest;

static const MutantGuest mutant_guests[] = {
    { "vcpu", "transparent-huge", 1, INSTANT_NO_DEVICE, "ranges=0x1000000+0x400000" },
    { "vcpus", "memfd-shared", 4, INSTANT_NO_DEVICE, "ranges=0x1000000+0x400000" },
    { "disk", "memfd-shared", 1, INSTANT_DISK_IOTHREAD, "ranges=0x1000000+0x1000" },
    { "net", "anonymous-4k", 1, INSTANT_NET, "ranges=0x1000000+0x1000" },
};

typedef struct Mutant {
    const char *fault;
    const MutantGuest *guest;
    gboolean kvm;
} Mutant;

static void hunt_mutant(const Mutant *mutant, const InstantCase *c)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *image = test_dir_file(dir, "image");
    g_autoptr(TestVm) vm = instant_case_new_vm(c, dir, FALSE);
    guint taken = 0;
    gboolean found = FALSE;

    instant_case_launch(c, vm);
    while (!found && taken < MUTANT_SNAPSHOTS) {
        instant_case_snapshot(c, vm, image, NULL);
        taken++;
        found = !image_is_one_instant(c, image);
    }
    if (!found) {
        g_error("%u snapshots with \"%s\" were all found to be right: the judge is blind to it",
                taken, mutant->fault);
    }
    g_test_message("found in snapshot %u", taken);
    /* The rules that are broken are about the image: the guest itself is not harmed. */
    instant_case_assert_goes_on(c, vm);
}

static void test_mutant(gconstpointer data)
{
    const Mutant *mutant = data;
    const MutantGuest *guest = mutant->guest;
    const InstantCase c = {
        .kind = memory_kind_find(guest->kind),
        .kvm = mutant->kvm,
        .cpus = guest->cpus,
        .device = guest->device,
        .ranges = guest->ranges,
        .faults = mutant->fault,
    };
    TestReaper *hugepages;

    if (instant_case_begin(&c, &hugepages)) {
        hunt_mutant(mutant, &c);
        instant_case_end(hugepages);
    }
}

static void add_mutants(gboolean kvm)
{
    static const char *const faults[] = { "lose-touched-page", "release-before-copy",
                                          "ignore-claim" };

    for (guint i = 0; i < G_N_ELEMENTS(faults) * G_N_ELEMENTS(mutant_guests); i++) {
        const MutantGuest *guest = &mutant_guests[i / G_N_ELEMENTS(faults)];

        /* Devices write from QEMU's own threads: KVM has no part in it. */
        if (kvm && guest->device != INSTANT_NO_DEVICE) {
            continue;
        }
        Mutant *mutant = g_new0(Mutant, 1);
        mutant->fault = faults[i % G_N_ELEMENTS(faults)];
        mutant->guest = guest;
        mutant->kvm = kvm;
        g_autofree char *path = g_strdup_printf("/mutations/%s/%s-%s", kvm ? "kvm" : "tcg",
                                                mutant->fault, mutant->guest->name);
        g_test_add_data_func_full(path, mutant, test_mutant, g_free);
    }
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
    static const Fallback fallbacks[] = {
        { "no-wp-unpopulated", "\"holes-by\" : \"reading\"" },
        { "no-uffd-syscall", "\"userfaultfd-by\" : \"/dev/userfaultfd\"" },
        { "no-uffd-device", "\"userfaultfd-by\" : \"userfaultfd(2)\"" },
        { "no-o-tmpfile", NULL },
        { "wp-one-mapping", NULL },
    };
    g_autofree char *reason = NULL;

    g_test_init(&argc, &argv, NULL);
    gboolean kvm = argc > 1 && g_str_equal(argv[1], "kvm");
    if (kvm && !test_have_kvm(&reason)) {
        test_skip_all(reason);
    }
    add_mutants(kvm);
    for (guint i = 0; !kvm && i < G_N_ELEMENTS(fallbacks); i++) {
        g_autofree char *path = g_strdup_printf("/mutations/%s", fallbacks[i].fault);
        g_test_add_data_func(path, &fallbacks[i], test_fallback);
    }
    if (!kvm) {
        g_test_add_func("/mutations/late-release", test_late_release);
    }
    return g_test_run();
}
