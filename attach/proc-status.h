/*
 * Single fields of /proc/PID/status. For the files of this folder.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>
#include <sys/types.h>

/* The text behind "@field:", stripped, or NULL where the process or the field is not there. */
char *proc_status_field(pid_t pid, const char *field);

/* The same as a number in @base; @otherwise where it is not there or is no number. */
guint64 proc_status_number(pid_t pid, const char *field, guint base, guint64 otherwise);

/* "PID (name)" of a process, for messages. */
char *proc_describe(pid_t pid);
