/*
 * Restore: starts a QEMU, compares it with the image, feeds it the stream, waits until it runs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "util/error.h"
#include <sys/types.h>

typedef enum {
    INCOMING_LOADING,  /* the stream on its way to QEMU */
    INCOMING_INDEXING, /* looking for the pages of an image without an index */
    INCOMING_FILLING,  /* the guest runs, and its memory follows */
} IncomingPhase;

typedef struct IncomingReport IncomingReport;

typedef struct IncomingOptions {
    const char *image;     /* path */
    guint64 offset;        /* where the stream begins in it */
    char **qemu_command;   /* NULL-terminated argument vector, without -incoming */
    gboolean lazy;         /* the guest runs first, and its memory follows */
    guint64 max_bandwidth; /* lazy: of what follows unasked, bytes a second; 0: no limit */
    /*
     * Lazy: the program, and its arguments (NULL-terminated), that goes on when this process is
     * killed; "--resume=PID" is put behind them. NULL: nobody does.
     */
    const char *const *resume_command;
    /* Called now and then with bytes done and their total (0: not known yet); NULL for none. */
    void (*progress)(IncomingPhase phase, guint64 done, guint64 total, gpointer user);
    /* Lazy: called when the guest runs; NULL for none. */
    void (*runs)(const IncomingReport *report, gpointer user);
    gpointer progress_user;
} IncomingOptions;

struct IncomingReport {
    pid_t pid;            /* of QEMU (behind -daemonize: of the daemon where it can be found) */
    gboolean running;     /* else paused, as the source was or as -S asked */
    char *run_state;      /* query-status */
    double start_seconds; /* from the start of the program to its monitor's answer */
    double load_seconds;  /* from migrate-incoming to the run state */
    guint64 bytes;        /* fed */
    double fill_seconds;  /* lazy: from the run state until all memory was there */
    guint64 filled_bytes; /* lazy: put there, without zero pages */
    guint64 faults;       /* lazy: of them asked for */
};

void incoming_report_clear(IncomingReport *report);

/*
 * Does it all. QEMU inherits standard input, output and error and stays behind when it returns
 * TRUE; it is ended when it returns FALSE, but for one case: where a page of a lazy restore cannot
 * be read, the guest is stopped and waits for incoming_resume(). SF_ERROR_MISMATCH names each
 * difference between image and command line (machine type, RAM blocks and their sizes, devices).
 * *cancel is looked at while waiting (set it from a signal handler).
 */
gboolean incoming_run(const IncomingOptions *options, const volatile int *cancel,
                      IncomingReport *report, GError **errp);

/*
 * Goes on with a lazy restore of process @pid that lost its page server; returns as soon as all
 * memory is there. Of @options, image (NULL: the one that it began with), max_bandwidth,
 * resume_command and the progress are used. SF_ERROR_NO_PROCESS where there is none,
 * SF_ERROR_BUSY where its server lives. On failure the guest goes on waiting.
 */
gboolean incoming_resume(pid_t pid, const IncomingOptions *options, const volatile int *cancel,
                         IncomingReport *report, GError **errp);
