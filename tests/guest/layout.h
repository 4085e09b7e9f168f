/*
 * What the bare-metal guest and those who look at its memory from outside agree on.
 *
 * The guest writes the numbers n = 1, 2, 3... into its pages, one page a number, in a scattered
 * order that is the same in every round. Writing n means, in this order: the first word of the
 * page, the middle word, the last word, then the counter in the state page. So at any instant the
 * right content of every page follows from the counter, and at most one page, the one of
 * counter + 1, is between two of its three stores.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <stdint.h>

#define GUEST_PAGE_SIZE 4096
#define GUEST_WORDS (GUEST_PAGE_SIZE / 8)
#define GUEST_WORD_FIRST 0
#define GUEST_WORD_MIDDLE (GUEST_WORDS / 2)
#define GUEST_WORD_LAST (GUEST_WORDS - 1)

/* Physical address of the state page. Code and page tables lie below it, test pages above. */
#define GUEST_STATE_ADDRESS 0x200000
#define GUEST_MAGIC 0x656d6172666c6c74ULL
#define GUEST_MAX_RANGES 8
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
};

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
