/*
 * The one error domain of Stillframe. Every module reports through GError with it, so that the
 * command line can choose an exit status and a test can tell causes apart without reading text.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

#define SF_ERROR (sf_error_quark())

typedef enum {
    SF_ERROR_FAILED,           /* a system call or a step failed; the message has the reason */
    SF_ERROR_USAGE,            /* the caller's words are wrong */
    SF_ERROR_NO_PROCESS,       /* no such process */
    SF_ERROR_NOT_QEMU,         /* the process or socket is not QEMU's */
    SF_ERROR_MONITOR_BUSY,     /* another client holds the monitor */
    SF_ERROR_MONITOR_SILENT,   /* no greeting, or no answer in time */
    SF_ERROR_MONITOR_PROTOCOL, /* what answers is not QMP */
    SF_ERROR_MONITOR_COMMAND,  /* QEMU answered a command with an error */
    SF_ERROR_MONITOR_CLOSED,   /* the monitor connection ended */
    SF_ERROR_PERMISSION,       /* one of the doors is shut */
    SF_ERROR_UNSUPPORTED,      /* this kernel, machine or memory kind cannot do it */
    SF_ERROR_BLOCKED,          /* the VM has something that forbids a snapshot */
    SF_ERROR_BUSY,             /* another snapshot or migration of this VM is running */
    SF_ERROR_CANCELLED,        /* the user gave up */
    SF_ERROR_BUFFER_FULL,      /* --on-full=cancel and the pool was full */
    SF_ERROR_VM_GONE,          /* QEMU exited, or its memory went away */
    SF_ERROR_IO,               /* the destination failed */
    SF_ERROR_FORMAT,           /* an image is not what it should be */
    SF_ERROR_MISMATCH,         /* an image does not fit the QEMU command line */
} SfError;

GQuark sf_error_quark(void);

/*
 * Sets *errp to "<formatted text>: <strerror(err)>" with the given code. @err is an errno value
 * and is taken as an argument so that a later call cannot spoil it. Always returns FALSE, so that
 * a caller can write "return sf_error_set_errno(...)". Thread-safe.
 */
gboolean sf_error_set_errno(GError **errp, SfError code, int err, const char *format, ...)
    G_GNUC_PRINTF(4, 5);
