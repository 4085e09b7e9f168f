/*
 * QEMU's human monitor (HMP) for the migrate family, in terms of QMP: a line is taken apart as
 * QEMU takes it apart, carried out by QMP commands, and answered with the text that the running
 * version of QEMU prints. Used by the console and by the proxy's human-monitor-command. No state,
 * no I/O, any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>
#include <json-glib/json-glib.h>

/*
 * Carries out one QMP command: returns what stands behind "return" (owned by the caller) or NULL
 * with *errp. @arguments (not taken) may be NULL. SF_ERROR_MONITOR_SILENT, _PROTOCOL and _CLOSED
 * mean that there is no answer; every other error is a refusal, its whole message the "desc" of the
 * QMP error, since that is what HMP prints.
 */
typedef JsonNode *(*HmpExecute)(gpointer user, const char *command, JsonObject *arguments,
                                GError **errp);

/*
 * Whether @line belongs to the migrate family: "migrate", "migrate_cancel", "migrate_incoming",
 * "migrate_set_capability", "migrate_set_parameter", "info migrate", "info migrate_capabilities",
 * "info migrate_parameters", with whatever arguments. HMP knows no abbreviations; spaces before
 * and between do not count. "help migrate" and the rest (migrate_continue, migrate_recover ...)
 * are QEMU's.
 */
gboolean hmp_migrate_owns_line(const char *line);

/*
 * Carries out @line, for which hmp_migrate_owns_line() holds, as QEMU @version (as
 * qmp_client_get_version() gives it) does: with the QMP commands migrate, migrate_cancel,
 * migrate-incoming, migrate-set-capabilities, migrate-set-parameters, query-migrate,
 * query-migrate-capabilities and query-migrate-parameters, as many as it takes, by @execute. A line
 * with a mistake in it, a parameter that only QEMU knows, and the parts of "info" that QMP does not
 * tell go to QEMU's own HMP: @execute is also called with "human-monitor-command" and hands that to
 * QEMU, never back to this function.
 *
 * Returns the text that human-monitor-command returns (owned by the caller), lines ended by CR LF,
 * "" where HMP says nothing; refusals are such text too. NULL with *errp when @execute failed
 * otherwise.
 *
 * @wait: where not NULL, the caller is a console that can wait, and *wait becomes TRUE when
 * "migrate" was started without -d, so that the next line has to wait for its end (else FALSE).
 * Where NULL, such a "migrate" says that it goes on detached, as QEMU does in
 * human-monitor-command.
 */
char *hmp_migrate_run(const char *line, guint version, HmpExecute execute, gpointer user,
                      gboolean *wait, GError **errp);
