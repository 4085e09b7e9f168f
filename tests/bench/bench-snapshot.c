/*
 * Our snapshot beside QEMU's own background-snapshot, of the same guest in the same run: what the
 * guest feels, seen from outside. The guest counts its page writes in shared memory; a sampler
 * reads the counter 20,000 times a second.
 *
 * Options: --memory MIB (2048), --set MIB (512), --rounds N (5), --linear.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "guest/layout.h"
#include "migration/clock.h"
#include "util/autofd.h"
#include "vm.h"

#define SAMPLE_NS 200000
#define SAMPLES_MAX (4u << 20)
#define NORMAL_NS (1500 * 1000 * 1000ULL)
#define TAIL_NS (200 * 1000 * 1000ULL)
/* The guest's own code and stack lie below; its working set begins here. */
#define SET_START (16ULL << 20)

typedef struct Sample {
    guint64 ns;
    guint64 counter;
} Sample;

typedef struct Sampler {
    const volatile guint64 *counter;
    Sample *sample;
    volatile guint n;
    volatile gboolean stop;
    GThread *thread;
} Sampler;

/* What one snapshot cost. */
typedef struct Figures {
    double downtime_ms;
    double total_s;
    double lost_s;        /* seconds of the guest's normal work */
    double standstill_ms; /* the longest time without progress, the downtime included */
    double fault_p50_us, fault_p99_us;
} Figures;

typedef struct Bench {
    gint memory_mib, set_mib, rounds;
    gboolean linear;
    TestVm *vm;
    guint8 *memory; /* the guest's, mapped here */
    Sampler sampler;
    char *image;
} Bench;

static gpointer sampler_thread(gpointer data)
{
    Sampler *sampler = data;
    const struct timespec pause = { .tv_nsec = SAMPLE_NS };

    while (!sampler->stop && sampler->n < SAMPLES_MAX) {
        guint n = sampler->n;
        sampler->sample[n] = (Sample){ .ns = clock_now_ns(), .counter = *sampler->counter };
        sampler->n = n + 1;
        clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    }
    return NULL;
}

static void sampler_start(Sampler *sampler)
{
    sampler->n = 0;
    sampler->stop = FALSE;
    sampler->thread = g_thread_new("sampler", sampler_thread, sampler);
}

static void sampler_stop(Sampler *sampler)
{
    sampler->stop = TRUE;
    g_thread_join(sampler->thread);
}

static guint64 counter_at(const Sampler *sampler, guint64 ns)
{
    guint low = 0, high = sampler->n - 1;

    while (low < high) {
        guint middle = (low + high + 1) / 2;
        if (sampler->sample[middle].ns <= ns) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return sampler->sample[low].counter;
}

static double longest_standstill(const Sampler *sampler, guint64 from, guint64 to)
{
    guint64 longest = 0, since = 0, value = 0;

    for (guint i = 0; i < sampler->n; i++) {
        const Sample *sample = &sampler->sample[i];
        if (sample->ns < from || sample->ns > to) {
            continue;
        }
        if (!since || sample->counter != value) {
            since = sample->ns;
            value = sample->counter;
        }
        longest = MAX(longest, sample->ns - since);
    }
    return (double)longest / 1e6;
}

/* Work that is missing between @from and @to (and a tail), against the rate before @from. */
static void judge(const Sampler *sampler, guint64 from, guint64 to, Figures *figures)
{
    guint64 end = to + TAIL_NS;
    double rate = (double)(counter_at(sampler, from) - counter_at(sampler, from - NORMAL_NS)) /
                  (double)NORMAL_NS;
    double done = (double)(counter_at(sampler, end) - counter_at(sampler, from));

    figures->lost_s = ((double)(end - from) - done / rate) / 1e9;
    figures->standstill_ms = longest_standstill(sampler, from, end);
    figures->total_s = (double)(to - from) / 1e9;
}

static double number_in(JsonObject *object, const char *outer, const char *inner)
{
    return json_object_get_double_member(json_object_get_object_member(object, outer), inner);
}

/*
 * Both write into the same file, whose pages exist already: where a virtual machine gets its memory
 * from its host page by page, new pages are what would be measured otherwise.
 */
static void run_ours(Bench *bench, Figures *figures)
{
    g_autofree char *out = NULL;
    g_autofree char *err = NULL;
    g_autofree char *line =
        g_strdup_printf("exec \"$STILLFRAME_BIN\" snapshot --json --qmp '%s' fd:7 7<> '%s'",
                        test_vm_get_socket(bench->vm), bench->image);
    const char *const argv[] = { "/bin/sh", "-c", line, NULL };
    int status = test_tool_finish(test_tool_start_command(argv), 60000, &out, &err);

    if (status != 0) {
        g_error("stillframe failed: %s", err);
    }
    g_autoptr(JsonNode) node = json_from_string(out, NULL);
    JsonObject *report = json_node_get_object(node);
    JsonObject *faults = json_object_get_object_member(report, "faults");
    figures->downtime_ms = number_in(report, "downtime-ms", "total");
    figures->fault_p50_us = number_in(faults, "latency-us", "p50");
    figures->fault_p99_us = number_in(faults, "latency-us", "p99");
}

/* Into a plain file by descriptor: no second process beside QEMU that would cost it time. */
static void run_qemus(Bench *bench, Figures *figures)
{
    QmpClient *qmp = test_vm_get_qmp(bench->vm);
    sf_autofd fd = open(bench->image, O_WRONLY | O_CLOEXEC);
    JsonObject *name = json_object_new();
    json_object_set_string_member(name, "fdname", "bench");

    g_autoptr(JsonNode) got = qmp_client_execute_with_fd(qmp, "getfd", name, fd, NULL);
    g_assert_nonnull(got);
    test_vm_qmp_void(bench->vm, "migrate", "{'uri': 'fd:bench'}");
    for (;;) {
        g_autoptr(JsonNode) node = test_vm_qmp(bench->vm, "query-migrate", NULL);
        JsonObject *info = json_node_get_object(node);
        const char *status = json_object_get_string_member(info, "status");
        if (g_str_equal(status, "completed")) {
            figures->downtime_ms = (double)json_object_get_int_member(info, "downtime");
            return;
        }
        if (g_str_equal(status, "failed")) {
            g_error("QEMU's own background-snapshot failed");
        }
        g_usleep(5000);
    }
}

static void measure(Bench *bench, gboolean ours, Figures *figures)
{
    sampler_start(&bench->sampler);
    g_usleep((NORMAL_NS + TAIL_NS) / 1000);
    guint64 from = clock_now_ns();
    if (ours) {
        run_ours(bench, figures);
    } else {
        run_qemus(bench, figures);
    }
    guint64 to = clock_now_ns();
    g_usleep(2 * TAIL_NS / 1000);
    sampler_stop(&bench->sampler);
    judge(&bench->sampler, from, to, figures);
    printf("  %-12s downtime %7.2f ms  total %6.3f s  lost %6.3f s  longest standstill %7.2f ms",
           ours ? "stillframe" : "QEMU's own", figures->downtime_ms, figures->total_s,
           figures->lost_s, figures->standstill_ms);
    if (ours) {
        printf("  fault p50 %.0f p99 %.0f us", figures->fault_p50_us, figures->fault_p99_us);
    }
    printf("\n");
    fflush(stdout);
}

/* Opens the file that is the guest's memory, through QEMU's own descriptor. */
static int open_memory(Bench *bench)
{
    g_autofree char *folder = g_strdup_printf("/proc/%d/fd", test_vm_get_pid(bench->vm));
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *entry;

    while ((entry = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, entry, NULL);
        g_autofree char *target = g_file_read_link(path, NULL);
        if (target && strstr(target, "memory-backend-memfd")) {
            return open(path, O_RDWR | O_CLOEXEC);
        }
    }
    g_error("QEMU's memory file was not found");
}

static void write_image_file(Bench *bench)
{
    g_autofree guint8 *data = g_malloc0(1 << 20);
    sf_autofd fd = open(bench->image, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);

    g_assert_cmpint(fd, >=, 0);
    for (gint i = 0; i < bench->memory_mib + 64; i++) {
        g_assert_cmpint(write(fd, data, 1 << 20), ==, 1 << 20);
    }
}

/* Fills what the guest does not write with bytes that are not zero; maps all of it for reading. */
static void populate(Bench *bench)
{
    guint64 size = (guint64)bench->memory_mib << 20;
    guint64 state = 1;
    sf_autofd fd = open_memory(bench);
    guint8 *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    g_assert_true(memory != MAP_FAILED);
    for (guint64 at = SET_START + ((guint64)bench->set_mib << 20); at + 8 <= size - (1 << 20);
         at += 8) {
        state = state * GUEST_ORDER_MULTIPLIER + GUEST_ORDER_INCREMENT;
        *(guint64 *)(memory + at) = state | 1;
    }
    munmap(memory, size);
    /* Not writable: a second process that could write guest memory forbids a snapshot. */
    bench->memory = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    g_assert_true(bench->memory != MAP_FAILED);
}

static void start_vm(Bench *bench)
{
    g_autofree char *memory = g_strdup_printf("%dM", bench->memory_mib);
    g_autofree char *object = g_strdup_printf(
        "memory-backend-memfd,id=mem0,size=%dM,share=on,prealloc=on", bench->memory_mib);
    g_autofree char *append = g_strdup_printf("ranges=0x%llx+0x%llx every=64%s", SET_START,
                                              (unsigned long long)bench->set_mib << 20,
                                              bench->linear ? " order=linear" : "");

    bench->vm =
        test_vm_start(TEST_VM_DEFAULT, "-M", "q35,memory-backend=mem0", "-m", memory, "-object",
                      object, "-kernel", test_guest_path(), "-append", append, NULL);
    test_vm_serial_wait(bench->vm, "V", 60000); /* a whole round: the set is populated too */
    populate(bench);
    bench->sampler.counter =
        (const volatile guint64 *)(bench->memory + GUEST_STATE_ADDRESS +
                                   G_STRUCT_OFFSET(struct guest_state, counter));
    test_vm_qmp_void(bench->vm, "migrate-set-capabilities",
                     "{'capabilities': [{'capability': 'background-snapshot', 'state': true}]}");
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

static double median(const Figures *figures, guint n, gsize offset, double *low, double *high)
{
    g_autofree double *value = g_new(double, n);

    for (guint i = 0; i < n; i++) {
        value[i] = *(const double *)((const guint8 *)&figures[i] + offset);
    }
    qsort(value, n, sizeof(*value), compare);
    *low = value[0];
    *high = value[n - 1];
    return (value[(n - 1) / 2] + value[n / 2]) / 2;
}

static void print_row(const char *name, const Figures *ours, const Figures *theirs, guint n,
                      gsize offset)
{
    double low, high, their_low, their_high;
    double mine = median(ours, n, offset, &low, &high);
    double their = median(theirs, n, offset, &their_low, &their_high);

    printf("%-26s %9.3f (%.3f to %.3f) %12.3f (%.3f to %.3f)   1/%.1f\n", name, mine, low, high,
           their, their_low, their_high, their / mine);
}

static void print_table(const Figures *ours, const Figures *theirs, guint n)
{
    printf(
        "\nmedians of %u (least to most)   stillframe                   QEMU's own        ratio\n",
        n);
    print_row("downtime, ms", ours, theirs, n, G_STRUCT_OFFSET(Figures, downtime_ms));
    print_row("total time, s", ours, theirs, n, G_STRUCT_OFFSET(Figures, total_s));
    print_row("guest work lost, s", ours, theirs, n, G_STRUCT_OFFSET(Figures, lost_s));
    print_row("longest standstill, ms", ours, theirs, n, G_STRUCT_OFFSET(Figures, standstill_ms));
}

static gboolean parse(Bench *bench, int *argc, char ***argv)
{
    const GOptionEntry entries[] = {
        { "memory", 0, 0, G_OPTION_ARG_INT, &bench->memory_mib, "Guest memory", "MIB" },
        { "set", 0, 0, G_OPTION_ARG_INT, &bench->set_mib, "What the guest writes", "MIB" },
        { "linear", 0, 0, G_OPTION_ARG_NONE, &bench->linear, "Page after page, not scattered",
          NULL },
        { "rounds", 0, 0, G_OPTION_ARG_INT, &bench->rounds, "Rounds of each", "N" },
        { NULL },
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_autoptr(GError) error = NULL;

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, argc, argv, &error)) {
        fprintf(stderr, "%s\n", error->message);
        return FALSE;
    }
    return bench->rounds > 0 && bench->memory_mib >= bench->set_mib + 32;
}

int main(int argc, char **argv)
{
    Bench bench = { .memory_mib = 2048, .set_mib = 512, .rounds = 5 };

    if (!parse(&bench, &argc, &argv)) {
        return 2;
    }
    bench.sampler.sample = g_new0(Sample, SAMPLES_MAX);
    start_vm(&bench);
    /* In memory, and ended with the VM's directory whatever happens. */
    bench.image = g_strdup_printf("/dev/shm/stillframe-bench-%d.img", (int)getpid());
    write_image_file(&bench);
    g_autofree Figures *ours = g_new0(Figures, bench.rounds);
    g_autofree Figures *theirs = g_new0(Figures, bench.rounds);
    printf("%d MiB guest, %d MiB rewritten all the time, destination in memory\n", bench.memory_mib,
           bench.set_mib);
    /* What is touched for the first time, in any of the programs, is paid before it counts. */
    Figures warm_up;
    printf("Warming up, not counted:\n");
    measure(&bench, TRUE, &warm_up);
    measure(&bench, FALSE, &warm_up);
    printf("Measured:\n");
    for (gint i = 0; i < bench.rounds; i++) {
        measure(&bench, i % 2 == 0, i % 2 == 0 ? &ours[i] : &theirs[i]);
        measure(&bench, i % 2 != 0, i % 2 != 0 ? &ours[i] : &theirs[i]);
    }
    print_table(ours, theirs, (guint)bench.rounds);
    test_vm_free(bench.vm);
    unlink(bench.image);
    g_free(bench.image);
    g_free(bench.sampler.sample);
    return 0;
}
