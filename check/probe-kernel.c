/*
 * What the kernel offers, asked of the kernel itself: distributions take features out and put them
 * in, so its version tells little.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "pagemap-scan.h"
#include "probes.h"
#include "userfaultfd-compat.h"
#include "util/autofd.h"
#include "util/error.h"
#include "util/fault-injection.h"

typedef struct Feature {
    guint64 bit;
    const char *without; /* what is done where it is missing */
    const char *remedy;  /* NULL: it is not needed */
} Feature;

#define NEWER(version) "a kernel of " version " or later, with CONFIG_USERFAULTFD"

static const Feature features_known[] = {
    { UFFD_FEATURE_PAGEFAULT_FLAG_WP, "no snapshot is possible", NEWER("5.7") },
    { UFFD_FEATURE_WP_HUGETLBFS_SHMEM, "no VM with shared memory or huge pages can be snapshotted",
      NEWER("5.19") },
    { UFFD_FEATURE_WP_UNPOPULATED, "not needed (6.4): memory never written is read once instead",
      NULL },
    { UFFD_FEATURE_EVENT_REMOVE,
      "a balloon or free page reporting may spoil a snapshot without being noticed",
      NEWER("4.11") },
    { UFFD_FEATURE_WP_ASYNC, "not needed (6.7)", NULL },
    { UFFD_FEATURE_MOVE, "not needed (6.8)", NULL },
};

void probe_feature(CheckRow *row, guint64 features, int feature_bit)
{
    for (guint i = 0; i < G_N_ELEMENTS(features_known); i++) {
        const Feature *feature = &features_known[i];
        if (feature->bit != (guint64)feature_bit) {
            continue;
        }
        if (features & feature->bit) {
            check_row_answer(row, CHECK_YES, NULL, "%s", "");
        } else {
            check_row_answer(row, CHECK_NO, feature->remedy, "%s", feature->without);
        }
    }
}

/* Asks for the pages in use among one page of ours, which is. */
static gboolean scan_pagemap(void)
{
    sf_autofd fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    static guint8 memory[8192];
    struct page_region region;
    guintptr page = ((guintptr)memory + 4095) & ~(guintptr)4095;
    struct pm_scan_arg scan = {
        .size = sizeof(scan),
        .start = page,
        .end = page + 4096,
        .vec = (guintptr)&region,
        .vec_len = 1,
        .category_mask = PAGE_IS_PRESENT,
        .return_mask = PAGE_IS_PRESENT,
    };

    *(volatile guint8 *)page = 1;
    if (fault_injected("no-pagemap-scan")) {
        errno = ENOTTY;
        return FALSE;
    }
    return fd >= 0 && ioctl(fd, PAGEMAP_SCAN, &scan) == 1 && region.start == page;
}

void probe_pagemap_scan(CheckRow *row, guint64 features, int unused)
{
    if (scan_pagemap()) {
        check_row_answer(row, CHECK_YES, NULL, "%s", "");
    } else {
        check_row_answer(row, CHECK_NO, NULL, "not needed (6.7): /proc/PID/pagemap is read");
    }
}
