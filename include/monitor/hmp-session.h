/*
 * A human monitor (HMP) on a running VM without its terminal: lines in, texts out. The migrate
 * family is answered as monitor/hmp-migrate.h says, everything else by QEMU's
 * human-monitor-command, unchanged. One thread at a time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <sys/types.h>

#include "monitor/qmp-mux.h"

#include <json-glib/json-glib.h>

typedef struct HmpSession HmpSession;

/*
 * @mux (not owned) outlives the session. @pid: the QEMU process, 0 where it is not known. Errors as
 * those of qmp_client_new_from_fd().
 */
HmpSession *hmp_session_new(QmpMux *mux, pid_t pid, GError **errp);
/* Cancels a snapshot that runs. NULL is allowed. */
void hmp_session_free(HmpSession *session);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HmpSession, hmp_session_free)

/* The version of QEMU as qmp_client_get_version() gives it. */
guint hmp_session_get_version(HmpSession *session);

/*
 * Carries out @line and returns its text (owned by the caller), lines ended by CR LF; waits for as
 * long as QEMU takes. *wait: see hmp_migrate_run(). *refused becomes TRUE when the text says that
 * the line was wrong or could not be done. Both may be NULL. NULL with *errp when QEMU is gone
 * (SF_ERROR_VM_GONE) or there is no answer for another reason.
 */
char *hmp_session_run(HmpSession *session, const char *line, gboolean *wait, gboolean *refused,
                      GError **errp);

/* Whether a migration or snapshot is on its way. *info (may be NULL): query-migrate's answer. */
gboolean hmp_session_is_migrating(HmpSession *session, JsonNode **info, GError **errp);

/* migrate_cancel, without a word. */
void hmp_session_cancel(HmpSession *session);

/* Readable when hmp_session_check() has something to look at. */
int hmp_session_get_fd(HmpSession *session);
/* Takes in what QEMU has sent without being asked. FALSE with SF_ERROR_VM_GONE when it is gone. */
gboolean hmp_session_check(HmpSession *session, GError **errp);
/* Whether QEMU said that it is shutting down. */
gboolean hmp_session_saw_shutdown(HmpSession *session);

/*
 * The words that may stand behind @line, whose last word may have begun: commands, subjects of
 * "info", capabilities, parameters. Owned by the caller; NULL where none are known.
 */
GStrv hmp_session_complete(HmpSession *session, const char *line);
