/*
 * The page service: its threads and what is known of them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lazy-impl.h"
#include "util/autofd.h"

void lazy_service_set_status(LazyService *service, LazyStatus status)
{
    g_mutex_lock(&service->status_lock);
    /* A page that could not be had is not made good by the rest. */
    if (service->status == LAZY_SERVING || status == LAZY_VM_GONE) {
        service->status = status;
    }
    g_cond_broadcast(&service->status_changed);
    g_mutex_unlock(&service->status_lock);
}

void lazy_service_fail(LazyService *service, GError *error)
{
    g_mutex_lock(&service->status_lock);
    if (service->error) {
        g_error_free(error);
    } else {
        service->error = error;
    }
    g_mutex_unlock(&service->status_lock);
    lazy_service_set_status(service, LAZY_FAILED);
}

static gboolean take_blocks(LazyService *service, LazyRecord *record, GError **errp)
{
    service->n_blocks = record->head->n_blocks;
    service->blocks = g_new0(LazyBlock, service->n_blocks);
    for (guint i = 0; i < service->n_blocks; i++) {
        const LazyRecordBlock *from = &record->blocks[i];
        LazyBlock *block = &service->blocks[i];
        *block = (LazyBlock){ .name = from->name,
                              .host = from->host,
                              .page_size = from->page_size,
                              .pages = from->pages,
                              .state = lazy_record_states(record, i),
                              .places = image_places_find(service->places, from->name) };
        service->largest_page = MAX(service->largest_page, block->page_size);
        if (!block->places || block->page_size % service->places->page_size ||
            block->places->used_length > block->pages * block->page_size) {
            g_set_error(errp, SF_ERROR, SF_ERROR_MISMATCH,
                        "the image has no RAM block %s of this QEMU's size: it is not the image "
                        "that this restore began with",
                        block->name);
            return FALSE;
        }
    }
    return TRUE;
}

LazyService *lazy_service_start(int uffd, int pidfd, const ImagePlaces *places, LazyRecord *record,
                                GError **errp)
{
    g_autoptr(LazyService) service = g_new0(LazyService, 1);

    service->uffd = uffd;
    service->pidfd = pidfd;
    service->places = places;
    g_mutex_init(&service->lock);
    g_mutex_init(&service->status_lock);
    g_cond_init(&service->status_changed);
    service->stop_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (service->stop_event < 0) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot make an eventfd");
        return NULL;
    }
    if (!take_blocks(service, record, errp)) {
        return NULL;
    }
    service->fault_thread = g_thread_new("lazy-fault", lazy_fault_thread, service);
    return g_steal_pointer(&service);
}

void lazy_service_fill(LazyService *service, guint64 max_bandwidth)
{
    service->max_bandwidth = max_bandwidth;
    service->fill_thread = g_thread_new("lazy-fill", lazy_fill_thread, service);
}

LazyStatus lazy_service_wait(LazyService *service, guint timeout_ms)
{
    gint64 deadline = g_get_monotonic_time() + timeout_ms * G_TIME_SPAN_MILLISECOND;

    g_mutex_lock(&service->status_lock);
    while (service->status == LAZY_SERVING &&
           g_cond_wait_until(&service->status_changed, &service->status_lock, deadline)) {
    }
    LazyStatus status = service->status;
    g_mutex_unlock(&service->status_lock);
    return status;
}

void lazy_service_get_counters(LazyService *service, LazyCounters *counters)
{
    counters->done = atomic_load(&service->done);
    counters->total = atomic_load(&service->total);
    counters->faults = atomic_load(&service->faults);
}

const GError *lazy_service_get_error(LazyService *service)
{
    g_mutex_lock(&service->status_lock);
    const GError *error = service->error;
    g_mutex_unlock(&service->status_lock);
    return error;
}

static void join(GThread *thread)
{
    if (thread) {
        g_thread_join(thread);
    }
}

void lazy_service_free(LazyService *service)
{
    const guint64 one = 1;

    if (!service) {
        return;
    }
    atomic_store(&service->stopping, TRUE);
    if (service->stop_event >= 0 && write(service->stop_event, &one, sizeof(one)) < 0) {
        g_assert_not_reached(); /* the first write to an eventfd always fits */
    }
    join(service->fault_thread);
    join(service->fill_thread);
    sf_clear_fd(&service->stop_event);
    g_clear_error(&service->error);
    g_mutex_clear(&service->lock);
    g_mutex_clear(&service->status_lock);
    g_cond_clear(&service->status_changed);
    g_free(service->blocks);
    g_free(service);
}
