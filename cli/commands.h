/*
 * The subcommands: one file each (cmd-NAME.c), one line each in the table of main.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

/* Exit statuses: 0 done; 1 failed; 2 wrong usage; 130 cancelled by SIGINT or SIGTERM. */
#define EXIT_USAGE 2
#define EXIT_CANCELLED 130

/* Each takes its own arguments, argv[0] being the subcommand's name, and returns the exit status.
 */
int cmd_snapshot(int argc, char **argv);
int cmd_restore(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_list(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_proxy(int argc, char **argv);
int cmd_engine(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_monitor(int argc, char **argv);
int cmd_diff(int argc, char **argv);
int cmd_map(int argc, char **argv);
int cmd_screen(int argc, char **argv);

/* Sets SF_ERROR_USAGE with @text and where to read more. Always FALSE. */
gboolean command_usage_error(GError **errp, const char *text);
/* Prints "stillframe: <message>" to standard error and returns the exit status that fits. */
int command_fail(const GError *error);
