/*
 * The devices that write memory by themselves: see struct guest_dma in layout.h. Only the first
 * vCPU calls this.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "machine.h"
#include "options.h"
#include "virtio.h"

/* Finds and starts the devices that the options name. */
void dma_start(const struct options *options);
/* Takes what the devices have written, checks it, asks for more. @counter: the vCPU's number. */
void dma_run(uint64_t counter);
/* Checks every slot that the devices are not writing just now. */
void dma_check_all(void);

/* ---- For disk.c and net.c ---- */

/* The state page and where request after request goes. */
struct dma {
    volatile struct guest_dma *shared;
    uint64_t kind;
    uint64_t slots;
    uint64_t slot_pages;
    uint64_t start;
    uint64_t mask;
    uint64_t submitted;
    uint64_t completed;
    uint64_t submit_slot; /* of the next request */
};

/*
 * @range is where the slots are, @under_way how many requests there can be at once. Sets up the
 * state page, but for its magic.
 */
void dma_prepare(struct dma *dma, uint64_t kind, const struct memory_range *range,
                 uint64_t slot_pages, const struct virtio_queue *queue, uint64_t under_way);
/* From now on others may look. */
void dma_publish(struct dma *dma);
/* The slot of the next request; dma_submitted() goes on. */
uint64_t dma_next_address(const struct dma *dma);
void dma_submitted(struct dma *dma);
void dma_completed(struct dma *dma);
static inline uint64_t dma_slot_address(const struct dma *dma, uint64_t slot)
{
    return dma->start + slot * dma->slot_pages * GUEST_PAGE_SIZE;
}
/* "X" with the device's kind, the request and @what, and an end. */
__attribute__((noreturn)) void dma_fail(const struct dma *dma, uint64_t number, const char *what);

void disk_start(const struct options *options);
void disk_run(uint64_t counter);
void disk_check_all(void);
void net_start(const struct options *options);
void net_run(void);
void net_check_all(void);
