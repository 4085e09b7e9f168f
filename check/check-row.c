/*
 * A row of the table and its answer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "check-row.h"

const char *check_result_name(CheckResult result)
{
    static const char *const names[] = { "yes", "no", "untried" };

    return names[result];
}

void check_row_answer(CheckRow *row, CheckResult result, const char *remedy, const char *note, ...)
{
    va_list args;

    va_start(args, note);
    char *text = g_strdup_vprintf(note, args);
    va_end(args);
    g_free(row->note);
    g_free(row->remedy);
    row->note = text;
    row->remedy = g_strdup(remedy ? remedy : "");
    row->result = result;
}
