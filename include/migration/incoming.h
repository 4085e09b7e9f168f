/*
 * Restore: starts a QEMU, compares it with the image, feeds it the stream, waits until it runs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "util/error.h"
#include <sys/types.h>

typedef struct IncomingOptions {
    const char *image;   /* path */
    guint64 offset;      /* where the stream begins in it */
    char **qemu_command; /* NULL-terminated argument vector, without -incoming */
    /* Called now and then with bytes fed and their total; NULL for none. */
    void (*progress)(guint64 done, guint64 total, gpointer user);
    gpointer progress_user;
} IncomingOptions;

typedef struct IncomingReport {
    pid_t pid;            /* of QEMU (behind -daemonize: of the daemon where it can be found) */
    gboolean running;     /* else paused, as the source was or as -S asked */
    char *run_state;      /* query-status */
    double start_seconds; /* from the start of the program to its monitor's answer */
    double load_seconds;  /* from migrate-incoming to the run state */
    guint64 bytes;        /* fed */
} IncomingReport;

void incoming_report_clear(IncomingReport *report);

/*
 * Does it all. QEMU inherits standard input, output and error and stays behind when it returns
 * TRUE; it is ended when it returns FALSE. SF_ERROR_MISMATCH names each difference between image
 * and command line (machine type, RAM blocks and their sizes, devices). *cancel is looked at while
 * waiting (set it from a signal handler).
 */
gboolean incoming_run(const IncomingOptions *options, const volatile int *cancel,
                      IncomingReport *report, GError **errp);
