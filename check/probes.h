/*
 * The questions, one function each, for the table in host-check.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "check-memory.h"
#include "check-row.h"

/* For what no kernel may do. */
#define BUG_REMEDY "do not take snapshots here; report this, with the version of the kernel"

/* Whether the kernel has a feature of userfaultfd; the argument is an index, see host-check.c. */
void probe_feature(CheckRow *row, guint64 features, int feature_bit);
/* Whether /proc/PID/pagemap can be scanned. */
void probe_pagemap_scan(CheckRow *row, guint64 features, int unused);

/* The doors, tried on a process that is no child of this one. */
void probe_ptrace(CheckRow *row, guint64 features, int unused);
void probe_uffd_syscall(CheckRow *row, guint64 features, int unused);
void probe_uffd_device(CheckRow *row, guint64 features, int unused);

/* Whether writes of this process to memory of a CheckMemoryKind are trapped. */
void probe_memory(CheckRow *row, guint64 features, int kind);

/* Whether a vCPU can be made and run at all. */
void probe_kvm(CheckRow *row, guint64 features, int unused);
/* Whether a vCPU's writes to memory of a CheckMemoryKind are trapped, and it survives them. */
void probe_vcpu(CheckRow *row, guint64 features, int kind);
/* The same for memory that was never written. */
void probe_vcpu_hole(CheckRow *row, guint64 features, int kind);
