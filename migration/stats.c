/*
 * Histograms and the report.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/stats.h"

#include <string.h>

#define STEP_BITS 4
#define STEPS (1u << STEP_BITS)

/* Values below 16 have a bucket each; above, 16 steps to each power of two. */
static guint bucket_of(guint64 ns)
{
    if (ns < STEPS) {
        return (guint)ns;
    }
    guint log = 63u - (guint)__builtin_clzll(ns);
    guint step = (guint)(ns >> (log - STEP_BITS)) & (STEPS - 1);
    return (log - STEP_BITS + 1) * STEPS + step;
}

static guint64 upper_edge(guint bucket)
{
    if (bucket < STEPS) {
        return bucket;
    }
    guint shift = bucket / STEPS - 1;
    guint64 low = (guint64)(STEPS + bucket % STEPS) << shift;
    return low + (1ULL << shift) - 1;
}

void latency_histogram_add(LatencyHistogram *histogram, guint64 ns)
{
    histogram->count++;
    histogram->max_ns = MAX(histogram->max_ns, ns);
    histogram->bucket[bucket_of(ns)]++;
}

void latency_histogram_merge(LatencyHistogram *into, const LatencyHistogram *from)
{
    into->count += from->count;
    into->max_ns = MAX(into->max_ns, from->max_ns);
    for (guint i = 0; i < LATENCY_BUCKETS; i++) {
        into->bucket[i] += from->bucket[i];
    }
}

guint64 latency_histogram_percentile(const LatencyHistogram *histogram, double share)
{
    guint64 wanted = (guint64)((double)histogram->count * share + 0.5);
    guint64 seen = 0;

    for (guint i = 0; i < LATENCY_BUCKETS; i++) {
        seen += histogram->bucket[i];
        if (seen && seen >= wanted) {
            return MIN(upper_edge(i), histogram->max_ns);
        }
    }
    return 0;
}
