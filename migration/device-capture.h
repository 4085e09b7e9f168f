/*
 * Having QEMU write its device state into our memory. Prepared before the freeze, so that the
 * freeze holds one command only. Private to migration/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "monitor/qmp.h"

typedef struct DeviceCapture {
    int memfd;
    gint64 fdset;   /* -1: QEMU opens the file by its path in /proc */
    char *filename; /* as QEMU is told */
    guint8 *data;   /* the sections, without frame; after device_capture_read() */
    gsize length;
    guint8 *mapped; /* what data points into */
    gsize mapped_size;
} DeviceCapture;

/*
 * @running: whether the VM runs now. QEMU forgets the descriptors of a removed fdset only while its
 * VM runs, so that one that is paused is rather told our file's path in /proc.
 */
gboolean device_capture_prepare(DeviceCapture *capture, QmpClient *qmp, gboolean running,
                                GError **errp);
/* xen-save-devices-state. The VM must be stopped. */
gboolean device_capture_save(DeviceCapture *capture, QmpClient *qmp, GError **errp);
/*
 * Looks at what QEMU wrote. @run_state is written into its "globalstate" where the VM was not
 * running before the snapshot; NULL where it was.
 */
gboolean device_capture_read(DeviceCapture *capture, const char *run_state, GError **errp);
/* QEMU need not have the file any more. */
void device_capture_unshare(DeviceCapture *capture, QmpClient *qmp);
/* Forgets it all, in QEMU too; @qmp may be NULL. */
void device_capture_clear(DeviceCapture *capture, QmpClient *qmp);
