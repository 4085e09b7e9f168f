/*
 * What the bare-metal guest and those who look at its memory from outside agree on.
 *
 * Each vCPU writes the numbers n = 1, 2, 3... into pages of its own, one page a number, in a
 * scattered order that is the same in every round. Writing n means, in this order: the first word
 * of the page, what it just saw of the other vCPUs' counters, the middle word, the last word, then
 * its counter in its state page. So at any instant the right content of every page follows from the
 * counters, and at most one page of each vCPU, the one of counter + 1, is between two of its
 * stores.
 *
 * Devices write numbers as well: see struct guest_dma.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <stdint.h>

#define GUEST_PAGE_SIZE 4096
#define GUEST_WORDS (GUEST_PAGE_SIZE / 8)
#define GUEST_WORD_FIRST 0
#define GUEST_WORD_SEEN 1 /* and those behind it, one for each vCPU */
#define GUEST_WORD_MIDDLE (GUEST_WORDS / 2)
#define GUEST_WORD_LAST (GUEST_WORDS - 1)

#define GUEST_MAX_CPUS 4

/*
 * Physical address of the first vCPU's state page; the others' follow. Code and page tables lie
 * below it, the devices' queues above, and test pages from GUEST_RANGES_ADDRESS on.
 */
#define GUEST_STATE_ADDRESS 0x200000
#define GUEST_MAGIC 0x656d6172666c6c74ULL
#define GUEST_MAX_RANGES 8
#define GUEST_RANGES_ADDRESS 0x400000
/* The guest's page tables map this much from address 0. */
#define GUEST_MAX_ADDRESS (64ULL << 30)

struct guest_state {
    uint64_t magic; /* stored last of what is set up: from then on the rest is valid */
    uint64_t counter;
    uint64_t page_count; /* of all ranges together */
    uint64_t range_count;
    struct {
        uint64_t start; /* physical, a multiple of the page size */
        uint64_t pages;
    } range[GUEST_MAX_RANGES];
    uint64_t linear; /* the order is page after page, not scattered */
    uint64_t cpu;
    uint64_t cpus; /* their pages lie by turns: this one's are so many pages apart */
};

static inline uint64_t guest_state_address(uint64_t cpu)
{
    return GUEST_STATE_ADDRESS + cpu * GUEST_PAGE_SIZE;
}

/* Where the vCPU's page number @page lies; @page is less than page_count. */
static inline uint64_t guest_page_address(const struct guest_state *state, uint64_t page)
{
    uint64_t i = 0;

    while (page >= state->range[i].pages) {
        page -= state->range[i++].pages;
    }
    return state->range[i].start + page * state->cpus * GUEST_PAGE_SIZE;
}

/*
 * The order of the pages in a round: a linear congruential generator over the next power of two,
 * of full period (the multiplier is 1 mod 4, the increment odd: Hull and Dobell), from which the
 * values that are no page are left out.
 */
#define GUEST_ORDER_MULTIPLIER 0x5851f42d4c957f2dULL
#define GUEST_ORDER_INCREMENT 0x14057b7ef767814fULL

static inline uint64_t guest_order_mask(uint64_t page_count)
{
    uint64_t mask = 1;

    while (mask < page_count) {
        mask <<= 1;
    }
    return mask - 1;
}

/* The page that follows @page in a round, and on to the first of the next round. */
static inline uint64_t guest_order_next(uint64_t page, uint64_t page_count, uint64_t mask)
{
    do {
        page = (page * GUEST_ORDER_MULTIPLIER + GUEST_ORDER_INCREMENT) & mask;
    } while (page >= page_count);
    return page;
}

/* The same in the order that the guest was told to use. */
static inline uint64_t guest_next_page(const struct guest_state *state, uint64_t page,
                                       uint64_t mask)
{
    if (state->linear) {
        return page + 1 < state->page_count ? page + 1 : 0;
    }
    return guest_order_next(page, state->page_count, mask);
}

/* What a page must hold whose first number ever was @first, when @counter was the last number. */
static inline uint64_t guest_expected_number(uint64_t first, uint64_t counter, uint64_t page_count)
{
    return counter < first ? 0 : first + (counter - first) / page_count * page_count;
}

/*
 * A device that writes into memory by itself, through one virtio queue (legacy layout). The guest
 * hands it the buffers of requests r = 1, 2, 3... in this order; request r has the slot that is the
 * r-th in the scattered order of slots, so all slots are used once in a round. A slot is some whole
 * pages. What the device writes follows from r:
 *
 * - the disk is read: request r reads block guest_disk_block(r), whose every page is filled with
 *   guest_disk_word();
 * - the network card gets the r-th packet that the guest has sent through a second card: from
 *   GUEST_PACKET_NUMBERS on, GUEST_PACKET_WORDS words, each of them r.
 *
 * When the device has taken no more than P requests from the queue and is done with those, every
 * slot holds the content of its last request up to P, and nothing of a later one.
 */
enum { GUEST_DMA_DISK = 1, GUEST_DMA_NET = 2 };
#define GUEST_DMA_KINDS 2
#define GUEST_DMA_MAGIC 0x6b726f77616d64ULL

struct guest_dma {
    uint64_t magic;
    uint64_t kind;
    uint64_t queue; /* address of the virtio queue: descriptors, available ring, used ring */
    uint64_t queue_size;
    uint64_t start; /* of the slots */
    uint64_t slots;
    uint64_t slot_pages;
    uint64_t blocks;    /* the disk's, a slot each */
    uint64_t submitted; /* stored after the index in the available ring */
    uint64_t completed; /* found complete by the guest, in order of completion */
};

static inline uint64_t guest_dma_address(uint64_t kind)
{
    return GUEST_STATE_ADDRESS + (8 + kind) * GUEST_PAGE_SIZE;
}

/* 64 KiB each: the queue itself, and behind all queues the requests' headers and packets. */
#define GUEST_QUEUE_ADDRESS(index) (0x210000ULL + (index)*0x10000ULL)

/* One for each request that can be under way; request r has number r modulo their number. */
#define GUEST_DISK_TAGS_ADDRESS GUEST_QUEUE_ADDRESS(3)
#define GUEST_DISK_TAG_DESCRIPTORS 3 /* header, data, status */
#define GUEST_DISK_TAGS_MAX 32
#define GUEST_DISK_PENDING 0xff
struct guest_disk_tag {
    uint32_t type; /* the request as the device reads it, 16 bytes */
    uint32_t reserved;
    uint64_t sector;
    uint64_t number;
    uint64_t counter; /* the first vCPU's, when the request was made */
    uint8_t status;   /* written by the device; GUEST_DISK_PENDING before */
    uint8_t padding[31];
};

static inline uint64_t guest_disk_tags(uint64_t queue_size)
{
    uint64_t fit = queue_size / GUEST_DISK_TAG_DESCRIPTORS;

    return fit < GUEST_DISK_TAGS_MAX ? fit : GUEST_DISK_TAGS_MAX;
}

static inline uint64_t guest_disk_block(uint64_t number, uint64_t blocks)
{
    return number * 617 % blocks;
}

/* What every 8-byte word of the page @page of the block @block is; never zero. */
static inline uint64_t guest_disk_word(uint64_t block, uint64_t page)
{
    return (block + 1) << 8 | page;
}

#define GUEST_PACKETS_ADDRESS GUEST_QUEUE_ADDRESS(4)
#define GUEST_PACKET_NUMBERS                                                                       \
    32 /* behind virtio's header of 10 bytes, Ethernet's of 14, 8 zeros                            \
        */
#define GUEST_PACKET_WORDS 180
#define GUEST_PACKET_SIZE (GUEST_PACKET_NUMBERS + GUEST_PACKET_WORDS * 8)

/* The virtio queue in memory (virtio 0.9.5 and later, "legacy"). */
struct guest_vring_descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
};

struct guest_vring_available {
    uint16_t flags;
    uint16_t index;
    uint16_t ring[];
};

struct guest_vring_used {
    uint16_t flags;
    uint16_t index;
    struct {
        uint32_t id;
        uint32_t length;
    } ring[];
};

static inline uint64_t guest_vring_available_address(uint64_t queue, uint64_t size)
{
    return queue + size * sizeof(struct guest_vring_descriptor);
}

static inline uint64_t guest_vring_used_address(uint64_t queue, uint64_t size)
{
    uint64_t end = guest_vring_available_address(queue, size) + 6 + size * 2;

    return (end + GUEST_PAGE_SIZE - 1) / GUEST_PAGE_SIZE * GUEST_PAGE_SIZE;
}
