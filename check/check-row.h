/*
 * For the files of this folder: how a probe answers, and the process that it runs in.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "check/host-check.h"

/* Asks one question: @features is the UFFD_FEATURE_* mask of the kernel, @argument from the table
 * in host-check.c. Answers by one call of check_row_answer(). */
typedef void (*CheckProbe)(CheckRow *row, guint64 features, int argument);

/* Sets the answer; @remedy may be NULL. The last call counts. */
void check_row_answer(CheckRow *row, CheckResult result, const char *remedy, const char *note, ...)
    G_GNUC_PRINTF(4, 5);

/*
 * Runs @probe in a child process and copies its answer. A probe that takes longer than 15 seconds
 * is killed, with its threads, its VM and its userfaultfd; that, and a crash, is the answer "no".
 */
void check_process_run(CheckRow *row, CheckProbe probe, guint64 features, int argument);
