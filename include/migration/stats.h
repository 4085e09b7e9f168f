/*
 * What a snapshot measured about itself.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <json-glib/json-glib.h>
#include <sys/types.h>

/*
 * A histogram of durations with about 6 % resolution: 16 linear steps to each power of two of
 * nanoseconds. One writer at a time; merge for the total.
 */
#define LATENCY_BUCKETS (64 * 16)
typedef struct LatencyHistogram {
    guint64 count;
    guint64 max_ns;
    guint64 bucket[LATENCY_BUCKETS];
} LatencyHistogram;

void latency_histogram_add(LatencyHistogram *histogram, guint64 ns);
void latency_histogram_merge(LatencyHistogram *into, const LatencyHistogram *from);
/* Upper edge of the bucket that holds the given share (0 < share <= 1); 0 where it is empty. */
guint64 latency_histogram_percentile(const LatencyHistogram *histogram, double share);

typedef struct SnapshotReport {
    pid_t pid;
    char *monitor;
    char *machine_type;
    char *run_state;      /* before the snapshot, and after it */
    const char *door;     /* which way the userfaultfd came */
    const char *holes_by; /* how holes of anonymous memory were protected */
    guint64 ram_bytes;    /* sum of the blocks */
    guint ram_blocks;
    guint skipped_blocks; /* read-only, address unknown, left out */

    /* nanoseconds */
    guint64 attach_ns;
    guint64 arm_ns; /* pre-arming, the guest running */
    guint64 stop_ns;
    guint64 rearm_ns;
    guint64 device_ns;
    guint64 cont_ns;
    guint64 downtime_ns; /* stop sent to cont answered; 0 for a VM that was not running */
    guint64 sweep_ns;
    guint64 finish_ns;
    guint64 total_ns;

    guint arm_passes;      /* over what was touched while pre-arming, the guest running */
    guint64 touched_pages; /* the rest of it, armed again in the freeze */
    guint64 rearm_ranges;  /* in so many calls */
    guint64 pages_swept;
    guint64 pages_faulted;
    guint64 pages_zero; /* of all saved, those that hold only zeros */
    guint64 page_size;  /* that the page counts are in */
    guint64 faults;     /* messages read after T0 */
    guint64 faults_prearm;
    guint64 faults_spurious;        /* for pages that were already saved */
    LatencyHistogram fault_latency; /* message read to release, after T0 */
    guint64 stalls;                 /* faults that waited for the pool */
    guint64 stall_ns;
    guint64 max_buffer;
    guint64 buffer_peak;
    guint64 bytes_written;
    guint64 index_bytes; /* of them, the index */
    guint64 kept_bytes;  /* of guest memory that the parent has, so that it was not written */
    const char *format;  /* "stream", "mapped-ram", "incremental" */
    guint64 device_bytes;
    guint fault_threads;
} SnapshotReport;

void snapshot_report_clear(SnapshotReport *report);
/* All of it as JSON (docs: stillframe(1), "REPORT"); the caller frees. */
JsonNode *snapshot_report_to_json(const SnapshotReport *report);
/* The same for people, several lines; the caller frees. */
char *snapshot_report_to_text(const SnapshotReport *report);
