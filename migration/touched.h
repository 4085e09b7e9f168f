/*
 * The two arming passes over all blocks: everything once with the guest running, then in the
 * freeze only what was touched in between. Private to migration/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "fault-service.h"

/*
 * Registers and protects every block, the guest running and the fault service serving. @keep_going
 * is asked between pieces; FALSE with an error set ends it.
 */
typedef gboolean (*KeepGoing)(gpointer user, GError **errp);
gboolean arm_all(GuestRam *ram, WriteTracking *tracking, KeepGoing keep_going, gpointer user,
                 GError **errp);

/*
 * In the freeze, the fault service locked: protects again what the touched maps name and empties
 * them. After it, every page is armed and unchanged until somebody claims it: this is T0.
 */
gboolean arm_touched(GuestRam *ram, WriteTracking *tracking, FaultService *service, guint64 *pages,
                     guint64 *ranges, GError **errp);
