/*
 * Device state by xen-save-devices-state: generic code in spite of its name, in every build of
 * QEMU.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "device-capture.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "migration/device-state.h"
#include "util/autofd.h"

/* Device state is some hundred KiB; graphics devices with much local state reach tens of MiB. */
#define DEVICE_STATE_MAX (4ULL << 30)

/* Hands our file to QEMU as an fdset. */
static gboolean share_by_fdset(DeviceCapture *capture, QmpClient *qmp, GError **errp)
{
    /* QEMU gives out a descriptor of an fdset only for the access mode that it was opened with. */
    g_autofree char *self = g_strdup_printf("/proc/self/fd/%d", capture->memfd);
    sf_autofd writable = open(self, O_WRONLY | O_CLOEXEC);
    if (writable < 0) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot open %s for writing", self);
    }
    if (!qmp_client_add_fd(qmp, writable, &capture->fdset, NULL, errp)) {
        return FALSE;
    }
    g_free(capture->filename);
    capture->filename = g_strdup_printf("/dev/fdset/%" G_GINT64_FORMAT, capture->fdset);
    return TRUE;
}

gboolean device_capture_prepare(DeviceCapture *capture, QmpClient *qmp, gboolean running,
                                GError **errp)
{
    capture->fdset = -1;
    capture->memfd = memfd_create("stillframe-device-state", MFD_CLOEXEC);
    if (capture->memfd < 0) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno,
                                  "cannot make a memory file for the device state");
    }
    if (running && qmp_client_can_send_fd(qmp)) {
        return share_by_fdset(capture, qmp, errp);
    }
    /* QEMU may open this when it is root or the same user. */
    capture->filename = g_strdup_printf("/proc/%d/fd/%d", (int)getpid(), capture->memfd);
    return TRUE;
}

static gboolean ask_to_save(DeviceCapture *capture, QmpClient *qmp, GError **errp)
{
    JsonObject *arguments = json_object_new();
    json_object_set_string_member(arguments, "filename", capture->filename);
    /* With live=true QEMU would also give its disks away, as before a migration's switch-over. */
    json_object_set_boolean_member(arguments, "live", FALSE);

    g_autoptr(JsonNode) answer = qmp_client_execute(qmp, "xen-save-devices-state", arguments, errp);
    return answer != NULL;
}

gboolean device_capture_save(DeviceCapture *capture, QmpClient *qmp, GError **errp)
{
    g_autoptr(GError) error = NULL;

    if (ask_to_save(capture, qmp, &error)) {
        return TRUE;
    }
    /* Another user's QEMU may not open our file by its path: then it is handed over after all. */
    if (capture->fdset < 0 && qmp_client_can_send_fd(qmp)) {
        g_clear_error(&error);
        if (!share_by_fdset(capture, qmp, errp)) {
            return FALSE;
        }
        if (ask_to_save(capture, qmp, &error)) {
            return TRUE;
        }
    }
    g_propagate_prefixed_error(errp, g_steal_pointer(&error),
                               "QEMU could not save its device state: ");
    return FALSE;
}

static gboolean map_state(DeviceCapture *capture, GError **errp)
{
    struct stat st;

    if (fstat(capture->memfd, &st) < 0) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "reading the device state");
    }
    if (st.st_size <= 0 || (guint64)st.st_size > DEVICE_STATE_MAX) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                    "QEMU wrote %" G_GINT64_FORMAT " bytes of device state, which cannot be right",
                    (gint64)st.st_size);
        return FALSE;
    }
    capture->mapped_size = (gsize)st.st_size;
    capture->mapped =
        mmap(NULL, capture->mapped_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, capture->memfd, 0);
    if (capture->mapped == MAP_FAILED) {
        capture->mapped = NULL;
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "mapping the device state");
    }
    return TRUE;
}

gboolean device_capture_read(DeviceCapture *capture, const char *run_state, GError **errp)
{
    gsize start = 0;

    if (!map_state(capture, errp) || !device_state_unframe(capture->mapped, capture->mapped_size,
                                                           &start, &capture->length, errp)) {
        return FALSE;
    }
    capture->data = capture->mapped + start;
    return !run_state ||
           device_state_set_run_state(capture->data, capture->length, run_state, errp);
}

void device_capture_unshare(DeviceCapture *capture, QmpClient *qmp)
{
    if (capture->fdset >= 0 && qmp) {
        qmp_client_remove_fdset(qmp, capture->fdset, NULL);
        capture->fdset = -1;
    }
}

void device_capture_clear(DeviceCapture *capture, QmpClient *qmp)
{
    device_capture_unshare(capture, qmp);
    if (capture->mapped) {
        munmap(capture->mapped, capture->mapped_size);
        capture->mapped = NULL;
    }
    sf_clear_fd(&capture->memfd);
    g_clear_pointer(&capture->filename, g_free);
}
