/*
 * The thread that answers faults of a lazy restore, and the events that QEMU waits with.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "lazy-impl.h"
#include "userfaultfd-compat.h"

#define MESSAGES_PER_READ 16
/* How long an answer that could not be given waits: until an event has been read. */
#define AGAIN_MS 1

typedef struct Fault {
    LazyBlock *block;
    guint64 page;
} Fault;

typedef struct Faults {
    LazyService *service;
    GArray *waiting; /* Fault */
    LazyBuffer buffer;
} Faults;

static LazyBlock *find_block(LazyService *service, guint64 address, guint64 *page)
{
    for (guint i = 0; i < service->n_blocks; i++) {
        LazyBlock *block = &service->blocks[i];
        if (address >= block->host && address - block->host < block->pages * block->page_size) {
            *page = (address - block->host) / block->page_size;
            return block;
        }
    }
    return NULL;
}

/*
 * Given back: from here on these pages are zero, whatever the image has. QEMU's thread goes on to
 * drop them when this message has been read, and puts of pages are refused until then.
 */
static void note_given_back(LazyService *service, guint64 start, guint64 end)
{
    for (guint i = 0; i < service->n_blocks; i++) {
        LazyBlock *block = &service->blocks[i];
        guint64 stop = block->host + block->pages * block->page_size;
        for (guint64 at = MAX(start, block->host); at < MIN(end, stop); at += block->page_size) {
            guint64 page = (at - block->host) / block->page_size;
            if (block->state[page] == LAZY_TODO && !lazy_page_is_zero(service, block, page)) {
                atomic_fetch_add(&service->done, block->page_size);
            }
            block->state[page] = LAZY_GIVEN_BACK;
        }
    }
}

static void take_message(Faults *faults, const struct uffd_msg *message)
{
    Fault fault;

    if (message->event == UFFD_EVENT_REMOVE) {
        note_given_back(faults->service, message->arg.remove.start, message->arg.remove.end);
    }
    if (message->event != UFFD_EVENT_PAGEFAULT) {
        return;
    }
    fault.block = find_block(faults->service, message->arg.pagefault.address, &fault.page);
    if (fault.block) {
        atomic_fetch_add(&faults->service->faults, 1);
        g_array_append_val(faults->waiting, fault);
    }
}

static void read_messages(Faults *faults)
{
    LazyService *service = faults->service;
    struct uffd_msg messages[MESSAGES_PER_READ];

    g_mutex_lock(&service->lock);
    ssize_t got = read(service->uffd, messages, sizeof(messages));
    for (ssize_t i = 0; i < got / (ssize_t)sizeof(messages[0]); i++) {
        take_message(faults, &messages[i]);
    }
    g_mutex_unlock(&service->lock);
}

/* Locked. @loaded pages from the fault's on are in the buffer. */
static int put_locked(Faults *faults, const Fault *fault, guint64 loaded)
{
    LazyService *service = faults->service;
    LazyBlock *block = fault->block;
    /* The fill may have been here meanwhile. */
    guint64 count = lazy_missing_run(service, block, fault->page, loaded);

    if (count) {
        return lazy_put(service, block, fault->page, count, faults->buffer.data);
    }
    /*
     * A zero page; or one that is there, which is left as it is; or one that was there and has been
     * given back since.
     */
    return lazy_put_zeros(service, block, fault->page, faults->buffer.data);
}

/* FALSE: it must be answered later. */
static gboolean answer(Faults *faults, const Fault *fault)
{
    LazyService *service = faults->service;
    LazyBlock *block = fault->block;
    guint64 most = MAX(FAULT_RUN / block->page_size, 1ULL);
    GError *error = NULL;

    guint64 count = lazy_missing_run(service, block, fault->page, most);
    if (count && !lazy_load(service, block, fault->page, count, &faults->buffer, &error)) {
        if (count > 1) {
            /* Perhaps only a neighbour is damaged. */
            g_clear_error(&error);
            count = 1;
        }
        if (error || !lazy_load(service, block, fault->page, count, &faults->buffer, &error)) {
            lazy_service_fail(service, error); /* and the writer waits */
            return TRUE;
        }
    }
    g_mutex_lock(&service->lock);
    int err = put_locked(faults, fault, count);
    g_mutex_unlock(&service->lock);
    return err == 0 || lazy_put_failed(service, block, err);
}

static void answer_waiting(Faults *faults)
{
    guint kept = 0;

    for (guint i = 0; i < faults->waiting->len; i++) {
        Fault fault = g_array_index(faults->waiting, Fault, i);
        if (!answer(faults, &fault)) {
            g_array_index(faults->waiting, Fault, kept++) = fault;
        }
    }
    g_array_set_size(faults->waiting, kept);
}

gpointer lazy_fault_thread(gpointer data)
{
    LazyService *service = data;
    Faults faults = { .service = service };
    GError *error = NULL;

    if (!lazy_buffer_init(&faults.buffer, service, FAULT_RUN, &error)) {
        lazy_service_fail(service, error);
        return NULL;
    }
    faults.waiting = g_array_new(FALSE, FALSE, sizeof(Fault));
    while (!atomic_load(&service->stopping)) {
        struct pollfd fds[] = { { .fd = service->uffd, .events = POLLIN },
                                { .fd = service->stop_event, .events = POLLIN },
                                { .fd = service->pidfd, .events = POLLIN } };
        poll(fds, G_N_ELEMENTS(fds), faults.waiting->len ? AGAIN_MS : -1);
        if (fds[2].revents) {
            lazy_service_set_status(service, LAZY_VM_GONE);
            break;
        }
        read_messages(&faults);
        answer_waiting(&faults);
    }
    g_array_unref(faults.waiting);
    lazy_buffer_clear(&faults.buffer);
    return NULL;
}
