/*
 * <linux/fs.h>, and the PAGEMAP_SCAN ioctl of /proc/PID/pagemap where it is missing: Linux 6.7,
 * newer than Debian 12's headers. Only the numbers of the kernel's stable interface
 * (Documentation/admin-guide/mm/pagemap.rst). An older kernel answers ENOTTY or EINVAL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <linux/fs.h>
#include <linux/ioctl.h>
#include <linux/types.h>

/* One symbol stands for the whole set: the structures cannot be asked for with #ifdef. 6.7. */
#ifndef PAGEMAP_SCAN

/* Categories of a page. */
#define PAGE_IS_WPALLOWED (1 << 0) /* write-protect mode with WP_ASYNC is on for it */
#define PAGE_IS_WRITTEN (1 << 1)   /* not write-protected by userfaultfd */
#define PAGE_IS_FILE (1 << 2)      /* belongs to a file or to shmem */
#define PAGE_IS_PRESENT (1 << 3)   /* in memory, and in this page table */
#define PAGE_IS_SWAPPED (1 << 4)   /* swapped out, migrating, or only a marker */
#define PAGE_IS_PFNZERO (1 << 5)   /* the kernel's zero page */
#define PAGE_IS_HUGE (1 << 6)      /* mapped by a huge entry, or hugetlb */

/* One answer: a range whose pages agree in the categories of pm_scan_arg.return_mask. */
struct page_region {
    __u64 start;
    __u64 end;
    __u64 categories;
};

/*
 * The question. A page is selected when all categories of category_mask and at least one of
 * category_anyof_mask (if any) are set, with those of category_inverted turned round before.
 */
struct pm_scan_arg {
    __u64 size;      /* sizeof(struct pm_scan_arg) */
    __u64 flags;     /* PM_SCAN_* */
    __u64 start;     /* page-aligned */
    __u64 end;       /* page-aligned */
    __u64 walk_end;  /* out: where the walk stopped; end when it saw everything */
    __u64 vec;       /* address of an array of struct page_region */
    __u64 vec_len;   /* its elements */
    __u64 max_pages; /* stop after that many selected pages; 0 = no limit */
    __u64 category_inverted;
    __u64 category_mask;
    __u64 category_anyof_mask;
    __u64 return_mask; /* the categories to report */
};

#define PM_SCAN_WP_MATCHING (1 << 0)   /* write-protect the selected pages */
#define PM_SCAN_CHECK_WPASYNC (1 << 1) /* give up (EPERM) at a range without WP_ASYNC */

/* Returns the number of regions filled. */
#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)

#endif /* PAGEMAP_SCAN */

/* 6.7 as well, but a change of its own. */
#ifndef PAGE_IS_SOFT_DIRTY
#define PAGE_IS_SOFT_DIRTY (1 << 7)
#endif
