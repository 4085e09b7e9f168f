/*
 * Files for fuzzers, in memory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"

int fuzz_file(const guint8 *data, gsize size, char path[32])
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);

    g_assert_cmpint(fd, >=, 0);
    for (gsize done = 0; done < size;) {
        gssize n = write(fd, data + done, size - done);
        g_assert_cmpint(n, >, 0);
        done += (gsize)n;
    }
    snprintf(path, 32, "/proc/self/fd/%d", fd);
    return fd;
}
