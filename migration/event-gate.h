/*
 * Reading the userfaultfd without letting a thread of QEMU go that is giving memory back: it waits,
 * the content still there, until its event is *read*, and nothing tells a fault from an event
 * before that. Private to migration/; docs/devel/invariants.md has the argument.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>
#include <linux/userfaultfd.h>
#include <sys/types.h>

#include "attach/discards.h"
#include "util/error.h"

#define DISCARDS_MAX 64

typedef struct EventGate EventGate;

/* @uffd, with UFFDIO_API done, must outlive it. */
EventGate *event_gate_new(int uffd, pid_t pid, GError **errp);
void event_gate_free(EventGate *gate);

typedef enum {
    GATE_NOTHING, /* there is nothing to read */
    GATE_MESSAGE, /* one was read: a fault, or, by rare bad luck, an event */
    GATE_DISCARD, /* somebody gives memory back: the caller deals with it, the others wait */
} GateResult;

/* Reads one message that is not an event. Waits while another thread deals with one. */
GateResult event_gate_read(EventGate *gate, struct uffd_msg *message);

/* After GATE_DISCARD, by the same thread: what is there to do? */
typedef enum {
    DISCARD_OVER,  /* nobody gives memory back any more */
    DISCARD_FAULT, /* a fault was read, to be answered first; releases are refused now */
    DISCARD_FOUND, /* found[0..*n): the oldest event is for one of these ranges */
    DISCARD_SOON,  /* somebody is about to, or has just been let go: ask again */
} DiscardStep;
DiscardStep event_gate_look(EventGate *gate, struct uffd_msg *message, Discard *found, guint *n);
/* Reads what is there, events too. FALSE: nothing. */
gboolean event_gate_take(EventGate *gate, struct uffd_msg *message);
/* Ends what GATE_DISCARD began. */
void event_gate_leave(EventGate *gate);

/*
 * Around each release: it wakes writers whose faults were not read yet, and a fault that
 * event_gate_read() counts on must not vanish before it is read.
 */
void event_gate_lock(EventGate *gate);
void event_gate_unlock(EventGate *gate);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(EventGate, event_gate_free)
