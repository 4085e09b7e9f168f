/*
 * The devices that write memory by themselves: what disk and network card have in common.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "dma.h"

static bool has_disk, has_net;

void dma_start(const struct options *options)
{
    has_disk = options->disk.length > 0;
    has_net = options->net.length > 0;
    if (has_disk) {
        disk_start(options);
    }
    if (has_net) {
        net_start(options);
    }
}

void dma_run(uint64_t counter)
{
    if (has_disk) {
        disk_run(counter);
    }
    if (has_net) {
        net_run();
    }
}

void dma_check_all(void)
{
    if (has_disk) {
        disk_check_all();
    }
    if (has_net) {
        net_check_all();
    }
}

void dma_prepare(struct dma *dma, uint64_t kind, const struct memory_range *range,
                 uint64_t slot_pages, const struct virtio_queue *queue, uint64_t under_way)
{
    volatile struct guest_dma *shared = (volatile struct guest_dma *)guest_dma_address(kind);
    uint64_t slots = range->length / GUEST_PAGE_SIZE / slot_pages;

    *dma = (struct dma){ .shared = shared, .kind = kind, .slots = slots, .slot_pages = slot_pages };
    dma->start = range->start;
    dma->mask = guest_order_mask(slots);
    /* A slot must not be asked for again while its last request is under way. */
    if (slots <= under_way) {
        die("disk= or net= is too small");
    }
    shared->kind = kind;
    shared->queue = queue->address;
    shared->queue_size = queue->size;
    shared->start = range->start;
    shared->slots = slots;
    shared->slot_pages = slot_pages;
}

void dma_publish(struct dma *dma)
{
    compiler_barrier();
    dma->shared->magic = GUEST_DMA_MAGIC;
}

uint64_t dma_next_address(const struct dma *dma)
{
    return dma_slot_address(dma, dma->submit_slot);
}

void dma_submitted(struct dma *dma)
{
    compiler_barrier();
    dma->shared->submitted = ++dma->submitted;
    dma->submit_slot = guest_order_next(dma->submit_slot, dma->slots, dma->mask);
}

void dma_completed(struct dma *dma)
{
    dma->shared->completed = ++dma->completed;
}

__attribute__((noreturn)) void dma_fail(const struct dma *dma, uint64_t number, const char *what)
{
    put_text(dma->kind == GUEST_DMA_DISK ? "\nX disk, request " : "\nX packet ");
    put_number(number);
    put_text(": ");
    put_text(what);
    put_char('\n');
    halt();
}
