/*
 * The arming passes over all blocks: everything once with the guest running, then what it touched
 * meanwhile, again and again until little is left, and the rest in the freeze. Private to
 * migration/.
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
 * Arms again what was touched since, the guest still running, until a pass finds so little that the
 * freeze will be short, or finds no less than the one before. *passes gets their number.
 */
gboolean arm_touched_until_few(GuestRam *ram, WriteTracking *tracking, KeepGoing keep_going,
                               gpointer user, guint *passes, GError **errp);

/*
 * In the freeze, the fault service locked: protects again what the touched maps name and empties
 * them. After it, every page is armed and unchanged until somebody claims it: this is T0.
 */
gboolean arm_touched_in_freeze(GuestRam *ram, WriteTracking *tracking, FaultService *service,
                               guint64 *pages, guint64 *ranges, GError **errp);
