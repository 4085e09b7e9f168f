/*
 * The gate before the userfaultfd's messages.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "event-gate.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "userfaultfd-compat.h"
#include "util/autofd.h"
#include "util/fault-injection.h"

struct EventGate {
    int uffd;
    pid_t pid;
    int fdinfo;   /* of the userfaultfd */
    int task_dir; /* /proc/PID/task */
    GMutex lock;  /* held from looking to having read one message, and for each release */
    GCond idle;
    gboolean busy; /* a thread deals with a discard */
};

EventGate *event_gate_new(int uffd, pid_t pid, GError **errp)
{
    g_autoptr(EventGate) gate = g_new0(EventGate, 1);
    g_autofree char *fdinfo = g_strdup_printf("/proc/self/fdinfo/%d", uffd);
    g_autofree char *tasks = g_strdup_printf("/proc/%d/task", (int)pid);

    gate->uffd = uffd;
    gate->pid = pid;
    g_mutex_init(&gate->lock);
    g_cond_init(&gate->idle);
    gate->task_dir = -1;
    gate->fdinfo = open(fdinfo, O_RDONLY | O_CLOEXEC);
    if (gate->fdinfo < 0) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot open %s", fdinfo);
        return NULL;
    }
    gate->task_dir = open(tasks, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (gate->task_dir < 0) {
        sf_error_set_errno(errp, SF_ERROR_NO_PROCESS, errno, "cannot open %s", tasks);
        return NULL;
    }
    return g_steal_pointer(&gate);
}

void event_gate_free(EventGate *gate)
{
    if (gate) {
        sf_clear_fd(&gate->fdinfo);
        sf_clear_fd(&gate->task_dir);
        g_mutex_clear(&gate->lock);
        g_cond_clear(&gate->idle);
        g_free(gate);
    }
}

/* Readable: a fault or an event is queued. */
static gboolean is_readable(EventGate *gate)
{
    struct pollfd fd = { .fd = gate->uffd, .events = POLLIN };

    return poll(&fd, 1, 0) > 0 && (fd.revents & POLLIN);
}

/*
 * The kernel counts the threads that are in the middle of a change (mmap_changing) from before
 * their event is queued until they go on, and refuses to write-protect meanwhile. It looks at that
 * before it looks at the range: an empty one, which it refuses too (EINVAL), is the cheapest
 * question.
 */
static gboolean is_changing(EventGate *gate)
{
    struct uffdio_writeprotect nothing = { .range = { .len = 0 } };

    return ioctl(gate->uffd, UFFDIO_WRITEPROTECT, &nothing) < 0 && errno == EAGAIN &&
           !fault_injected("discard-unseen");
}

gboolean event_gate_take(EventGate *gate, struct uffd_msg *message)
{
    return read(gate->uffd, message, sizeof(*message)) == sizeof(*message);
}

GateResult event_gate_read(EventGate *gate, struct uffd_msg *message)
{
    GateResult result = GATE_NOTHING;

    g_mutex_lock(&gate->lock);
    while (gate->busy) {
        g_cond_wait(&gate->idle, &gate->lock);
    }
    if (is_readable(gate)) {
        /*
         * Readable and nobody changing: it is a fault, and stays one while no other thread reads
         * or releases. Faults are given out before events.
         */
        if (is_changing(gate)) {
            gate->busy = TRUE;
            result = GATE_DISCARD;
        } else if (event_gate_take(gate, message)) {
            result = GATE_MESSAGE;
        }
    }
    g_mutex_unlock(&gate->lock);
    return result;
}

/* The number of faults that wait to be read, which poll() does not tell. */
static gulong count_pending(EventGate *gate)
{
    char text[512];
    ssize_t got = pread(gate->fdinfo, text, sizeof(text) - 1, 0);

    text[MAX(got, 0)] = '\0';
    const char *at = strstr(text, "pending:");
    return at ? strtoul(at + strlen("pending:"), NULL, 10) : 0;
}

/*
 * An event that is queued when the threads are looked at belongs to one that sleeps in its system
 * call, and goes on sleeping until it is read; events are read in the order of their coming. So the
 * oldest one is for one of the ranges that are found.
 */
DiscardStep event_gate_look(EventGate *gate, struct uffd_msg *message, Discard *found, guint *n)
{
    if (!is_changing(gate)) {
        return DISCARD_OVER;
    }
    if (count_pending(gate) > 0) {
        return event_gate_take(gate, message) ? DISCARD_FAULT : DISCARD_SOON;
    }
    if (!is_readable(gate)) {
        return DISCARD_SOON;
    }
    *n = discards_find(gate->task_dir, gate->pid, found, DISCARDS_MAX);
    return *n ? DISCARD_FOUND : DISCARD_SOON;
}

void event_gate_leave(EventGate *gate)
{
    g_mutex_lock(&gate->lock);
    gate->busy = FALSE;
    g_cond_broadcast(&gate->idle);
    g_mutex_unlock(&gate->lock);
}

void event_gate_lock(EventGate *gate)
{
    g_mutex_lock(&gate->lock);
}

void event_gate_unlock(EventGate *gate)
{
    g_mutex_unlock(&gate->lock);
}
