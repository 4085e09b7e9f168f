/*
 * A VM with a proxy in front of it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "raw-qmp.h"
#include "writer-guest.h"

typedef struct ProxiedVm {
    TestVm *vm;
    TestDir *dir; /* for images, the proxy's socket and what it keeps */
    char *socket;
    TestTool *proxy; /* NULL: not running */
} ProxiedVm;

/* A writing guest; the proxy has the fault switches @faults (NULL for none). */
ProxiedVm *proxied_vm_start(const char *faults);
/* A VM without a guest, whatever its arguments (NULL for the fewest). */
ProxiedVm *proxied_vm_start_empty(const char *const *args);
void proxied_vm_free(ProxiedVm *proxied);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ProxiedVm, proxied_vm_free)

void proxied_vm_start_proxy(ProxiedVm *proxied, const char *faults);
/* SIGKILL. */
void proxied_vm_kill_proxy(ProxiedVm *proxied);
/* The pid of the engine, which is waited for. */
pid_t proxied_vm_find_engine(ProxiedVm *proxied);
/* A client past its negotiation, with background-snapshot and events on. */
RawQmp *proxied_vm_open_on(ProxiedVm *proxied);
/* A path in its directory; the caller frees. */
char *proxied_vm_file(ProxiedVm *proxied, const char *name);
