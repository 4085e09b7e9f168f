/*
 * The userfaultfd ioctls of the engine.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "write-tracking.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "attach/userfaultfd.h"
#include "userfaultfd-compat.h"
#include "util/autofd.h"
#include "util/fault-injection.h"

/* Firmware is smaller. */
#define MAIN_MEMORY_MIN (16ULL << 20)

static guint64 features_wanted(GuestRam *ram, guint64 offered)
{
    guint64 wanted = UFFD_FEATURE_PAGEFAULT_FLAG_WP;
    for (guint i = 0; i < ram->blocks->len; i++) {
        GuestBlock *block = g_ptr_array_index(ram->blocks, i);
        if (block->file >= 0 || block->hugetlb) {
            wanted |= UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
        }
    }
    wanted |= offered & (UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_EVENT_REMOVE);
    return wanted;
}

/*
 * Only main memory is given back, and only where it is private, or shared without a file, the event
 * comes before the loss. Of a device's own memory it is not expected; then the snapshot fails.
 */
static gboolean needs_gate(GuestRam *ram)
{
    for (guint i = 0; i < ram->blocks->len; i++) {
        GuestBlock *block = g_ptr_array_index(ram->blocks, i);
        gboolean main_memory = g_str_has_prefix(block->name, "/objects/") ||
                               (!strchr(block->name, '/') && block->length >= MAIN_MEMORY_MIN);
        if (main_memory && (!block->shared || block->nameless)) {
            return TRUE;
        }
    }
    return FALSE;
}

gboolean write_tracking_open(WriteTracking *tracking, int uffd, guint64 offered, GuestRam *ram,
                             GError **errp)
{
    sf_autofd fd = uffd;
    guint64 wanted = features_wanted(ram, offered);

    if (!(offered & UFFD_FEATURE_PAGEFAULT_FLAG_WP)) {
        g_set_error(
            errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
            "this kernel cannot write-protect memory through userfaultfd (it needs Linux "
            "5.7 with CONFIG_USERFAULTFD on a processor that supports it)" USERFAULTFD_SEE_CHECK);
        return FALSE;
    }
    if (wanted & ~offered & UFFD_FEATURE_WP_HUGETLBFS_SHMEM) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "the guest's memory is shared or in huge pages, which this kernel cannot "
                    "write-protect (it needs Linux 5.19); a VM with plain anonymous memory can be "
                    "snapshotted here" USERFAULTFD_SEE_CHECK);
        return FALSE;
    }
    struct uffdio_api api = { .api = UFFD_API, .features = wanted };
    if (ioctl(fd, UFFDIO_API, &api) < 0) {
        return sf_error_set_errno(errp, SF_ERROR_UNSUPPORTED, errno,
                                  "userfaultfd refuses the features 0x%" G_GINT64_MODIFIER
                                  "x (\"stillframe check\" tells which this kernel has)",
                                  wanted);
    }
    tracking->features = wanted;
    tracking->unpopulated = (wanted & UFFD_FEATURE_WP_UNPOPULATED) != 0;
    tracking->uffd = sf_steal_fd(&fd);
    if ((wanted & UFFD_FEATURE_EVENT_REMOVE) && needs_gate(ram)) {
        tracking->gate = event_gate_new(tracking->uffd, ram->pid, errp);
        return tracking->gate != NULL;
    }
    return TRUE;
}

void write_tracking_close(WriteTracking *tracking)
{
    g_clear_pointer(&tracking->gate, event_gate_free);
    sf_clear_fd(&tracking->uffd);
}

gboolean write_tracking_register(WriteTracking *tracking, GuestBlock *block, GError **errp)
{
    struct uffdio_register reg = {
        .range = { .start = block->host, .len = block->pages * block->page_size },
        .mode = UFFDIO_REGISTER_MODE_WP,
    };
    if (ioctl(tracking->uffd, UFFDIO_REGISTER, &reg) < 0) {
        int err = errno;
        if (err == EBUSY) {
            g_set_error(errp, SF_ERROR, SF_ERROR_BUSY,
                        "RAM block %s is already tracked by a userfaultfd: another snapshot, a "
                        "background snapshot, a lazy restore or a postcopy migration of this VM is "
                        "running; wait for its end",
                        block->name);
            return FALSE;
        }
        return sf_error_set_errno(errp, SF_ERROR_UNSUPPORTED, err,
                                  "RAM block %s cannot be write-tracked", block->name);
    }
    for (guint64 region = 0; region < block->regions; region++) {
        block->region_tracked[region] = TRUE;
    }
    if (!(reg.ioctls & (1ULL << _UFFDIO_WRITEPROTECT))) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "this kernel cannot write-protect the kind of memory behind RAM block "
                    "%s" USERFAULTFD_SEE_CHECK,
                    block->name);
        return FALSE;
    }
    return TRUE;
}

/*
 * UFFDIO_UNREGISTER holds the mmap lock for writing while it walks the page tables, and so holds up
 * every page fault of the guest: done region by region, each takes well under a millisecond.
 *
 * The kernel does not ask whose range it is: unregistering, or removing protection, of a range that
 * another userfaultfd tracks would ruin that snapshot silently. So each region is done once.
 */
static void unregister(WriteTracking *tracking, GuestBlock *block, guint64 first, guint64 count)
{
    struct uffdio_range range = { .start = block->host + first * block->page_size,
                                  .len = count * block->page_size };

    ioctl(tracking->uffd, UFFDIO_UNREGISTER, &range);
}

void write_tracking_unregister_region(WriteTracking *tracking, GuestBlock *block, guint64 region)
{
    guint64 first;
    guint64 count = region_get_pages(block, region, &first);

    if (block->region_tracked[region]) {
        block->region_tracked[region] = FALSE;
        unregister(tracking, block, first, count);
    }
}

/* All at once: the kernel never joins mappings of huge pages again that were split. */
static void unregister_huge_pages(WriteTracking *tracking, GuestBlock *block)
{
    if (block->regions > 0 && block->region_tracked[0]) {
        memset(block->region_tracked, 0, block->regions * sizeof(block->region_tracked[0]));
        unregister(tracking, block, 0, block->pages);
    }
}

static void unregister_block(WriteTracking *tracking, GuestBlock *block, gboolean still_armed)
{
    for (guint64 region = 0; region < block->regions; region++) {
        /* Kernels before 6.0 leave the protection in place when a range is unregistered. */
        if (still_armed && block->region_tracked[region]) {
            guint64 first;
            guint64 count = region_get_pages(block, region, &first);
            write_tracking_try_release(tracking, block, first, count);
        }
        if (!block->hugetlb) {
            write_tracking_unregister_region(tracking, block, region);
        }
    }
    if (block->hugetlb) {
        unregister_huge_pages(tracking, block);
    }
}

void write_tracking_unregister_all(WriteTracking *tracking, GuestRam *ram, gboolean still_armed)
{
    for (guint i = 0; i < ram->blocks->len; i++) {
        unregister_block(tracking, g_ptr_array_index(ram->blocks, i), still_armed);
    }
}

/* As on an old kernel, in memory that is cut into mappings of 2 MiB. */
static gboolean crosses_a_cut(const struct uffdio_range *range)
{
    const guint64 cut = 2ULL << 20;

    return range->start / cut != (range->start + range->len - 1) / cut;
}

static int write_protect_range(WriteTracking *tracking, GuestBlock *block, guint64 first,
                               guint64 count, guint64 mode)
{
    struct uffdio_writeprotect wp = {
        .range = { .start = block->host + first * block->page_size,
                   .len = count * block->page_size },
        .mode = mode,
    };
    /* A release takes faults out of the queue that others may be about to read. */
    EventGate *gate = mode & UFFDIO_WRITEPROTECT_MODE_WP ? NULL : tracking->gate;

    if (fault_injected("wp-one-mapping") && crosses_a_cut(&wp.range)) {
        return -ENOENT;
    }
    for (int tries = 0; tries < 4; tries++) {
        if (gate) {
            event_gate_lock(gate);
        }
        int err = ioctl(tracking->uffd, UFFDIO_WRITEPROTECT, &wp) == 0 ? 0 : errno;
        if (gate) {
            event_gate_unlock(gate);
        }
        if (err != EAGAIN && err != EINTR) {
            return -err;
        }
        g_thread_yield();
    }
    return -EAGAIN;
}

/*
 * Older kernels, Linux 6.1 among them, answer ENOENT for a range that lies in more than one
 * mapping, however well each is tracked; a block may be cut into several. So the range is halved
 * until it goes. -ENOENT is left for a page that really is not tracked.
 */
static int write_protect(WriteTracking *tracking, GuestBlock *block, guint64 first, guint64 count,
                         guint64 mode)
{
    int ret = write_protect_range(tracking, block, first, count, mode);
    if (ret != -ENOENT || count < 2) {
        return ret;
    }
    int left = write_protect(tracking, block, first, count / 2, mode);
    if (left != 0 && left != -ENOENT) {
        return left;
    }
    int right = write_protect(tracking, block, first + count / 2, count - count / 2, mode);
    return right != 0 ? right : left;
}

static gboolean write_protect_or_fail(WriteTracking *tracking, GuestBlock *block, guint64 first,
                                      guint64 count, guint64 mode, GError **errp)
{
    int ret;
    while ((ret = write_protect(tracking, block, first, count, mode)) == -EAGAIN) {
        if (tracking->keep_going && !tracking->keep_going(tracking->user, errp)) {
            return FALSE;
        }
        g_usleep(10);
    }
    return ret == 0 ? TRUE : write_tracking_error(ret, block, errp);
}

gboolean write_tracking_error(int ret, GuestBlock *block, GError **errp)
{
    /* The kernel says ESRCH when the process that owns the memory has exited. */
    if (ret == -ESRCH) {
        g_set_error(errp, SF_ERROR, SF_ERROR_VM_GONE, "QEMU exited during the snapshot");
        return FALSE;
    }
    return sf_error_set_errno(errp, SF_ERROR_FAILED, -ret,
                              "changing the write protection of RAM block %s", block->name);
}

int write_tracking_try_arm(WriteTracking *tracking, GuestBlock *block, guint64 first, guint64 count)
{
    return write_protect(tracking, block, first, count, UFFDIO_WRITEPROTECT_MODE_WP);
}

int write_tracking_try_release(WriteTracking *tracking, GuestBlock *block, guint64 first,
                               guint64 count)
{
    return write_protect(tracking, block, first, count, 0);
}

gboolean write_tracking_arm(WriteTracking *tracking, GuestBlock *block, guint64 first,
                            guint64 count, GError **errp)
{
    return write_protect_or_fail(tracking, block, first, count, UFFDIO_WRITEPROTECT_MODE_WP, errp);
}
