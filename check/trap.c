/*
 * A userfaultfd on this process's own memory, and the thread that serves it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "trap.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include "attach/userfaultfd.h"
#include "userfaultfd-compat.h"
#include "util/autofd.h"
#include "util/fault-injection.h"

struct Trap {
    CheckMemory *memory;
    gboolean populate_holes;
    int uffd;
    int stop; /* an eventfd: readable = the thread ends */
    GThread *thread;
    guint retries, retries_left; /* the thread alone uses the second */
    guint hold_us;
    /* atomic, written by the thread */
    guint64 releases;
    guint64 retried;
    const char *problem;
};

static int write_protect(Trap *trap, gpointer start, gsize length, guint64 mode)
{
    struct uffdio_writeprotect wp = { .range = { (guint64)(guintptr)start, length }, .mode = mode };

    while (ioctl(trap->uffd, UFFDIO_WRITEPROTECT, &wp) < 0) {
        /* EAGAIN: mappings are changing just now. */
        if (errno != EAGAIN && errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

static void note_problem(Trap *trap, const char *text)
{
    __atomic_store_n(&trap->problem, text, __ATOMIC_RELEASE);
}

static void wake_only(Trap *trap, gpointer page)
{
    struct uffdio_range range = { (guint64)(guintptr)page, trap->memory->page_size };

    trap->retries_left--;
    __atomic_add_fetch(&trap->retried, 1, __ATOMIC_RELEASE);
    if (ioctl(trap->uffd, UFFDIO_WAKE, &range) < 0) {
        note_problem(trap, "a waiting writer cannot be woken");
    }
}

static void hold_and_release(Trap *trap, gpointer page)
{
    volatile guint32 *word = page;
    guint32 before = *word;

    if (trap->hold_us) {
        g_usleep(trap->hold_us);
    }
    if (*word != before) {
        note_problem(trap, "a write went through before its page was released");
    }
    __atomic_add_fetch(&trap->releases, 1, __ATOMIC_RELEASE);
    trap->retries_left = trap->retries;
    if (write_protect(trap, page, trap->memory->page_size, 0) < 0) {
        note_problem(trap, "a page cannot be released");
    }
}

static void serve(Trap *trap)
{
    struct uffd_msg message;

    if (read(trap->uffd, &message, sizeof(message)) != sizeof(message)) {
        return;
    }
    if (message.event != UFFD_EVENT_PAGEFAULT ||
        !(message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP)) {
        note_problem(trap, "a fault came that is none of write protection");
    }
    guint64 address = message.arg.pagefault.address & ~(guint64)(trap->memory->page_size - 1);
    gpointer page = (gpointer)(guintptr)address;
    /* For tests: a writer that nobody releases. */
    if (fault_injected("check-hangs")) {
        return;
    }
    if (trap->retries_left) {
        wake_only(trap, page);
    } else {
        hold_and_release(trap, page);
    }
}

static gpointer serve_faults(gpointer data)
{
    Trap *trap = data;
    struct pollfd fds[] = { { .fd = trap->uffd, .events = POLLIN },
                            { .fd = trap->stop, .events = POLLIN } };

    while (!(fds[1].revents & POLLIN)) {
        if (poll(fds, G_N_ELEMENTS(fds), -1) > 0 && (fds[0].revents & POLLIN)) {
            serve(trap);
        }
    }
    return NULL;
}

static gboolean open_descriptor(Trap *trap, TrapFlags flags, GError **errp)
{
    UffdScope scope = flags & TRAP_FOR_KERNEL       ? UFFD_SCOPE_FULL
                      : flags & TRAP_REFUSES_KERNEL ? UFFD_SCOPE_USER
                                                    : UFFD_SCOPE_ANY;
    trap->uffd = userfaultfd_open_own(scope, errp);
    return trap->uffd >= 0;
}

static gboolean choose_features(Trap *trap, guint64 offered, guint64 *wanted, GError **errp)
{
    *wanted = UFFD_FEATURE_PAGEFAULT_FLAG_WP;
    if (check_memory_is_file(trap->memory)) {
        *wanted |= UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
    }
    if (*wanted & ~offered) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "this kernel cannot write-protect it (it needs Linux %s)",
                    offered & UFFD_FEATURE_PAGEFAULT_FLAG_WP ? "5.19" : "5.7");
        return FALSE;
    }
    *wanted |= offered & UFFD_FEATURE_WP_UNPOPULATED;
    trap->populate_holes =
        !(*wanted & UFFD_FEATURE_WP_UNPOPULATED) && !check_memory_is_file(trap->memory);
    return TRUE;
}

static gboolean register_memory(Trap *trap, guint64 features, GError **errp)
{
    guint64 wanted;
    struct uffdio_register reg = {
        .range = { (guint64)(guintptr)trap->memory->data, trap->memory->length },
        .mode = UFFDIO_REGISTER_MODE_WP,
    };

    if (!choose_features(trap, features, &wanted, errp)) {
        return FALSE;
    }
    struct uffdio_api api = { .api = UFFD_API, .features = wanted };
    if (ioctl(trap->uffd, UFFDIO_API, &api) < 0) {
        return sf_error_set_errno(errp, SF_ERROR_UNSUPPORTED, errno, "UFFDIO_API fails");
    }
    if (ioctl(trap->uffd, UFFDIO_REGISTER, &reg) < 0) {
        return sf_error_set_errno(errp, SF_ERROR_UNSUPPORTED, errno, "UFFDIO_REGISTER fails");
    }
    return TRUE;
}

Trap *trap_new(CheckMemory *memory, guint64 features, TrapFlags flags, GError **errp)
{
    g_autoptr(Trap) trap = g_new0(Trap, 1);

    trap->memory = memory;
    trap->uffd = trap->stop = -1;
    if (!open_descriptor(trap, flags, errp) || !register_memory(trap, features, errp)) {
        return NULL;
    }
    trap->stop = eventfd(0, EFD_CLOEXEC);
    if (trap->stop < 0) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "no eventfd");
        return NULL;
    }
    trap->thread = g_thread_try_new("sf-check-trap", serve_faults, trap, errp);
    return trap->thread ? g_steal_pointer(&trap) : NULL;
}

gboolean trap_arm(Trap *trap, GError **errp)
{
    CheckMemory *memory = trap->memory;

    for (gsize offset = 0; trap->populate_holes && offset < memory->length; offset += 4096) {
        (void)*(volatile guint8 *)(memory->data + offset);
    }
    /* For tests: the answer must be "no" then. */
    if (fault_injected("check-arms-nothing")) {
        return TRUE;
    }
    int ret = write_protect(trap, memory->data, memory->length, UFFDIO_WRITEPROTECT_MODE_WP);
    return ret == 0
               ? TRUE
               : sf_error_set_errno(errp, SF_ERROR_UNSUPPORTED, -ret, "UFFDIO_WRITEPROTECT fails");
}

void trap_set_service(Trap *trap, guint retries, guint hold_us)
{
    trap->retries = trap->retries_left = retries;
    trap->hold_us = hold_us;
}

guint64 trap_get_releases(Trap *trap)
{
    return __atomic_load_n(&trap->releases, __ATOMIC_ACQUIRE);
}

guint64 trap_get_retries(Trap *trap)
{
    return __atomic_load_n(&trap->retried, __ATOMIC_ACQUIRE);
}

const char *trap_get_problem(Trap *trap)
{
    return __atomic_load_n(&trap->problem, __ATOMIC_ACQUIRE);
}

void trap_free(Trap *trap)
{
    if (!trap) {
        return;
    }
    if (trap->thread) {
        eventfd_write(trap->stop, 1);
        g_thread_join(trap->thread);
    }
    sf_clear_fd(&trap->uffd);
    sf_clear_fd(&trap->stop);
    g_free(trap);
}
