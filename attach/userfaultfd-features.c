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
    if (fault_injected("no-wp")) {
        features &= ~(guint64)UFFD_FEATURE_PAGEFAULT_FLAG_WP;
    }
    if (fault_injected("no-wp-shmem")) {
        features &= ~(guint64)UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
    }
    if (fault_injected("no-wp-unpopulated")) {
        features &= ~(guint64)UFFD_FEATURE_WP_UNPOPULATED;
    }
    if (fault_injected("no-event-remove")) {
        features &= ~(guint64)UFFD_FEATURE_EVENT_REMOVE;
    }
    if (fault_injected("no-wp-async")) {
        features &= ~(guint64)UFFD_FEATURE_WP_ASYNC;
    }
    if (fault_injected("no-uffd-move")) {
        features &= ~(guint64)UFFD_FEATURE_MOVE;
    }
    return features;
}

static int open_by_device(int flags)
{
    sf_autofd device = open("/dev/userfaultfd", O_RDONLY | O_CLOEXEC);

    if (fault_injected("no-uffd-device")) {
        errno = EACCES;
        return -1;
    }
    return device < 0 ? -1 : ioctl(device, USERFAULTFD_IOC_NEW, flags);
}

static int open_by_syscall(int flags)
{
    if (fault_injected("no-uffd-syscall")) {
        errno = EPERM;
        return -1;
    }
    return (int)syscall(SYS_userfaultfd, flags);
}

/* Before 5.11 the flag is EINVAL, and the sysctl alone decides about both kinds. */
static int open_for_user_faults(int flags)
{
    int fd = (int)syscall(SYS_userfaultfd, flags | UFFD_USER_MODE_ONLY);

    return fd < 0 && errno == EINVAL ? (int)syscall(SYS_userfaultfd, flags) : fd;
}

int userfaultfd_open_own(UffdScope scope, GError **errp)
{
    const int flags = O_CLOEXEC | O_NONBLOCK;
    int fd = -1, err = 0;

    if (scope != UFFD_SCOPE_USER) {
        fd = open_by_syscall(flags);
        err = errno;
        fd = fd >= 0 ? fd : open_by_device(flags);
    }
    if (fd < 0 && scope != UFFD_SCOPE_FULL) {
        fd = open_for_user_faults(flags);
        err = errno;
    }
    if (fd < 0) {
        gboolean refused = err == EPERM || err == EACCES;
        sf_error_set_errno(errp, refused ? SF_ERROR_PERMISSION : SF_ERROR_UNSUPPORTED, err,
                           "no userfaultfd%s",
                           scope == UFFD_SCOPE_FULL ? " for the kernel's faults" : "");
    }
    return fd;
}

gboolean userfaultfd_query_features(guint64 *features, GError **errp)
{
    struct uffdio_api api = { .api = UFFD_API };

    *features = 0;
    sf_autofd fd = userfaultfd_open_own(UFFD_SCOPE_ANY, errp);
    if (fd < 0) {
        g_prefix_error(errp, "this kernel gives no userfaultfd (it needs Linux 5.7 or later with "
                             "CONFIG_USERFAULTFD" USERFAULTFD_SEE_CHECK "): ");
        return FALSE;
    }
    /* Asked for no feature, the kernel answers with all it has. */
    if (ioctl(fd, UFFDIO_API, &api) < 0) {
        return sf_error_set_errno(errp, SF_ERROR_UNSUPPORTED, errno, "UFFDIO_API failed");
    }
    *features = hide_features(api.features);
    return TRUE;
}
