/*
 * Large sparse arrays.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <sys/mman.h>

#include "util/big-array.h"

void *big_array_new(guint64 count, gsize size, GError **errp)
{
    if (count > G_MAXINT64 / size) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, ENOMEM,
                           "no memory for %" G_GUINT64_FORMAT " pages", count);
        return NULL;
    }
    /* NORESERVE: only what is touched counts. */
    void *array = mmap(NULL, MAX(count * size, 1), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (array == MAP_FAILED) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, errno,
                           "no memory for %" G_GUINT64_FORMAT " pages", count);
        return NULL;
    }
    return array;
}

void big_array_free(void *array, guint64 count, gsize size)
{
    if (array) {
        munmap(array, MAX(count * size, 1));
    }
}
