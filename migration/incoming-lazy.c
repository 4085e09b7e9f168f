/*
 * A lazy restore: before QEMU waits, and after its guest runs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "incoming-lazy.h"

#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "userfaultfd-compat.h"
#include "util/autofd.h"

#define PROGRESS_MS 100
/* QEMU's main thread may be the one that waits for the page that is not to be had. */
#define STOP_WAIT_MS 5000

void lazy_restore_init(LazyRestore *lazy)
{
    *lazy = (LazyRestore){ .uffd = -1, .pidfd = -1 };
}

void lazy_restore_clear(LazyRestore *lazy)
{
    g_clear_pointer(&lazy->service, lazy_service_free);
    g_clear_pointer(&lazy->supervisor, lazy_supervisor_dismiss);
    g_clear_pointer(&lazy->record, lazy_record_free);
    g_clear_pointer(&lazy->ram, guest_ram_free);
    g_clear_pointer(&lazy->places, image_places_free);
    g_clear_pointer(&lazy->guardian, guardian_stop);
    sf_clear_fd(&lazy->uffd);
    sf_clear_fd(&lazy->pidfd);
}

typedef struct Indexing {
    const IncomingOptions *options;
    const volatile int *cancel;
} Indexing;

static gboolean show_indexing(guint64 done, guint64 total, gpointer user, GError **errp)
{
    const Indexing *indexing = user;
    const IncomingOptions *options = indexing->options;

    if (*indexing->cancel) {
        g_set_error(errp, SF_ERROR, SF_ERROR_CANCELLED, "the restore was cancelled");
        return FALSE;
    }
    if (options->progress) {
        options->progress(INCOMING_INDEXING, done, total, options->progress_user);
    }
    return TRUE;
}

gboolean lazy_restore_index(LazyRestore *lazy, const IncomingOptions *options, ImageReader *reader,
                            const volatile int *cancel, GError **errp)
{
    Indexing indexing = { options, cancel };

    lazy->places = image_places_new(reader, show_indexing, &indexing, errp);
    return lazy->places != NULL;
}

/*
 * The last page is there: what is missing still is zero, as a hole is without us. The kernel drops
 * what was registered with the last descriptor, which is QEMU's.
 */
static gboolean let_go(LazyRestore *lazy, GError **errp)
{
    const gulong args[6] = { (gulong)lazy->record->head->uffd };
    long result;

    for (guint i = 0; i < lazy->record->head->n_blocks; i++) {
        const LazyRecordBlock *block = &lazy->record->blocks[i];
        struct uffdio_range range = { .start = block->host,
                                      .len = block->pages * block->page_size };
        /* Refused where a part of it was unplugged. */
        ioctl(lazy->uffd, UFFDIO_UNREGISTER, &range);
    }
    gboolean closed = guardian_remote_syscall(lazy->guardian, lazy->pid, SYS_close, args, FALSE,
                                              &result, NULL, errp);
    g_clear_pointer(&lazy->service, lazy_service_free);
    sf_clear_fd(&lazy->uffd);
    g_clear_pointer(&lazy->record, lazy_record_remove);
    if (!closed) {
        g_prefix_error(errp, "the guest's memory is complete, but QEMU keeps a descriptor: ");
    }
    return closed;
}

/* The guest is stopped rather than left to run on until it needs that page. */
static void stop_guest(LazyRestore *lazy, QmpClient *qmp)
{
    if (!qmp) {
        return;
    }
    g_autoptr(JsonNode) status = NULL;
    qmp_client_set_patience(qmp, STOP_WAIT_MS);
    status = qmp_client_execute(qmp, "query-status", NULL, NULL);
    gboolean running =
        status && JSON_NODE_HOLDS_OBJECT(status) &&
        json_object_get_boolean_member_with_default(json_node_get_object(status), "running", FALSE);
    g_autoptr(JsonNode) answer = running ? qmp_client_execute(qmp, "stop", NULL, NULL) : NULL;
    if (answer) {
        lazy->record->head->stopped = TRUE;
    }
}

static gboolean fail_waiting(LazyRestore *lazy, QmpClient *qmp, GError **errp)
{
    stop_guest(lazy, qmp);
    g_propagate_error(errp, g_error_copy(lazy_service_get_error(lazy->service)));
    g_prefix_error(errp,
                   "the guest of QEMU %d %s, for its memory cannot be completed: ", (int)lazy->pid,
                   lazy->record->head->stopped ? "is stopped" : "waits");
    if (errp && *errp) {
        g_autofree char *text = g_strdup((*errp)->message);
        int code = (*errp)->code;
        g_clear_error(errp);
        g_set_error(
            errp, SF_ERROR, code,
            "%s. Put the image in order, then go on with \"stillframe restore --resume=%d\"", text,
            (int)lazy->pid);
    }
    return FALSE;
}

static void show_progress(LazyRestore *lazy, const IncomingOptions *options, IncomingReport *report)
{
    LazyCounters counters;

    lazy_service_get_counters(lazy->service, &counters);
    report->filled_bytes = counters.done;
    report->faults = counters.faults;
    if (options->progress) {
        options->progress(INCOMING_FILLING, counters.done, counters.total, options->progress_user);
    }
}

gboolean lazy_restore_serve(LazyRestore *lazy, const IncomingOptions *options, QmpClient *qmp,
                            const volatile int *cancel, IncomingReport *report, gboolean *waiting,
                            GError **errp)
{
    gint64 start = g_get_monotonic_time();
    LazyStatus status;

    *waiting = FALSE;
    lazy_service_fill(lazy->service, options->max_bandwidth);
    while ((status = lazy_service_wait(lazy->service, PROGRESS_MS)) == LAZY_SERVING) {
        show_progress(lazy, options, report);
        if (*cancel) {
            g_set_error(errp, SF_ERROR, SF_ERROR_CANCELLED, "the restore was cancelled");
            return FALSE;
        }
    }
    show_progress(lazy, options, report);
    report->fill_seconds = (double)(g_get_monotonic_time() - start) / G_USEC_PER_SEC;
    switch (status) {
    case LAZY_COMPLETE:
        *waiting = TRUE;
        return let_go(lazy, errp);
    case LAZY_FAILED:
        *waiting = TRUE;
        return fail_waiting(lazy, qmp, errp);
    default:
        g_set_error(errp, SF_ERROR, SF_ERROR_VM_GONE,
                    "QEMU %d ended before all of its memory was there", (int)lazy->pid);
        return FALSE;
    }
}
