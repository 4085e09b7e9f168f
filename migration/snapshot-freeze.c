/*
 * The freeze: from "stop" to "cont". Whatever fails in between, the VM goes on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <poll.h>

#include "clock.h"
#include "snapshot-impl.h"
#include "util/autofd.h"
#include "util/fault-injection.h"

#define EXIT_DELAY_MS 1000

static gboolean command(Snapshot *snapshot, const char *name, GError **errp)
{
    g_autoptr(JsonNode) answer = qmp_client_execute(snapshot->qmp, name, NULL, errp);
    return answer != NULL;
}

/* T0 is the moment when the last touched page is armed again. */
static gboolean capture_instant(Snapshot *snapshot, GError **errp)
{
    SnapshotReport *report = snapshot->report;
    guint64 began = clock_now_ns();

    fault_service_lock(snapshot->faults);
    gboolean good = arm_touched_in_freeze(snapshot->ram, &snapshot->tracking, snapshot->faults,
                                          &report->touched_pages, &report->rearm_ranges, errp);
    if (good) {
        snapshot->t0_ns = clock_now_ns();
        snapshot->output.t0_ns = snapshot->t0_ns;
        fault_service_set_phase(snapshot->faults, SERVICE_SERVE);
    }
    fault_service_unlock(snapshot->faults);
    report->rearm_ns = clock_now_ns() - began;
    return good;
}

static gboolean capture_devices(Snapshot *snapshot, GError **errp)
{
    guint64 began = clock_now_ns();

    if (fault_injected("device-state-fails")) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FAILED, "injected: device state");
        return FALSE;
    }
    if (fault_injected("long-freeze")) {
        g_usleep(2 * G_USEC_PER_SEC);
    }
    if (!device_capture_save(&snapshot->devices, snapshot->qmp, errp)) {
        return FALSE;
    }
    snapshot->report->device_ns = clock_now_ns() - began;

    /* Another monitor client may have started the VM under us: then this is not one instant. */
    g_autoptr(JsonNode) resumed = qmp_client_wait_event(snapshot->qmp, "RESUME", 0, NULL);
    if (resumed) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FAILED,
                    "somebody else resumed the VM while its state was being saved; try again");
        return FALSE;
    }
    return TRUE;
}

/* Drops what came before the last answer: those RESUME events are none of the freeze. */
static void forget_resumes(Snapshot *snapshot)
{
    JsonNode *old;

    while ((old = qmp_client_wait_event(snapshot->qmp, "RESUME", 0, NULL))) {
        json_node_unref(old);
    }
}

static gboolean stop(Snapshot *snapshot, GError **errp)
{
    guint64 began = clock_now_ns();

    if (!snapshot->was_running) {
        return TRUE;
    }
    guardian_set_frozen(snapshot->guardian, TRUE);
    gboolean good = command(snapshot, "stop", errp);
    snapshot->report->stop_ns = clock_now_ns() - began;
    forget_resumes(snapshot);
    return good;
}

static gboolean send_cont(Snapshot *snapshot, GError **errp)
{
    if (fault_injected("cont-fails")) {
        g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_COMMAND, "injected: cont");
        return FALSE;
    }
    return command(snapshot, "cont", errp);
}

static gboolean resume(Snapshot *snapshot, GError **errp)
{
    guint64 began = clock_now_ns();

    if (!snapshot->was_running) {
        return TRUE;
    }
    if (!send_cont(snapshot, errp)) {
        /* Still marked frozen, so the guardian tries once more and says how that went. */
        g_prefix_error(errp, "the snapshot was given up, for QEMU did not obey \"cont\": ");
        return FALSE;
    }
    guardian_set_frozen(snapshot->guardian, FALSE);
    snapshot->report->cont_ns = clock_now_ns() - began;
    return TRUE;
}

/* A process that exits closes its monitor a moment before its pidfd tells. */
static gboolean qemu_has_exited(Snapshot *snapshot)
{
    struct pollfd exited = { .fd = snapshot->pidfd, .events = POLLIN };

    return poll(&exited, 1, EXIT_DELAY_MS) > 0;
}

/* Passes @error (taken, NULL for none) on; a monitor that closed because QEMU exited says that. */
static void tell(Snapshot *snapshot, GError *error, GError **errp)
{
    if (g_error_matches(error, SF_ERROR, SF_ERROR_MONITOR_CLOSED) && qemu_has_exited(snapshot)) {
        guardian_set_frozen(snapshot->guardian, FALSE);
        g_set_error(errp, SF_ERROR, SF_ERROR_VM_GONE, "QEMU exited during the snapshot");
        g_error_free(error);
    } else if (error) {
        g_propagate_error(errp, error);
    }
}

gboolean snapshot_freeze(Snapshot *snapshot, GError **errp)
{
    g_autoptr(GError) error = NULL;

    /* Its user may have paused or resumed it while it was being armed: it stays as it is now. */
    if (!snapshot_learn_state(snapshot, errp)) {
        return FALSE;
    }
    forget_resumes(snapshot);
    guint64 began = clock_now_ns();
    gboolean good = stop(snapshot, &error) && capture_instant(snapshot, &error) &&
                    capture_devices(snapshot, &error);
    /* The first error is the one to be told. */
    good = resume(snapshot, good ? &error : NULL) && good;
    if (good && snapshot->was_running) {
        snapshot->report->downtime_ns = clock_now_ns() - began;
    }
    tell(snapshot, g_steal_pointer(&error), errp);
    return good;
}

gboolean snapshot_let_go_of_monitor(Snapshot *snapshot, GError **errp)
{
    GError *error = NULL;

    if (!snapshot_check_ram(snapshot, &error)) {
        tell(snapshot, error, errp);
        return FALSE;
    }
    device_capture_unshare(&snapshot->devices, snapshot->qmp);
    guardian_release_monitor(snapshot->guardian);
    sf_clear_fd(&snapshot->spare_fd);
    g_clear_pointer(&snapshot->qmp, qmp_client_free);
    return TRUE;
}
