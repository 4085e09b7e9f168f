/*
 * The snapshot thread: the seven steps, from top to bottom.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "clock.h"
#include "snapshot-impl.h"
#include "util/autofd.h"
#include "util/fault-injection.h"

#define LOOK_INTERVAL_MS 100
#define LOOK_INTERVAL_NS (LOOK_INTERVAL_MS * 1000 * 1000ULL)
#define FAULT_THREADS_MAX 4U
#define CANCEL_LOOK_US 10000

static void report_progress(Snapshot *snapshot)
{
    const SnapshotOptions *options = snapshot->options;
    SnapshotProgress progress = {
        .phase = snapshot->phase,
        .total_bytes = snapshot->ram ? snapshot->ram->bytes : 0,
        .saved_bytes = output_get_saved(&snapshot->output),
        .zero_bytes = output_get_zero(&snapshot->output),
        .written_bytes = snapshot->channel ? channel_get_bytes(snapshot->channel) : 0,
        .faults = snapshot->faults ? fault_service_get_faults(snapshot->faults) : 0,
        .buffer_used = snapshot->pool ? buffer_pool_get_used(snapshot->pool) : 0,
    };
    if (options->progress) {
        options->progress(&progress, options->progress_user);
    }
}

static void enter_phase(Snapshot *snapshot, SnapshotPhase phase)
{
    snapshot->phase = phase;
    if (snapshot->options->enter_phase) {
        report_progress(snapshot);
        snapshot->options->enter_phase(phase, snapshot->options->progress_user);
    }
}

static gboolean look_around(Snapshot *snapshot, GError **errp)
{
    struct pollfd exited = { .fd = snapshot->pidfd, .events = POLLIN };

    if (poll(&exited, 1, 0) > 0) {
        g_set_error(errp, SF_ERROR, SF_ERROR_VM_GONE, "QEMU exited during the snapshot");
        return FALSE;
    }
    report_progress(snapshot);
    return TRUE;
}

gboolean snapshot_keep_going(gpointer user, GError **errp)
{
    Snapshot *snapshot = user;

    if (*snapshot->cancel) {
        g_set_error(errp, SF_ERROR, SF_ERROR_CANCELLED, "the snapshot was cancelled");
        return FALSE;
    }
    if (outcome_has_failed(&snapshot->outcome)) {
        return outcome_take_error(&snapshot->outcome, errp);
    }
    guint64 now = clock_now_ns();
    if (now < snapshot->next_look_ns) {
        return TRUE;
    }
    snapshot->next_look_ns = now + LOOK_INTERVAL_NS;
    return look_around(snapshot, errp);
}

static guint choose_fault_threads(const SnapshotOptions *options)
{
    if (options->fault_threads) {
        return options->fault_threads;
    }
    /* Two even on one core: a thread that waits for the pool must not hold up the others' faults.
     */
    return CLAMP(g_get_num_processors() / 2, 2U, FAULT_THREADS_MAX);
}

/* The destination is opened before anything is done to the VM: most mistakes show here. */
static gboolean open_output(Snapshot *snapshot, GError **errp)
{
    const SnapshotOptions *options = snapshot->options;

    snapshot->pool = buffer_pool_new(options->max_buffer, errp);
    if (!snapshot->pool) {
        return FALSE;
    }
    snapshot->outcome.pool = snapshot->pool;
    if (!snapshot_open_image(snapshot, errp)) {
        return FALSE;
    }
    snapshot->output.pool = snapshot->pool;
    return snapshot_begin_image(snapshot, errp);
}

static gboolean open_tracking(Snapshot *snapshot, GError **errp)
{
    guint64 began = clock_now_ns();
    guint64 offered = 0;
    UffdDoor door = UFFD_DOOR_SYSCALL;

    if (!userfaultfd_query_features(&offered, errp)) {
        return FALSE;
    }
    int uffd = attach_userfaultfd(snapshot->guardian, snapshot->pid, snapshot->qmp, &door, errp);
    if (uffd < 0 || !write_tracking_open(&snapshot->tracking, uffd, offered, snapshot->ram, errp)) {
        return FALSE;
    }
    snapshot->report->door = door == UFFD_DOOR_DEVICE ? "/dev/userfaultfd" : "userfaultfd(2)";
    snapshot->report->holes_by = snapshot->tracking.unpopulated ? "WP_UNPOPULATED" : "reading";
    snapshot->report->attach_ns = clock_now_ns() - began;
    return TRUE;
}

/* What the freeze will need from the monitor is made ready, so that it holds three commands only.
 */
static gboolean prepare_devices(Snapshot *snapshot, GError **errp)
{
    if (!device_capture_prepare(&snapshot->devices, snapshot->qmp, snapshot->was_running, errp)) {
        return FALSE;
    }
    guardian_set_fdset(snapshot->guardian, snapshot->devices.fdset);
    return TRUE;
}

/* Step 3. From here on the fault service runs until the last page is released. */
static gboolean pre_arm(Snapshot *snapshot, GError **errp)
{
    guint64 began = clock_now_ns();

    enter_phase(snapshot, SNAPSHOT_PHASE_ARM);
    snapshot->tracking.keep_going = snapshot_keep_going;
    snapshot->tracking.user = snapshot;
    snapshot->report->fault_threads = choose_fault_threads(snapshot->options);
    snapshot->faults =
        fault_service_start(snapshot->ram, &snapshot->tracking, snapshot->pool, &snapshot->outcome,
                            snapshot->options->on_full, snapshot->report->fault_threads, errp);
    if (!snapshot->faults) {
        return FALSE;
    }
    if (!arm_all(snapshot->ram, &snapshot->tracking, snapshot_keep_going, snapshot, errp)) {
        return FALSE;
    }
    if (fault_injected("long-arm")) {
        g_usleep(2 * G_USEC_PER_SEC);
    }
    if (!arm_touched_until_few(snapshot->ram, &snapshot->tracking, snapshot_keep_going, snapshot,
                               &snapshot->report->arm_passes, errp)) {
        return FALSE;
    }
    snapshot->report->arm_ns = clock_now_ns() - began;
    return TRUE;
}

/* Step 4. */
static gboolean freeze(Snapshot *snapshot, GError **errp)
{
    enter_phase(snapshot, SNAPSHOT_PHASE_FREEZE);
    if (!snapshot_keep_going(snapshot, errp) || !snapshot_freeze(snapshot, errp) ||
        !device_capture_read(&snapshot->devices,
                             snapshot->was_running ? NULL : snapshot->report->run_state, errp)) {
        return FALSE;
    }
    snapshot->report->device_bytes = snapshot->devices.length;
    return TRUE;
}

/* Step 5. Ends when every page is saved, by the sweep or by a fault thread. */
static gboolean sweep(Snapshot *snapshot, GError **errp)
{
    guint64 began = clock_now_ns();
    Throttle throttle = { .max_bandwidth = snapshot->options->max_bandwidth,
                          .channel = snapshot->channel };

    enter_phase(snapshot, SNAPSHOT_PHASE_SWEEP);
    snapshot->sweep = sweep_start(snapshot->ram, &snapshot->tracking, &snapshot->output, throttle,
                                  &snapshot->outcome, errp);
    gboolean good = snapshot->sweep != NULL && snapshot_let_go_of_monitor(snapshot, errp);
    while (good && !sweep_wait(snapshot->sweep, LOOK_INTERVAL_MS)) {
        good = snapshot_keep_going(snapshot, errp);
    }
    while (good && sweep_get_pages(snapshot->sweep) + fault_service_get_saved(snapshot->faults) <
                       snapshot->ram->pages) {
        good = snapshot_keep_going(snapshot, errp);
        g_usleep(100);
    }
    snapshot->report->sweep_ns = clock_now_ns() - began;
    return good && (!snapshot->ksm || ksm_hold_check(snapshot->ksm, errp));
}

static void collect_fault_stats(SnapshotReport *report, const ServiceStats *stats)
{
    report->faults = stats->faults;
    report->faults_prearm = stats->faults_prearm;
    report->faults_spurious = stats->spurious;
    report->pages_faulted = stats->pages_saved;
    report->stalls = stats->stalls;
    report->stall_ns = stats->stall_ns;
    report->fault_latency = stats->latency;
}

/*
 * Step 6, first half: QEMU is as it was before. Also the way out of every failure. @lost: pages
 * may still be protected, and whoever waits for one is let go.
 */
static void release_guest(Snapshot *snapshot, gboolean lost)
{
    if (snapshot->faults && lost) {
        fault_service_set_phase(snapshot->faults, SERVICE_ABANDON);
        buffer_pool_close(snapshot->pool);
    }
    if (snapshot->sweep) {
        sweep_detach(snapshot->sweep);
    }
    if (snapshot->ram) {
        write_tracking_unregister_all(&snapshot->tracking, snapshot->ram, lost);
    }
    if (snapshot->faults) {
        ServiceStats stats = { 0 };
        fault_service_stop(snapshot->faults, &stats);
        snapshot->faults = NULL;
        collect_fault_stats(snapshot->report, &stats);
    }
    write_tracking_close(&snapshot->tracking);
}

static void stop_sweep(Snapshot *snapshot)
{
    snapshot->report->pages_swept = sweep_get_pages(snapshot->sweep);
    snapshot->report->pages_zero = output_get_zero(&snapshot->output) / snapshot->report->page_size;
    sweep_stop(snapshot->sweep);
    snapshot->sweep = NULL;
}

/* The end of the stream may have to wait for its reader, where nobody asks snapshot_keep_going().
 */
typedef struct CancelWatch {
    Snapshot *snapshot;
    gint done; /* atomic */
} CancelWatch;

static gpointer watch_cancel(gpointer data)
{
    CancelWatch *watch = data;

    while (!g_atomic_int_get(&watch->done)) {
        if (*watch->snapshot->cancel) {
            channel_interrupt(watch->snapshot->channel);
            break;
        }
        g_usleep(CANCEL_LOOK_US);
    }
    return NULL;
}

static gboolean commit(Snapshot *snapshot, GError **errp)
{
    CancelWatch watch = { .snapshot = snapshot };
    g_autoptr(GThread) thread = g_thread_try_new("sf-cancel", watch_cancel, &watch, errp);

    if (!thread) {
        return FALSE;
    }
    gboolean good =
        snapshot_finish_image(snapshot, errp) && channel_commit(snapshot->channel, errp);
    g_atomic_int_set(&watch.done, TRUE);
    g_thread_join(g_steal_pointer(&thread));
    return good;
}

/* Step 6, second half: the device state behind the RAM; the image is complete and gets its name. */
static gboolean finish(Snapshot *snapshot, GError **errp)
{
    guint64 began = clock_now_ns();

    enter_phase(snapshot, SNAPSHOT_PHASE_FINISH);
    buffer_pool_finish(snapshot->pool);
    while (!sweep_is_done(snapshot->sweep)) {
        if (!snapshot_keep_going(snapshot, errp)) {
            return FALSE;
        }
        g_usleep(500);
    }
    snapshot->report->buffer_peak = buffer_pool_get_peak(snapshot->pool);
    stop_sweep(snapshot);
    if (outcome_has_failed(&snapshot->outcome)) {
        return outcome_take_error(&snapshot->outcome, errp);
    }
    gboolean good = commit(snapshot, errp);
    snapshot->report->finish_ns = clock_now_ns() - began;
    return good;
}

/* Everything that is still there, on every path, in the order that harms nobody. */
static void cleanup(Snapshot *snapshot)
{
    release_guest(snapshot, TRUE);
    if (snapshot->sweep) {
        buffer_pool_close(snapshot->pool);
        channel_interrupt(snapshot->channel);
        stop_sweep(snapshot);
    }
    image_writer_free(snapshot->output.writer);
    image_index_builder_free(snapshot->index);
    image_chain_free(snapshot->parent);
    sf_clear_fd(&snapshot->screen);
    channel_free(snapshot->channel);
    device_capture_clear(&snapshot->devices, snapshot->qmp);
    guardian_stop(snapshot->guardian);
    qmp_client_free(snapshot->qmp);
    sf_clear_fd(&snapshot->spare_fd);
    ksm_hold_free(snapshot->ksm);
    g_free(snapshot->ram_list);
    guest_ram_free(snapshot->ram);
    image_head_free(snapshot->head);
    buffer_pool_free(snapshot->pool);
    sf_clear_fd(&snapshot->pidfd);
    outcome_clear(&snapshot->outcome);
}

static gboolean run_steps(Snapshot *snapshot, GError **errp)
{
    if (!snapshot_attach(snapshot, errp) || !snapshot_learn(snapshot, errp) ||
        !open_tracking(snapshot, errp) || !prepare_devices(snapshot, errp) ||
        !open_output(snapshot, errp) || !pre_arm(snapshot, errp) || !freeze(snapshot, errp) ||
        !sweep(snapshot, errp)) {
        return FALSE;
    }
    release_guest(snapshot, FALSE);
    g_clear_pointer(&snapshot->ksm, ksm_hold_free);
    return finish(snapshot, errp);
}

gboolean snapshot_run(const SnapshotOptions *options, const volatile int *cancel,
                      SnapshotReport *report, GError **errp)
{
    Snapshot snapshot = { .options = options,
                          .cancel = cancel,
                          .report = report,
                          .began_ns = clock_now_ns(),
                          .pidfd = -1,
                          .screen = -1,
                          .spare_fd = options->spare_fd ? options->spare_fd : -1,
                          .tracking = { .uffd = -1 },
                          .devices = { .memfd = -1, .fdset = -1 } };

    /* An engine that is stopped serves no faults: the threads made below inherit this mask. */
    sigset_t terminal_stops, before;
    sigemptyset(&terminal_stops);
    sigaddset(&terminal_stops, SIGTSTP);
    sigaddset(&terminal_stops, SIGTTIN);
    sigaddset(&terminal_stops, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &terminal_stops, &before);

    outcome_init(&snapshot.outcome);
    report->page_size = POOL_SLOT_SIZE;
    report->max_buffer = options->max_buffer;
    gboolean good = run_steps(&snapshot, errp);
    cleanup(&snapshot);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    report->total_ns = clock_now_ns() - snapshot.began_ns;
    return good;
}
