/*
 * The fault threads.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "fault-service.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "clock.h"
#include "guest-read.h"
#include "userfaultfd-compat.h"
#include "util/autofd.h"
#include "util/fault-injection.h"

/* A few messages a read: under a storm one call serves several vCPUs, and no thread hoards. */
#define MESSAGES_PER_READ 8
/* Each waiting thread of QEMU has at most one page to be released. */
#define DEFERRED_MAX 1024
/* Pages saved at one fault at the most: some 40 us of copying, well below what the sweep holds. */
#define AHEAD_MAX 32ULL
/* A thread that gives memory back is where it can be seen within microseconds. */
#define DISCARD_WAIT_US 20
#define DISCARD_WAITS_MAX 5000

/* A release that could not be done yet. */
typedef struct Deferred {
    GuestBlock *block;
    guint64 page;
    guint64 count;
    gboolean saved; /* only to be released; else to be answered anew, in the phase that is then */
} Deferred;

typedef struct Handler {
    FaultService *service;
    GThread *thread;
    int epoll;
    GMutex lock; /* held from reading messages to having answered them */
    Deferred *deferred;
    guint n_deferred;
    GuestBlock *ahead_block; /* where the last fault ended, and how much it saved */
    guint64 ahead_next;
    guint64 window;
    ServiceStats stats;
} Handler;

struct FaultService {
    GuestRam *ram;
    WriteTracking *tracking;
    BufferPool *pool;
    Outcome *outcome;
    OnFull on_full;
    int stop_event;
    _Atomic int phase;
    _Atomic guint64 saved;
    _Atomic guint64 faults;
    atomic_bool saw_remove;
    guint n_handlers;
    Handler *handlers;
};

static void handler_fail(Handler *handler, GError *error)
{
    outcome_fail(handler->service->outcome, error);
    fault_service_set_phase(handler->service, SERVICE_ABANDON);
}

static void defer(Handler *handler, GuestBlock *block, guint64 page, guint64 count, gboolean saved)
{
    /* A thread of QEMU waits in one page at a time, and QEMU has fewer than this. */
    g_assert(handler->n_deferred < DEFERRED_MAX);
    handler->deferred[handler->n_deferred++] =
        (Deferred){ .block = block, .page = page, .count = count, .saved = saved };
}

/*
 * Releases pages; FALSE when that must be tried again later: EAGAIN means that an event waits to be
 * read, and this thread may be the one that has to read it.
 */
static gboolean try_release(Handler *handler, GuestBlock *block, guint64 first, guint64 count)
{
    int ret = write_tracking_try_release(handler->service->tracking, block, first, count);

    if (ret == -EAGAIN) {
        return FALSE;
    }
    /* ENOENT: the sweep found the region saved and unregistered it, which has woken everybody. */
    if (ret != 0 && ret != -ENOENT) {
        GError *error = NULL;
        write_tracking_error(ret, block, &error);
        handler_fail(handler, error);
    }
    return TRUE;
}

static void handler_release(Handler *handler, GuestBlock *block, guint64 page, guint64 count)
{
    if (!try_release(handler, block, page, count)) {
        defer(handler, block, page, count, TRUE);
    }
}

/*
 * Before T0: the page and its neighbours are released, then noted, in this order: a pass that arms
 * touched pages clears the note first (see touched.c). The freeze waits until the note is made.
 */
static void handler_touch(Handler *handler, GuestBlock *block, guint64 page)
{
    guint64 first = page / block->group_pages * block->group_pages;

    if (!try_release(handler, block, first, MIN(block->group_pages, block->pages - first))) {
        defer(handler, block, page, 1, FALSE);
        return;
    }
    if (!fault_injected("lose-touched-page")) {
        page_note_group(block, block->touched, page);
    }
}

static gint take_slot(Handler *handler)
{
    FaultService *service = handler->service;
    gint slot = buffer_pool_take_slot(service->pool, FALSE);

    if (slot >= 0 || outcome_has_failed(service->outcome)) {
        return slot;
    }
    if (service->on_full == ON_FULL_CANCEL) {
        handler_fail(handler,
                     g_error_new(SF_ERROR, SF_ERROR_BUFFER_FULL,
                                 "the buffer is full and the destination is slower than the guest "
                                 "writes: the snapshot was given up so that the guest need not "
                                 "wait; give more with --max-buffer, or choose --on-full=stall"));
        return -1;
    }
    guint64 began = clock_now_ns();
    slot = buffer_pool_take_slot(service->pool, TRUE);
    handler->stats.stalls++;
    handler->stats.stall_ns += clock_now_ns() - began;
    return slot;
}

/* How a page is read that somebody wants to write to: there is no time to look what it is. */
static PageKind fault_kind(const GuestBlock *block)
{
    return block->shared ? PAGE_KIND_FILE : PAGE_KIND_MEMORY;
}

/* FALSE: the page was given back, the snapshot is lost. */
static gboolean check_kept(Handler *handler, GuestBlock *block, guint64 offset, const void *data,
                           gsize length)
{
    GError *error = NULL;

    if (!guest_block_check_kept(handler->service->ram, block, fault_kind(block), offset, data,
                                length, &error)) {
        handler_fail(handler, error);
        return FALSE;
    }
    return TRUE;
}

/* Copies one slot's worth and queues it. FALSE: the snapshot is lost, the slot is given back. */
static gboolean copy_slot(Handler *handler, GuestBlock *block, guint64 offset, gint slot)
{
    FaultService *service = handler->service;
    guint8 *data = buffer_pool_slot_data(service->pool, slot);
    GError *error = NULL;

    if (!guest_block_read(service->ram, block, fault_kind(block), offset, data, POOL_SLOT_SIZE,
                          &error)) {
        handler_fail(handler, error);
    } else if (block->hugetlb || check_kept(handler, block, offset, data, POOL_SLOT_SIZE)) {
        buffer_pool_push_slot(service->pool, slot, block->index, offset);
        return TRUE;
    }
    buffer_pool_return(service->pool, &slot, 1);
    return FALSE;
}

/* Copies a whole page, huge ones in slots, into the pool. FALSE: the snapshot is lost. */
static gboolean copy_page(Handler *handler, GuestBlock *block, guint64 page)
{
    guint64 offset = page * block->page_size;

    /* Reading a private huge page through the mapping fills the hole that it has left. */
    if (block->hugetlb && !check_kept(handler, block, offset, NULL, block->page_size)) {
        return FALSE;
    }
    for (guint64 done = 0; done < block->page_size; done += POOL_SLOT_SIZE) {
        gint slot = take_slot(handler);
        if (slot < 0 || !copy_slot(handler, block, offset + done, slot)) {
            return FALSE;
        }
    }
    return !block->hugetlb || check_kept(handler, block, offset, NULL, block->page_size);
}

/*
 * How many pages to save at this fault: the window doubles while faults come in ascending order, so
 * that a guest that writes page after page meets few of them, and is one page for all others.
 */
static guint64 choose_window(Handler *handler, GuestBlock *block, guint64 page)
{
    gboolean follows = block == handler->ahead_block && page >= handler->ahead_next &&
                       page - handler->ahead_next < 4 * AHEAD_MAX;

    handler->window = follows && !block->hugetlb ? MIN(handler->window * 2, AHEAD_MAX) : 1;
    return handler->window;
}

/*
 * Saves what follows a page that was just saved, as far as nobody has claimed it and the pool has
 * room without waiting. The slot comes before the claim: a claimed page must be copied by us.
 * Returns the number of pages.
 */
static guint64 copy_ahead(Handler *handler, GuestBlock *block, guint64 page, guint64 window)
{
    BufferPool *pool = handler->service->pool;
    /* Not over a region's end: regions are unregistered one by one, a release must lie in one. */
    guint64 end = MIN(((page - 1) / block->region_pages + 1) * block->region_pages, block->pages);
    guint64 n = 0;

    while (n < window && page + n < end) {
        gint slot = buffer_pool_take_slot(pool, FALSE);
        if (slot < 0) {
            break;
        }
        if (!page_claim(block, page + n)) {
            buffer_pool_return(pool, &slot, 1);
            break;
        }
        if (!copy_slot(handler, block, (page + n) * block->page_size, slot)) {
            break;
        }
        n++;
    }
    return n;
}

static void save_and_release(Handler *handler, GuestBlock *block, guint64 page)
{
    guint64 count =
        1 + copy_ahead(handler, block, page + 1, choose_window(handler, block, page) - 1);

    for (guint64 i = 0; i < count; i++) {
        page_set_saved(block, page + i);
    }
    handler->ahead_block = block;
    handler->ahead_next = page + count;
    handler->stats.pages_saved += count;
    atomic_fetch_add_explicit(&handler->service->saved, count, memory_order_relaxed);
    if (fault_injected("late-release")) {
        g_usleep(20000);
    }
    handler_release(handler, block, page, count);
}

/* After T0. A page that somebody else is copying is released by that copier, never here. */
static void handler_serve(Handler *handler, GuestBlock *block, guint64 page)
{
    if (page_claim(block, page)) {
        if (fault_injected("release-before-copy")) {
            handler_release(handler, block, page, 1);
            g_usleep(200);
        }
        if (copy_page(handler, block, page)) {
            save_and_release(handler, block, page);
        } else {
            handler_release(handler, block, page, 1);
        }
    } else if (page_state(block, page) == PAGE_SAVED || fault_injected("ignore-claim")) {
        /* Swap-in, fork or KSM can bring a protected entry back: a false alarm. */
        handler->stats.spurious++;
        handler_release(handler, block, page, 1);
    }
}

static void answer(Handler *handler, GuestBlock *block, guint64 page)
{
    switch (atomic_load_explicit(&handler->service->phase, memory_order_acquire)) {
    case SERVICE_PREARM:
        handler_touch(handler, block, page);
        break;
    case SERVICE_SERVE:
        handler_serve(handler, block, page);
        break;
    default:
        handler_release(handler, block, page, 1);
    }
}

static void handler_fault(Handler *handler, guint64 address, guint64 read_ns)
{
    FaultService *service = handler->service;
    GuestBlock *block = guest_ram_find(service->ram, address);

    if (!block) {
        return; /* only our ranges are registered */
    }
    guint64 page = (address - block->host) / block->page_size;
    gboolean after_t0 =
        atomic_load_explicit(&service->phase, memory_order_acquire) == SERVICE_SERVE;
    answer(handler, block, page);
    page_add_heat(block, page);
    if (after_t0) {
        latency_histogram_add(&handler->stats.latency, clock_now_ns() - read_ns);
        handler->stats.faults++;
        atomic_fetch_add_explicit(&service->faults, 1, memory_order_relaxed);
    } else {
        handler->stats.faults_prearm++;
    }
}

static void handler_answer_deferred(Handler *handler)
{
    guint n = handler->n_deferred;

    handler->n_deferred = 0;
    for (guint i = 0; i < n; i++) {
        /* Entry i has been read before a new one can be put at or below its place. */
        Deferred deferred = handler->deferred[i];
        if (deferred.saved) {
            handler_release(handler, deferred.block, deferred.page, deferred.count);
        } else {
            answer(handler, deferred.block, deferred.page);
        }
    }
}

/*
 * After T0 the old content goes with it. QEMU goes on as soon as the event is read, and whoever
 * copies the page then copies zeros: the page must have been saved before. Only of a whole region
 * it is known when that was.
 */
static void check_given_back(Handler *handler, GuestBlock *block, guint64 page, guint64 before_ns)
{
    guint64 saved_ns = atomic_load_explicit(&block->region_saved_ns[page / block->region_pages],
                                            memory_order_acquire);

    if ((saved_ns && saved_ns < before_ns) || outcome_has_failed(handler->service->outcome)) {
        return;
    }
    GError *error = NULL;
    guest_block_given_back(block, &error);
    handler_fail(handler, error);
}

/*
 * Whether the event of such a discard comes while the content is still there. Of memory on files
 * QEMU punches a hole into the file first, which takes shared pages and huge pages with it; private
 * copies of other pages stay until the madvise() that follows.
 */
static gboolean event_comes_first(GuestBlock *block, const Discard *discard)
{
    if (block->shared) {
        return block->nameless && discard->advice == MADV_REMOVE;
    }
    return !block->hugetlb || block->file < 0;
}

/* Whether what was given back by this event was saved before the event was read. */
static gboolean was_saved_before(GuestBlock *block, guint64 start, guint64 end,
                                 const Discard *saved, guint n)
{
    for (guint i = 0; i < n; i++) {
        if (start >= saved[i].start && end <= saved[i].end && event_comes_first(block, &saved[i])) {
            return TRUE;
        }
    }
    return FALSE;
}

/*
 * QEMU is giving memory back (balloon, free page reporting, unplug) and waits until we have read
 * this. @before_ns: a moment before it was read. @saved: what was saved before it was read.
 */
static void handler_remove(Handler *handler, const struct uffd_msg *message, guint64 before_ns,
                           const Discard *saved, guint n)
{
    FaultService *service = handler->service;
    gboolean prearm = atomic_load_explicit(&service->phase, memory_order_acquire) == SERVICE_PREARM;
    guint64 start = message->arg.remove.start, end = message->arg.remove.end;

    atomic_store_explicit(&service->saw_remove, TRUE, memory_order_release);
    for (guint64 at = start; at < end;) {
        GuestBlock *block = guest_ram_find(service->ram, at);
        if (!block) {
            at += POOL_SLOT_SIZE;
            continue;
        }
        guint64 page = (at - block->host) / block->page_size;
        if (prearm) {
            /* A change like any other; it waits for the freeze. */
            page_note_group(block, block->given_back, page);
        } else if (!was_saved_before(block, start, end, saved, n)) {
            check_given_back(handler, block, page, before_ns);
        }
        at += block->page_size;
    }
}

/* @before_ns, @read_ns: moments before and after it was read. */
static void handler_message(Handler *handler, const struct uffd_msg *message, guint64 before_ns,
                            guint64 read_ns)
{
    if (message->event == UFFD_EVENT_PAGEFAULT) {
        handler_fault(handler, message->arg.pagefault.address, read_ns);
    } else if (message->event == UFFD_EVENT_REMOVE) {
        handler_remove(handler, message, before_ns, NULL, 0);
    }
}

static gboolean is_serving(Handler *handler)
{
    return atomic_load_explicit(&handler->service->phase, memory_order_acquire) == SERVICE_SERVE;
}

/* A hole that is given back stays one, but its protection goes: it is saved as zeros. */
static gboolean save_hole(Handler *handler, GuestBlock *block, guint64 page)
{
    BufferPool *pool = handler->service->pool;

    for (guint64 done = 0; done < block->page_size; done += POOL_SLOT_SIZE) {
        gint slot = take_slot(handler);
        if (slot < 0) {
            return FALSE;
        }
        memset(buffer_pool_slot_data(pool, slot), 0, POOL_SLOT_SIZE);
        buffer_pool_push_slot(pool, slot, block->index, page * block->page_size + done);
    }
    return TRUE;
}

/*
 * A private page that was the file's at T0, and not a copy of it, has gone with the file's. FALSE:
 * the snapshot is lost.
 */
static gboolean check_still_there(Handler *handler, GuestBlock *block, guint64 page)
{
    GError *error = NULL;
    gboolean copy = TRUE;

    if (block->shared || !page_was_present(block, page) ||
        (guest_read_is_copy(handler->service->ram, block, page, &copy, &error) && copy)) {
        return TRUE;
    }
    if (!error) {
        guest_block_given_back(block, &error);
    }
    handler_fail(handler, error);
    return FALSE;
}

/* Sees to it that a page is saved, by whomever. It stays protected. FALSE: the snapshot is lost. */
static gboolean save_kept(Handler *handler, GuestBlock *block, guint64 page, PageKind kind)
{
    if (!page_claim(block, page)) {
        /* Whoever copies it does not wait for us: it is marked saved before its release. */
        while (page_state(block, page) != PAGE_SAVED && is_serving(handler)) {
            g_usleep(DISCARD_WAIT_US);
        }
        return is_serving(handler);
    }
    if (!check_still_there(handler, block, page)) {
        return FALSE;
    }
    if (!(kind == PAGE_KIND_ZERO ? save_hole(handler, block, page)
                                 : copy_page(handler, block, page))) {
        return FALSE;
    }
    page_set_saved(block, page);
    handler->stats.pages_saved++;
    atomic_fetch_add_explicit(&handler->service->saved, 1, memory_order_relaxed);
    return TRUE;
}

/* Saves what of a block lies in a range that is about to be given back. */
static void save_discard(Handler *handler, GuestBlock *block, const Discard *discard)
{
    guint64 end = block->host + block->pages * block->page_size;
    guint8 kind[SCAN_PAGES_MAX];

    if (discard->end <= block->host || discard->start >= end ||
        !event_comes_first(block, discard)) {
        return;
    }
    guint64 page = (MAX(discard->start, block->host) - block->host) / block->page_size;
    guint64 last = (MIN(discard->end, end) - 1 - block->host) / block->page_size;
    for (guint64 count; page <= last; page += count) {
        GError *error = NULL;
        count = MIN(last - page + 1, (guint64)SCAN_PAGES_MAX);
        if (!guest_block_scan(handler->service->ram, block, page, count, kind, &error)) {
            handler_fail(handler, error);
            return;
        }
        for (guint64 i = 0; i < count; i++) {
            if (!save_kept(handler, block, page + i, (PageKind)kind[i])) {
                return;
            }
        }
    }
}

/* The ranges hold what the oldest event is about: save them, then read it, which lets QEMU go on.
 */
static void answer_discards(Handler *handler, const Discard *found, guint n)
{
    GPtrArray *blocks = handler->service->ram->blocks;
    struct uffd_msg message;

    for (guint i = 0; i < n; i++) {
        for (guint k = 0; k < blocks->len && is_serving(handler); k++) {
            save_discard(handler, g_ptr_array_index(blocks, k), &found[i]);
        }
    }
    guint64 before_ns = clock_now_ns();
    while (event_gate_take(handler->service->tracking->gate, &message)) {
        if (message.event == UFFD_EVENT_REMOVE) {
            handler_remove(handler, &message, before_ns, found, n);
            return;
        }
        handler_message(handler, &message, before_ns, clock_now_ns());
    }
}

/*
 * After T0 somebody gives memory back. No release is possible until that is through, so all else
 * can wait. Who does it in a way that cannot be seen (an io_uring) is let go unseen after a while.
 */
static void serve_discards(Handler *handler)
{
    EventGate *gate = handler->service->tracking->gate;
    Discard found[DISCARDS_MAX];
    struct uffd_msg message;
    guint n = 0, waits = 0;

    while (is_serving(handler)) {
        guint64 before_ns = clock_now_ns();
        switch (event_gate_look(gate, &message, found, &n)) {
        case DISCARD_OVER:
            return;
        case DISCARD_FAULT:
            handler_message(handler, &message, before_ns, clock_now_ns());
            break;
        case DISCARD_FOUND:
            answer_discards(handler, found, n);
            waits = 0;
            break;
        case DISCARD_SOON:
            g_usleep(DISCARD_WAIT_US);
            if (++waits > DISCARD_WAITS_MAX && event_gate_take(gate, &message)) {
                handler_message(handler, &message, before_ns, clock_now_ns());
            }
        }
    }
}

/* Reads and answers what is there, after T0 and where a discard must be seen before it is read. */
static void handler_drain_gated(Handler *handler)
{
    EventGate *gate = handler->service->tracking->gate;
    struct uffd_msg message;

    while (is_serving(handler)) {
        guint64 before_ns = clock_now_ns();
        switch (event_gate_read(gate, &message)) {
        case GATE_NOTHING:
            return;
        case GATE_MESSAGE:
            handler_message(handler, &message, before_ns, clock_now_ns());
            break;
        case GATE_DISCARD:
            serve_discards(handler);
            event_gate_leave(gate);
        }
        handler_answer_deferred(handler);
    }
}

/* Reads and answers what is there. Called with the handler's lock held. */
static void handler_drain(Handler *handler)
{
    struct uffd_msg messages[MESSAGES_PER_READ];

    if (handler->service->tracking->gate) {
        handler_drain_gated(handler);
    }
    while (!handler->service->tracking->gate || !is_serving(handler)) {
        guint64 before_ns = clock_now_ns();
        ssize_t got = read(handler->service->tracking->uffd, messages, sizeof(messages));
        if (got <= 0) {
            return; /* EAGAIN: another thread was faster */
        }
        guint64 read_ns = clock_now_ns();
        for (gsize i = 0; i < (gsize)got / sizeof(messages[0]); i++) {
            handler_message(handler, &messages[i], before_ns, read_ns);
        }
        handler_answer_deferred(handler);
    }
}

static gpointer handler_thread(gpointer data)
{
    Handler *handler = data;
    gboolean running = TRUE;

    while (running) {
        struct epoll_event event;
        /* What was put off waits for an event to be read: look again soon. */
        int n = epoll_wait(handler->epoll, &event, 1, handler->n_deferred ? 1 : -1);
        if (n > 0 && event.data.fd == handler->service->stop_event) {
            running = FALSE;
        }
        g_mutex_lock(&handler->lock);
        handler_drain(handler);
        handler_answer_deferred(handler);
        g_mutex_unlock(&handler->lock);
    }
    return NULL;
}

static gboolean handler_start(Handler *handler, FaultService *service, GError **errp)
{
    /* Exclusive: one fault wakes one thread. */
    struct epoll_event faults = { .events = EPOLLIN | EPOLLEXCLUSIVE,
                                  .data.fd = service->tracking->uffd };
    struct epoll_event stop = { .events = EPOLLIN, .data.fd = service->stop_event };

    handler->service = service;
    handler->deferred = g_new(Deferred, DEFERRED_MAX);
    g_mutex_init(&handler->lock);
    handler->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (handler->epoll < 0 ||
        epoll_ctl(handler->epoll, EPOLL_CTL_ADD, faults.data.fd, &faults) < 0 ||
        epoll_ctl(handler->epoll, EPOLL_CTL_ADD, stop.data.fd, &stop) < 0) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot watch the userfaultfd");
    }
    handler->thread = g_thread_try_new("sf-fault", handler_thread, handler, errp);
    return handler->thread != NULL;
}

FaultService *fault_service_start(GuestRam *ram, WriteTracking *tracking, BufferPool *pool,
                                  Outcome *outcome, OnFull on_full, guint threads, GError **errp)
{
    FaultService *service = g_new0(FaultService, 1);

    service->ram = ram;
    service->tracking = tracking;
    service->pool = pool;
    service->outcome = outcome;
    service->on_full = on_full;
    service->handlers = g_new0(Handler, threads);
    service->stop_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (service->stop_event < 0) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot make an event descriptor");
        fault_service_stop(service, NULL);
        return NULL;
    }
    for (guint i = 0; i < threads; i++) {
        service->n_handlers++;
        if (!handler_start(&service->handlers[i], service, errp)) {
            fault_service_stop(service, NULL);
            return NULL;
        }
    }
    return service;
}

void fault_service_lock(FaultService *service)
{
    for (guint i = 0; i < service->n_handlers; i++) {
        g_mutex_lock(&service->handlers[i].lock);
    }
}

void fault_service_unlock(FaultService *service)
{
    for (guint i = 0; i < service->n_handlers; i++) {
        g_mutex_unlock(&service->handlers[i].lock);
    }
}

void fault_service_set_phase(FaultService *service, ServicePhase phase)
{
    atomic_store_explicit(&service->phase, phase, memory_order_release);
}

guint64 fault_service_get_saved(FaultService *service)
{
    return atomic_load_explicit(&service->saved, memory_order_relaxed);
}

guint64 fault_service_get_faults(FaultService *service)
{
    return atomic_load_explicit(&service->faults, memory_order_relaxed);
}

gboolean fault_service_saw_remove(FaultService *service)
{
    return atomic_load_explicit(&service->saw_remove, memory_order_acquire);
}

static void merge_stats(ServiceStats *into, const ServiceStats *from)
{
    into->faults_prearm += from->faults_prearm;
    into->faults += from->faults;
    into->spurious += from->spurious;
    into->pages_saved += from->pages_saved;
    into->stalls += from->stalls;
    into->stall_ns += from->stall_ns;
    latency_histogram_merge(&into->latency, &from->latency);
}

void fault_service_stop(FaultService *service, ServiceStats *stats)
{
    guint64 one = 1;

    if (service->stop_event >= 0 && write(service->stop_event, &one, sizeof(one)) < 0) {
        g_assert_not_reached(); /* an event descriptor takes a one */
    }
    for (guint i = 0; i < service->n_handlers; i++) {
        Handler *handler = &service->handlers[i];
        if (handler->thread) {
            g_thread_join(handler->thread);
        }
        if (stats) {
            merge_stats(stats, &handler->stats);
        }
        sf_clear_fd(&handler->epoll);
        g_mutex_clear(&handler->lock);
        g_free(handler->deferred);
    }
    sf_clear_fd(&service->stop_event);
    g_free(service->handlers);
    g_free(service);
}
