/*
 * QEMU's migrate commands, answered by Stillframe while the capability background-snapshot is on.
 * On the level of a QMP command's name and arguments; who speaks QMP (the proxy) or HMP (the
 * console) to people stands before it. The engine runs in a process of its own: its death costs the
 * snapshot, nothing else.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <json-glib/json-glib.h>
#include <sys/types.h>

#include "util/error.h"

typedef struct MigrateFront MigrateFront;

/* What the front needs from whoever owns the connection to QEMU. */
typedef struct MigrateFrontOps {
    /*
     * One more QMP connection to the same QEMU, as a connected stream socket that begins with the
     * greeting (QEMU serves one client at a time: qmp_mux_open() makes as many as wanted of one).
     * Owned by the caller. -1 and *errp on failure. Called from the threads of the front.
     */
    int (*open_monitor)(gpointer user, GError **errp);
    /*
     * The connection to QEMU itself, -1 for none: only for a process that must resume a stopped VM
     * when the owner of the connection died in the middle of a freeze. Not owned by the caller.
     */
    int (*get_qemu_fd)(gpointer user);
    /*
     * A duplicate of what QEMU knows by getfd under @name; owned by the caller. -1 and *errp with
     * QEMU's words where there is none. NULL: nothing was ever passed.
     */
    int (*take_fd)(const char *name, gpointer user, GError **errp);
    /*
     * An event of ours, to be sent on in the order of the calls: "MIGRATION" with @data
     * {"status": ...} (not taken). Only called when the capability events is on. From any thread of
     * the front; one call at a time; must not call the front. NULL: nobody listens.
     */
    void (*event)(const char *name, JsonObject *data, gpointer user);
} MigrateFrontOps;

/*
 * @pid: the QEMU process, 0 where it is not known (then a snapshot fails with the reason).
 * Capabilities and parameters that QEMU cannot keep are kept by the front beside the VM, as long as
 * the VM lives: a new front for the same process finds them as the last one left them. @ops is
 * copied. Never NULL.
 */
MigrateFront *migrate_front_new(pid_t pid, const MigrateFrontOps *ops, gpointer user);

/* Cancels a snapshot that runs and waits for the end of its process. NULL is allowed. */
void migrate_front_free(MigrateFront *front);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MigrateFront, migrate_front_free)

/*
 * Whether @command is to be answered by the front now. While background-snapshot is on: migrate,
 * the queries of capabilities and parameters, and setting them; when it is off, setting
 * capabilities that name it. As long as the last migration was ours: query-migrate and
 * migrate_cancel. And migrate-incoming of a "file:" on a QEMU that does not know file:. Everything
 * else is QEMU's. May ask QEMU, the first time. Any thread.
 */
gboolean migrate_front_answers(MigrateFront *front, const char *command, JsonObject *arguments);

/*
 * The same without asking QEMU, at once: FALSE is certain, TRUE is not as long as QEMU has not been
 * asked. Any thread.
 */
gboolean migrate_front_may_answer(MigrateFront *front, const char *command, JsonObject *arguments);

/* The same for an HMP line, for which hmp_migrate_owns_line() holds. May ask QEMU, the first time.
 */
gboolean migrate_front_answers_line(MigrateFront *front, const char *line);

/* QEMU's version as qmp_client_get_version() gives it; 0 before QEMU was first asked. */
guint migrate_front_get_version(MigrateFront *front);

/*
 * Runs @command as QEMU would and returns what stands behind "return" (owned by the caller), or
 * NULL and the text that belongs behind "desc" as the error's whole message (class GenericError).
 * A command that is not the front's is run by QEMU itself, so a console needs no other way.
 * @arguments (not taken) may be NULL. Blocks: "migrate" until the snapshot has begun or is
 * refused, the others as long as QEMU takes. One thread at a time.
 */
JsonNode *migrate_front_execute(MigrateFront *front, const char *command, JsonObject *arguments,
                                GError **errp);

/* Whether background-snapshot is on. May ask QEMU, the first time. Any thread. */
gboolean migrate_front_is_on(MigrateFront *front);

/*
 * What query-migrate answers has, besides QEMU's own members, one of ours, "stillframe", an object:
 * while a snapshot runs "phase", "faults", "buffer-used"; afterwards the whole report as in
 * stillframe(1), REPORT.
 */
#define MIGRATE_FRONT_OWN_MEMBER "stillframe"
