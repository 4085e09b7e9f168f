/*
 * The first error of a snapshot, whichever thread meets it. Private to migration/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <stdatomic.h>

#include "buffer-pool.h"
#include "util/error.h"

typedef struct Outcome {
    GMutex lock;
    GError *error;
    atomic_bool failed;
    BufferPool *pool; /* closed with the first error, so that nobody goes on waiting in it */
} Outcome;

static inline void outcome_init(Outcome *outcome)
{
    g_mutex_init(&outcome->lock);
    outcome->error = NULL;
    outcome->pool = NULL;
    atomic_init(&outcome->failed, FALSE);
}

static inline void outcome_clear(Outcome *outcome)
{
    g_clear_error(&outcome->error);
    g_mutex_clear(&outcome->lock);
}

static inline gboolean outcome_has_failed(Outcome *outcome)
{
    return atomic_load_explicit(&outcome->failed, memory_order_acquire);
}

/* Notes @error (taken); later ones are consequences of the first and are dropped. Any thread. */
static inline void outcome_fail(Outcome *outcome, GError *error)
{
    g_mutex_lock(&outcome->lock);
    if (outcome->error) {
        g_error_free(error);
    } else {
        outcome->error = error;
    }
    atomic_store_explicit(&outcome->failed, TRUE, memory_order_release);
    g_mutex_unlock(&outcome->lock);
    if (outcome->pool) {
        buffer_pool_close(outcome->pool);
    }
}

/* Moves the error out; FALSE, as what a failed function returns. */
static inline gboolean outcome_take_error(Outcome *outcome, GError **errp)
{
    g_mutex_lock(&outcome->lock);
    g_propagate_error(errp, g_steal_pointer(&outcome->error));
    g_mutex_unlock(&outcome->lock);
    return FALSE;
}
