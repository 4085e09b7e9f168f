/*
 * An HMP session on a pair of descriptors: with an editor and a prompt as on a terminal, or line by
 * line as from a pipe.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "monitor/hmp-session.h"

/* What it may be told, and tells. All of it may be NULL or 0. */
typedef struct HmpTerminalOptions {
    /* Counts up when the user interrupts (Ctrl-C): an empty line, or the migration is cancelled. */
    const volatile int *interrupts;
    /* Ctrl-D on an empty line ends the session; else it is a key like others, as in QEMU. */
    gboolean leaves_on_ctrl_d;
    /* "migrate" without -d: query-migrate's answer from time to time, and NULL at the end. */
    void (*progress)(JsonObject *info, gpointer user);
    gpointer user;
} HmpTerminalOptions;

/*
 * Shows banner and prompt on @out and serves the lines that come from @in, as QEMU's monitor does
 * on a terminal. Returns TRUE at the end of @in (or Ctrl-D), FALSE with *errp when QEMU is gone.
 * Changes no terminal settings: @in is expected to deliver bytes as they are typed, without echo.
 */
gboolean hmp_terminal_run(HmpSession *session, int in, int out, const HmpTerminalOptions *options,
                          GError **errp);

/*
 * The same without banner, prompt and echo, a line after the other; "migrate" without -d is waited
 * for. *refused becomes TRUE when any line was.
 */
gboolean hmp_terminal_run_lines(HmpSession *session, int in, int out,
                                const HmpTerminalOptions *options, gboolean *refused,
                                GError **errp);
