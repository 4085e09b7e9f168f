/*
 * The supervisor: a small process that starts a new page server when the old one has died. Private
 * to migration/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <sys/types.h>

#include "util/error.h"

typedef struct LazySupervisor LazySupervisor;

/*
 * Forks it, in a session of its own, with standard error alone. When this process ends without
 * lazy_supervisor_dismiss(), it runs @command (NULL-terminated) with the number of @pid behind it,
 * and again whenever that is killed by a signal, until the restore of @pid is over. Call it before
 * any thread is created.
 */
LazySupervisor *lazy_supervisor_start(pid_t pid, const char *const *command, GError **errp);
/* Nothing is to be done any more: it ends, and is waited for. NULL is allowed. */
void lazy_supervisor_dismiss(LazySupervisor *supervisor);
