/*
 * The migrate front's insides: migrate-front.c (who answers what), migrate-caps.c (capabilities,
 * parameters, and where they are kept), migrate-target.c (where to), migrate-run.c (one snapshot
 * and what query-migrate tells of it). For these files only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "migrate-engine.h"
#include "monitor/migrate-front.h"
#include "monitor/qmp.h"

/* QEMU versions as qmp_client_get_version() tells them. */
#define QEMU_HAS_FILE_URI 80200
#define QEMU_HAS_SKIPPED_UNTIL 90100 /* query-migrate had ram.skipped before */

typedef enum {
    MIGRATE_NONE,
    MIGRATE_SETUP,
    MIGRATE_ACTIVE,
    MIGRATE_CANCELLING,
    MIGRATE_CANCELLED,
    MIGRATE_COMPLETED,
    MIGRATE_FAILED,
} MigrateStatus;

/* What QEMU cannot keep for us. */
typedef struct MigrateSettings {
    gboolean background_snapshot;
    gboolean mapped_ram;       /* only where QEMU does not know it */
    gboolean direct_io;        /* likewise */
    gboolean bandwidth_chosen; /* max-bandwidth was set, be it to its default */
} MigrateSettings;

typedef struct MigrateProgress {
    guint64 saved, zero, total, written, faults, buffer_used;
} MigrateProgress;

/* The last snapshot, or the one that runs. Under the front's lock. */
typedef struct MigrateRun {
    MigrateStatus status;
    gboolean cancelled; /* by the user */
    gboolean begun;     /* past its setup: "migrate" may answer */
    gboolean ended;
    char *error;
    gint64 began_us;
    gint64 setup_us; /* how long it took */
    gint64 total_us; /* when it has ended */
    int phase;
    gint64 downtime_limit; /* the parameter, which QEMU shows as expected-downtime */
    MigrateProgress progress;
    JsonObject *report;
} MigrateRun;

struct MigrateFront {
    pid_t pid;
    MigrateFrontOps ops;
    gpointer user;

    GMutex lock; /* for what follows */
    GCond changed;
    gboolean loaded;
    MigrateSettings settings;
    gboolean qemu_knows_mapped_ram;
    gboolean qemu_knows_direct_io;
    guint version;
    gboolean ours; /* the last migration was */
    gboolean events;
    MigrateRun run;
    MigrateEngine *engine;
};

/* One command's way to QEMU: opened for it, closed behind it. */
QmpClient *migrate_front_connect(MigrateFront *front, GError **errp);
/* As migrate_front_execute() for QEMU's own answer; the error's message is QEMU's alone. */
JsonNode *migrate_front_ask(QmpClient *qmp, const char *command, JsonObject *arguments,
                            GError **errp);

/* ---- migrate-caps.c ---- */
gboolean migrate_settings_load(MigrateFront *front, QmpClient *qmp, GError **errp);
/* Forgets what was kept for VMs that have ended. */
void migrate_settings_forget(void);
JsonNode *migrate_set_capabilities(MigrateFront *front, QmpClient *qmp, JsonObject *arguments,
                                   GError **errp);
JsonNode *migrate_query_capabilities(MigrateFront *front, QmpClient *qmp, GError **errp);
JsonNode *migrate_set_parameters(MigrateFront *front, QmpClient *qmp, JsonObject *arguments,
                                 GError **errp);
JsonNode *migrate_query_parameters(MigrateFront *front, QmpClient *qmp, GError **errp);
/* Whether a capability is on, ours or QEMU's. */
gboolean migrate_capability_is_on(JsonNode *capabilities, const char *name);

/* ---- migrate-target.c ---- */
typedef struct MigrateTarget {
    char *uri; /* as destination_parse() takes it; "fd:0" for @fd */
    int fd;    /* -1 for none */
} MigrateTarget;

void migrate_target_clear(MigrateTarget *target);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(MigrateTarget, migrate_target_clear)
/* QEMU's checks of the arguments, before anything happens. The caller frees. */
char *migrate_target_check(guint version, JsonObject *arguments, GError **errp);
/* Opens what must be taken from QEMU: fd:NAME, and file:/dev/fdset/N. */
gboolean migrate_target_open(MigrateFront *front, QmpClient *qmp, const char *uri,
                             MigrateTarget *target, GError **errp);

/* ---- migrate-run.c ---- */
JsonNode *migrate_run_start(MigrateFront *front, QmpClient *qmp, JsonObject *arguments,
                            GError **errp);
JsonNode *migrate_run_cancel(MigrateFront *front);
JsonNode *migrate_run_query(MigrateFront *front, QmpClient *qmp, GError **errp);
/* Under the lock. */
gboolean migrate_run_is_running(const MigrateRun *run);
void migrate_run_clear(MigrateRun *run);
/* The limit for the sweep out of QEMU's parameters; 0 for none. */
gint64 migrate_run_bandwidth(MigrateFront *front, JsonObject *parameters);

/* ---- migrate-load.c ---- */
/* "migrate-incoming" of a file: for a QEMU that does not know the form. */
JsonNode *migrate_load_file(QmpClient *qmp, JsonObject *arguments, GError **errp);
gboolean migrate_load_is_file(JsonObject *arguments);
