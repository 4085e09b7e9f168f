/*
 * What this host can do for live snapshots, found out by doing it. Nothing on the host is changed
 * and no VM is touched. Used by "stillframe check".
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

typedef enum {
    CHECK_YES,
    CHECK_NO,
    CHECK_UNTRIED, /* it could not be tried, and the note says why */
} CheckResult;

/* One question and its answer. The first three are constants, the texts belong to the row. */
typedef struct CheckRow {
    const char *group; /* "kernel", "access", "memory" or "kvm" */
    const char *id;    /* unique and stable, for programs */
    const char *name;  /* for people */
    CheckResult result;
    char *note;   /* one line, "" where there is nothing to say */
    char *remedy; /* what to do about it, "" where nothing can be or need be done */
} CheckRow;

typedef struct HostCheck {
    GPtrArray *rows; /* of CheckRow, in the order in which they were asked */
    gboolean kvm;    /* a snapshot of a KVM guest is possible */
    gboolean tcg;    /* one of a TCG guest is */
    char *verdict;   /* the same as a sentence */
} HostCheck;

/*
 * Asks everything, which takes one to two seconds; @row_done (may be NULL) is called after each
 * answer. Each question that could hang or crash is asked by a process of its own, which is killed
 * after 15 seconds; the answer is "no" then, and its note says so. Never fails: what cannot be
 * found out is an answer too. Call it in a process without other threads: it forks.
 */
HostCheck *host_check_run(void (*row_done)(const CheckRow *row, gpointer data), gpointer data);
/* The row @id, owned by @check; NULL where there is none. */
const CheckRow *host_check_find(const HostCheck *check, const char *id);
/* "yes", "no" or "untried". */
const char *check_result_name(CheckResult result);
void host_check_free(HostCheck *check);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HostCheck, host_check_free)
