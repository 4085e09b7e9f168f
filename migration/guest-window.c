/*
 * The mapping is private and registered with a userfaultfd of our own for missing pages. A page
 * that the file has is simply mapped (missing mode asks the page cache first); a read of a hole,
 * ours or the kernel's in write(), waits for us instead of filling it. In a private mapping
 * UFFDIO_ZEROPAGE puts a page of our own there and leaves the file alone
 * (mfill_atomic_pte_zeropage; in a shared one it would allocate). A punched hole takes the file's
 * pages out of every mapping, so that one punched later is met as well.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "guest-window.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "attach/userfaultfd.h"
#include "userfaultfd-compat.h"
#include "util/autofd.h"
#include "util/fault-injection.h"

#define FILE_PAGE 4096ULL

struct GuestWindow {
    int uffd;
    int stop_event;
    GThread *thread;
    _Atomic guint64 holes;
    GuestBlock *block;
    guint64 first;
    guint64 count;
    guint8 *base; /* NULL: nothing is open */
};

static void fill_hole(GuestWindow *window, guint64 address)
{
    struct uffdio_zeropage zero = { .range = { .start = address & ~(FILE_PAGE - 1),
                                               .len = FILE_PAGE } };

    /* Counted first: whoever is let go by it must find it counted. */
    atomic_fetch_add_explicit(&window->holes, 1, memory_order_release);
    /* EEXIST: somebody filled the file's hole meanwhile; the reader is to look again. */
    while (ioctl(window->uffd, UFFDIO_ZEROPAGE, &zero) < 0) {
        if (errno != EAGAIN) {
            ioctl(window->uffd, UFFDIO_WAKE, &zero.range);
            return;
        }
    }
}

static gpointer holes_thread(gpointer data)
{
    GuestWindow *window = data;
    struct pollfd fds[2] = { { .fd = window->uffd, .events = POLLIN },
                             { .fd = window->stop_event, .events = POLLIN } };

    while (!fds[1].revents) {
        struct uffd_msg message;
        poll(fds, G_N_ELEMENTS(fds), -1);
        while (read(window->uffd, &message, sizeof(message)) == sizeof(message)) {
            if (message.event == UFFD_EVENT_PAGEFAULT) {
                fill_hole(window, message.arg.pagefault.address);
            }
        }
    }
    return NULL;
}

GuestWindow *guest_window_new(void)
{
    g_autoptr(GuestWindow) window = g_new0(GuestWindow, 1);
    struct uffdio_api api = { .api = UFFD_API };

    window->stop_event = -1;
    window->uffd = fault_injected("no-window") ? -1 : userfaultfd_open_own(UFFD_SCOPE_FULL, NULL);
    if (window->uffd < 0 || ioctl(window->uffd, UFFDIO_API, &api) < 0) {
        return NULL;
    }
    window->stop_event = eventfd(0, EFD_CLOEXEC);
    if (window->stop_event < 0) {
        return NULL;
    }
    window->thread = g_thread_try_new("sf-holes", holes_thread, window, NULL);
    return window->thread ? g_steal_pointer(&window) : NULL;
}

static void close_window(GuestWindow *window)
{
    if (window->base) {
        munmap(window->base, window->count * FILE_PAGE);
        window->base = NULL;
    }
}

void guest_window_free(GuestWindow *window)
{
    guint64 one = 1;

    if (!window) {
        return;
    }
    close_window(window);
    if (window->thread) {
        if (write(window->stop_event, &one, sizeof(one)) < 0) {
            g_assert_not_reached(); /* an event descriptor takes a one */
        }
        g_thread_join(window->thread);
    }
    sf_clear_fd(&window->stop_event);
    sf_clear_fd(&window->uffd);
    g_free(window);
}

gboolean guest_window_open(GuestWindow *window, GuestBlock *block, guint64 first, guint64 count)
{
    if (!window) {
        return FALSE;
    }
    close_window(window);
    if (!block->shared || block->hugetlb || block->page_size != FILE_PAGE) {
        return FALSE;
    }
    void *base = mmap(NULL, count * FILE_PAGE, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, block->file,
                      (off_t)(block->file_offset + first * FILE_PAGE));
    if (base == MAP_FAILED) {
        return FALSE;
    }
    window->base = base;
    window->block = block;
    window->first = first;
    window->count = count;
    struct uffdio_register reg = { .range = { .start = (guint64)(guintptr)base,
                                              .len = count * FILE_PAGE },
                                   .mode = UFFDIO_REGISTER_MODE_MISSING };
    if (ioctl(window->uffd, UFFDIO_REGISTER, &reg) < 0) {
        close_window(window);
        return FALSE;
    }
    return TRUE;
}

const guint8 *guest_window_look(GuestWindow *window, GuestBlock *block, guint64 first,
                                guint64 count)
{
    if (!window || !window->base || block != window->block || first < window->first ||
        first - window->first > window->count || count > window->count - (first - window->first)) {
        return NULL;
    }
    guint8 *at = window->base + (first - window->first) * FILE_PAGE;
    /* One walk in place of a fault for every few pages; where it fails, they come one by one. */
    madvise(at, count * FILE_PAGE, MADV_POPULATE_READ);
    return at;
}

guint64 guest_window_get_holes(GuestWindow *window)
{
    return window ? atomic_load_explicit(&window->holes, memory_order_acquire) : 0;
}
