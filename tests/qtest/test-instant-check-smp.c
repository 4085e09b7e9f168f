/*
 * The judge of several vCPUs can fail: two vCPUs are played, and memory is put together from one
 * time, or from two. Each vCPU's own pages are right in either case: only what they saw of each
 * other tells.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "instant-check.h"

#include <string.h>

#include "tests/guest/layout.h"

#define START 0x400000
#define PAGES 50 /* of each vCPU */
#define CPUS 2

/* One vCPU's memory at some time. */
typedef struct Side {
    guint64 counter;
    guint64 page; /* the next */
    guint64 number[PAGES];
    guint64 seen[PAGES];
} Side;

static void step(Side *side, guint64 other_counter)
{
    side->counter++;
    side->number[side->page] = side->counter;
    side->seen[side->page] = other_counter;
    side->page = guest_order_next(side->page, PAGES, guest_order_mask(PAGES));
}

/* Both write by chance, @steps in all. */
static void play(Side side[CPUS], guint steps, guint32 seed)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);

    memset(side, 0, CPUS * sizeof(*side));
    for (guint i = 0; i < steps; i++) {
        guint cpu = (guint)g_rand_int_range(rand, 0, CPUS);

        step(&side[cpu], side[1 - cpu].counter);
    }
}

static void put_side(InstantMemory *memory, guint cpu, const Side *side)
{
    struct guest_state state = {
        .magic = GUEST_MAGIC,
        .counter = side->counter,
        .page_count = PAGES,
        .range_count = 1,
        .range = { { START + cpu * GUEST_PAGE_SIZE, PAGES } },
        .cpu = cpu,
        .cpus = CPUS,
    };

    instant_memory_put(memory, guest_state_address(cpu), &state, sizeof(state));
    for (guint i = 0; i < PAGES; i++) {
        guint64 words[GUEST_WORDS] = { 0 };

        words[GUEST_WORD_FIRST] = words[GUEST_WORD_MIDDLE] = words[GUEST_WORD_LAST] =
            side->number[i];
        words[GUEST_WORD_SEEN + 1 - cpu] = side->seen[i];
        instant_memory_put(memory, guest_page_address(&state, i), words, sizeof(words));
    }
}

static InstantMemory *put_together(const Side *first, const Side *second)
{
    InstantMemory *memory = instant_memory_new();

    instant_memory_map(memory, GUEST_STATE_ADDRESS, CPUS * GUEST_PAGE_SIZE, "ram", 0);
    instant_memory_map(memory, START, CPUS * PAGES * GUEST_PAGE_SIZE, "ram", 0);
    put_side(memory, 0, first);
    put_side(memory, 1, second);
    return memory;
}

/* Returns the number of effects before their causes; nothing else may be wrong. */
static guint64 judge(const Side *first, const Side *second)
{
    g_autoptr(InstantMemory) memory = put_together(first, second);
    InstantResult result;
    gboolean good = instant_check(memory, &result);

    g_test_message("%s", result.text->str);
    g_assert_cmpuint(result.early + result.late + result.torn + result.foreign + result.missing, ==,
                     0);
    g_assert_cmpuint(result.pages, ==, CPUS * PAGES);
    g_assert_cmpint(good, ==, result.effects == 0);
    instant_result_clear(&result);
    return result.effects;
}

static void test_one_instant(void)
{
    for (guint i = 0; i < 500; i++) {
        Side side[CPUS];

        play(side, i, i);
        g_assert_cmpuint(judge(&side[0], &side[1]), ==, 0);
    }
}

static void test_two_instants(void)
{
    for (guint i = 0; i < 100; i++) {
        Side before[CPUS], after[CPUS];

        play(before, 300 + i, i);
        play(after, 300 + i + 12, i);
        g_assert_cmpuint(judge(&before[0], &after[1]), >, 0);
        g_assert_cmpuint(judge(&after[0], &before[1]), >, 0);
    }
}

/* A page whose numbers are right, with what was seen at another time. */
static void test_seen_out_of_order(void)
{
    Side side[CPUS];
    guint64 page = 0;

    play(side, 400, 7);
    for (guint i = 0; i < PAGES; i++) {
        page = side[0].number[i] == side[0].counter - 20 ? i : page;
    }
    guint64 right = side[0].seen[page];
    side[0].seen[page] = right - 15;
    g_assert_cmpuint(judge(&side[0], &side[1]), >, 0);
    side[0].seen[page] = right + 15;
    g_assert_cmpuint(judge(&side[0], &side[1]), >, 0);
    side[0].seen[page] = right;
    g_assert_cmpuint(judge(&side[0], &side[1]), ==, 0);
}

/* Each vCPU may be between two stores of its next number: what was noted there before is gone. */
static void test_in_transit(void)
{
    for (guint i = 200; i < 400; i++) {
        Side side[CPUS];
        InstantResult result;

        play(side, i, i);
        g_autoptr(InstantMemory) memory = put_together(&side[0], &side[1]);
        for (guint cpu = 0; cpu < CPUS; cpu++) {
            guint64 words[GUEST_WORDS] = { 0 }, old = side[cpu].number[side[cpu].page];

            words[GUEST_WORD_FIRST] = side[cpu].counter + 1;
            words[GUEST_WORD_SEEN + 1 - cpu] = side[1 - cpu].counter;
            words[GUEST_WORD_MIDDLE] = words[GUEST_WORD_LAST] = old;
            instant_memory_replace(memory, START + (side[cpu].page * CPUS + cpu) * GUEST_PAGE_SIZE,
                                   words, sizeof(words));
        }
        if (!instant_check(memory, &result)) {
            g_error("%s", result.text->str);
        }
        instant_result_clear(&result);
    }
}

/* Early and late pages of either vCPU are named as with one. */
static void test_wrong_page(void)
{
    Side side[CPUS];
    InstantResult result;

    play(side, 400, 3);
    side[1].number[11] -= PAGES;
    side[0].number[12] += PAGES;
    g_autoptr(InstantMemory) memory = put_together(&side[0], &side[1]);
    g_assert_false(instant_check(memory, &result));
    g_assert_cmpuint(result.early, ==, 1);
    g_assert_cmpuint(result.late, ==, 1);
    g_assert_nonnull(strstr(result.text->str, "page 0x417000 is early"));
    g_assert_nonnull(strstr(result.text->str, "page 0x418000 is late"));
    instant_result_clear(&result);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/instant-check-smp/one-instant", test_one_instant);
    g_test_add_func("/instant-check-smp/two-instants", test_two_instants);
    g_test_add_func("/instant-check-smp/seen-out-of-order", test_seen_out_of_order);
    g_test_add_func("/instant-check-smp/in-transit", test_in_transit);
    g_test_add_func("/instant-check-smp/wrong-page", test_wrong_page);
    return g_test_run();
}
