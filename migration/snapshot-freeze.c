/*
 * The freeze: from "stop" to "cont". Whatever fails in between, the VM goes on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "clock.h"
#include "snapshot-impl.h"
#include "util/fault-injection.h"

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

static gboolean stop(Snapshot *snapshot, GError **errp)
{
    guint64 began = clock_now_ns();

    /* RESUME events of earlier times must not be taken for one in the freeze. */
    g_autoptr(JsonNode) old = qmp_client_wait_event(snapshot->qmp, "RESUME", 0, NULL);
    if (!snapshot->was_running) {
        return TRUE;
    }
    guardian_set_frozen(snapshot->guardian, TRUE);
    gboolean good = command(snapshot, "stop", errp);
    snapshot->report->stop_ns = clock_now_ns() - began;
    return good;
}

static gboolean resume(Snapshot *snapshot, GError **errp)
{
    guint64 began = clock_now_ns();

    if (!snapshot->was_running) {
        return TRUE;
    }
    if (!command(snapshot, "cont", errp)) {
        g_prefix_error(errp, "the VM could not be resumed, send \"cont\" to its monitor: ");
        return FALSE;
    }
    guardian_set_frozen(snapshot->guardian, FALSE);
    snapshot->report->cont_ns = clock_now_ns() - began;
    return TRUE;
}

gboolean snapshot_freeze(Snapshot *snapshot, GError **errp)
{
    g_autoptr(GError) resume_error = NULL;
    guint64 began = clock_now_ns();

    gboolean good =
        stop(snapshot, errp) && capture_instant(snapshot, errp) && capture_devices(snapshot, errp);
    gboolean resumed = resume(snapshot, &resume_error);
    if (snapshot->was_running) {
        snapshot->report->downtime_ns = clock_now_ns() - began;
    }
    if (good && !resumed) {
        g_propagate_error(errp, g_steal_pointer(&resume_error));
    }
    return good && resumed;
}
