/*
 * What the running kernel's userfaultfd can do, asked from a throw-away descriptor of our own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "attach/userfaultfd.h"
#include "userfaultfd-compat.h"
#include "util/autofd.h"
#include "util/fault-injection.h"

/* Switches that make a new kernel look like an old one. */
static guint64 hide_features(guint64 features)
{
    if (fault_injected("no-wp-unpopulated")) {
        features &= ~(guint64)UFFD_FEATURE_WP_UNPOPULATED;
    }
    if (fault_injected("no-wp-shmem")) {
        features &= ~(guint64)UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
    }
    return features;
}

static int open_device_descriptor(void)
{
    sf_autofd device = open("/dev/userfaultfd", O_RDONLY | O_CLOEXEC);
    return device < 0 ? -1 : ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC);
}

/*
 * A descriptor for user faults only has the same features and is given to everybody (5.11; before,
 * the flag is EINVAL and the sysctl alone decides).
 */
static int open_throw_away(void)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

    if (fd < 0 && errno == EINVAL) {
        fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    }
    return fd >= 0 ? fd : open_device_descriptor();
}

gboolean userfaultfd_query_features(guint64 *features, GError **errp)
{
    struct uffdio_api api = { .api = UFFD_API };

    *features = 0;
    sf_autofd fd = open_throw_away();
    if (fd < 0) {
        return sf_error_set_errno(errp, SF_ERROR_UNSUPPORTED, errno,
                                  "this kernel gives no userfaultfd (it needs Linux 5.7 or later "
                                  "with CONFIG_USERFAULTFD)");
    }
    /* Asked for no feature, the kernel answers with all it has. */
    if (ioctl(fd, UFFDIO_API, &api) < 0) {
        return sf_error_set_errno(errp, SF_ERROR_UNSUPPORTED, errno, "UFFDIO_API failed");
    }
    *features = hide_features(api.features);
    return TRUE;
}
