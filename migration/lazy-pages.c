/*
 * Putting pages of an image into memory where they are missing.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "lazy-impl.h"
#include "userfaultfd-compat.h"

gboolean lazy_buffer_init(LazyBuffer *buffer, LazyService *service, guint64 size, GError **errp)
{
    buffer->size = MAX(size, service->largest_page);
    gsize all = buffer->size + 2 * PLACES_READ_MAX;
    void *at =
        mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (at == MAP_FAILED) {
        buffer->data = NULL;
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "no memory for a page");
    }
    buffer->data = at;
    buffer->scratch = buffer->data + buffer->size;
    return TRUE;
}

void lazy_buffer_clear(LazyBuffer *buffer)
{
    if (buffer->data) {
        munmap(buffer->data, buffer->size + 2 * PLACES_READ_MAX);
    }
}

/* The target's pages of a page of the host: *count of them, less behind the end of the block. */
static guint64 target_pages(const LazyService *service, const LazyBlock *block, guint64 page,
                            guint64 *count)
{
    guint64 each = block->page_size / service->places->page_size;
    guint64 first = page * each;

    *count = first < block->places->pages ? MIN(each, block->places->pages - first) : 0;
    return first;
}

gboolean lazy_page_is_zero(const LazyService *service, const LazyBlock *block, guint64 page)
{
    guint64 count;
    guint64 first = target_pages(service, block, page, &count);

    for (guint64 i = 0; i < count; i++) {
        if (block->places->place[first + i] != PLACE_ZERO) {
            return FALSE;
        }
    }
    return TRUE;
}

guint64 lazy_missing_run(const LazyService *service, const LazyBlock *block, guint64 first,
                         guint64 max)
{
    guint64 count = 0;

    while (count < max && first + count < block->pages &&
           block->state[first + count] == LAZY_TODO &&
           !lazy_page_is_zero(service, block, first + count)) {
        count++;
    }
    return count;
}

gboolean lazy_load(LazyService *service, const LazyBlock *block, guint64 first, guint64 count,
                   LazyBuffer *buffer, GError **errp)
{
    guint64 step = PLACES_READ_MAX / service->places->page_size;
    guint64 n, last;
    guint64 at = target_pages(service, block, first, &n);
    guint64 end = target_pages(service, block, first + count - 1, &last) + last;
    guint8 *to = buffer->data;

    for (; at < end; at += n) {
        n = MIN(step, end - at);
        if (!image_places_read(service->places, block->places, at, n, to, buffer->scratch, errp)) {
            return FALSE;
        }
        to += n * service->places->page_size;
    }
    memset(to, 0, buffer->data + count * block->page_size - to);
    return TRUE;
}

static void set_done(LazyService *service, LazyBlock *block, guint64 first, guint64 count)
{
    for (guint64 i = first; i < first + count; i++) {
        if (block->state[i] == LAZY_TODO && !lazy_page_is_zero(service, block, i)) {
            atomic_fetch_add(&service->done, block->page_size);
        }
        block->state[i] = LAZY_DONE;
    }
}

/* A server that was killed may have put the page there without waking anybody. */
static void wake(LazyService *service, LazyBlock *block, guint64 page)
{
    struct uffdio_range range = { .start = block->host + page * block->page_size,
                                  .len = block->page_size };

    ioctl(service->uffd, UFFDIO_WAKE, &range);
}

/*
 * Whether the rest can go on behind a page that gave @err: EEXIST, it is there; ENOENT, the memory
 * is not registered any more, since it was unplugged.
 */
static gboolean pass_over(LazyService *service, LazyBlock *block, guint64 page, int err)
{
    if (err != EEXIST && err != ENOENT) {
        return FALSE;
    }
    set_done(service, block, page, 1);
    wake(service, block, page);
    return TRUE;
}

int lazy_put(LazyService *service, LazyBlock *block, guint64 first, guint64 count,
             const guint8 *data)
{
    for (guint64 i = 0; i < count;) {
        struct uffdio_copy copy = {
            .dst = block->host + (first + i) * block->page_size,
            .src = (guint64)(guintptr)(data + i * block->page_size),
            .len = (count - i) * block->page_size,
        };
        int err = ioctl(service->uffd, UFFDIO_COPY, &copy) < 0 ? errno : 0;
        guint64 put = copy.copy > 0 ? (guint64)copy.copy / block->page_size : 0;
        set_done(service, block, first + i, put);
        i += put;
        if (put || err == EINTR) {
            continue;
        }
        if (!pass_over(service, block, first + i, err)) {
            return -err;
        }
        i++;
    }
    return 0;
}

/* UFFDIO_ZEROPAGE is not for huge pages: they get a copy of @zeros. */
int lazy_put_zeros(LazyService *service, LazyBlock *block, guint64 page, guint8 *zeros)
{
    if (block->page_size != 4096) {
        memset(zeros, 0, block->page_size);
        return lazy_put(service, block, page, 1, zeros);
    }
    struct uffdio_zeropage zero = { .range = { .start = block->host + page * block->page_size,
                                               .len = block->page_size } };
    int err = ioctl(service->uffd, UFFDIO_ZEROPAGE, &zero) < 0 ? errno : 0;
    if (err && !pass_over(service, block, page, err)) {
        return -err;
    }
    set_done(service, block, page, 1);
    return 0;
}

gboolean lazy_put_failed(LazyService *service, const LazyBlock *block, int err)
{
    if (err == -EAGAIN) {
        return FALSE;
    }
    if (err == -ESRCH) {
        lazy_service_set_status(service, LAZY_VM_GONE);
        return TRUE;
    }
    GError *error = NULL;
    sf_error_set_errno(
        &error, SF_ERROR_FAILED, -err, "cannot put a page into RAM block %s%s", block->name,
        err == -ENOMEM || err == -ENOSPC ? " (no memory, or no huge page, is free)" : "");
    lazy_service_fail(service, error);
    return TRUE;
}
