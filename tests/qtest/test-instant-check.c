/*
 * The checker can fail: hand-made memory that is right, and the same with one thing wrong each.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "instant-check.h"

#include <string.h>

#include "tests/guest/layout.h"

#define FIRST_START 0x400000
#define FIRST_PAGES 37
#define SECOND_START 0x100000000
#define SECOND_PAGES 64
#define PAGES (FIRST_PAGES + SECOND_PAGES)
#define COUNTER 345 /* in the fourth round */

static guint64 address_of(guint64 page)
{
    return page < FIRST_PAGES ? FIRST_START + page * GUEST_PAGE_SIZE
                              : SECOND_START + (page - FIRST_PAGES) * GUEST_PAGE_SIZE;
}

/* The page that number @n is written to. */
static guint64 page_of(guint64 n)
{
    guint64 page = 0;

    for (guint64 i = 1; i < n; i++) {
        page = guest_order_next(page, PAGES, guest_order_mask(PAGES));
    }
    return page;
}

static void put_words(InstantMemory *memory, guint64 page, guint64 first, guint64 middle,
                      guint64 last)
{
    guint64 words[GUEST_WORDS] = { 0 };

    words[GUEST_WORD_FIRST] = first;
    words[GUEST_WORD_MIDDLE] = middle;
    words[GUEST_WORD_LAST] = last;
    instant_memory_put(memory, address_of(page), words, sizeof(words));
}

static InstantMemory *new_memory(guint64 counter)
{
    InstantMemory *memory = instant_memory_new();
    struct guest_state state = {
        .magic = GUEST_MAGIC,
        .counter = counter,
        .page_count = PAGES,
        .range_count = 2,
        .cpus = 1,
        .range = { { FIRST_START, FIRST_PAGES }, { SECOND_START, SECOND_PAGES } },
    };

    instant_memory_map(memory, GUEST_STATE_ADDRESS, GUEST_PAGE_SIZE, "ram", 0);
    instant_memory_map(memory, FIRST_START, FIRST_PAGES * GUEST_PAGE_SIZE, "ram", 0);
    instant_memory_map(memory, SECOND_START, SECOND_PAGES * GUEST_PAGE_SIZE, "ram", 0);
    instant_memory_put(memory, GUEST_STATE_ADDRESS, &state, sizeof(state));
    return memory;
}

#define NONE G_MAXUINT64

/* Does what the guest does; the number @lost is not written, the page @absent is not there. */
static InstantMemory *play(guint64 counter, guint64 lost, guint64 absent)
{
    InstantMemory *memory = new_memory(counter);
    guint64 content[PAGES] = { 0 }, page = 0;

    for (guint64 n = 1; n <= counter; n++) {
        if (n != lost) {
            content[page] = n;
        }
        page = guest_order_next(page, PAGES, guest_order_mask(PAGES));
    }
    for (guint64 i = 0; i < PAGES; i++) {
        if (i != absent) {
            put_words(memory, i, content[i], content[i], content[i]);
        }
    }
    return memory;
}

static void expect(InstantMemory *memory, guint64 early, guint64 late, guint64 torn,
                   guint64 missing)
{
    InstantResult result;
    gboolean good = instant_check(memory, &result);

    g_test_message("%s", result.text->str);
    g_assert_cmpuint(result.early, ==, early);
    g_assert_cmpuint(result.late, ==, late);
    g_assert_cmpuint(result.torn, ==, torn);
    g_assert_cmpuint(result.missing, ==, missing);
    g_assert_cmpint(good, ==, early + late + torn + missing == 0);
    instant_result_clear(&result);
}

static void test_order_is_a_permutation(void)
{
    for (guint64 pages = 1; pages < 300; pages++) {
        g_autofree gboolean *seen = g_new0(gboolean, pages);
        guint64 page = 0;

        for (guint64 i = 0; i < pages; i++) {
            g_assert_false(seen[page]);
            seen[page] = TRUE;
            page = guest_order_next(page, pages, guest_order_mask(pages));
        }
        g_assert_cmpuint(page, ==, 0);
    }
}

static void test_good(void)
{
    static const guint64 counters[] = { 0, 1, 50, PAGES - 1, PAGES, PAGES + 1, COUNTER };

    for (guint i = 0; i < G_N_ELEMENTS(counters); i++) {
        g_autoptr(InstantMemory) memory = play(counters[i], NONE, NONE);

        expect(memory, 0, 0, 0, 0);
    }
}

static void test_early(void)
{
    g_autoptr(InstantMemory) memory = play(COUNTER, COUNTER, NONE);
    g_autoptr(InstantMemory) middle = play(COUNTER, COUNTER - 30, NONE);

    expect(memory, 1, 0, 0, 0);
    expect(middle, 1, 0, 0, 0);
}

/* Puts @words over the page of @n in memory that is right otherwise. */
static InstantMemory *play_but(guint64 n, guint64 first, guint64 middle, guint64 last)
{
    InstantMemory *memory = new_memory(COUNTER);

    for (guint64 i = 0, page = 0; i < PAGES; i++) {
        guint64 number = i + 1 + (COUNTER - i - 1) / PAGES * PAGES;

        if (page == page_of(n)) {
            put_words(memory, page, first, middle, last);
        } else {
            put_words(memory, page, number, number, number);
        }
        page = guest_order_next(page, PAGES, guest_order_mask(PAGES));
    }
    return memory;
}

static void expect_but(guint64 n, guint64 first, guint64 middle, guint64 last, guint64 early,
                       guint64 late, guint64 torn)
{
    g_autoptr(InstantMemory) memory = play_but(n, first, middle, last);

    expect(memory, early, late, torn, 0);
}

static void test_late(void)
{
    expect_but(COUNTER + 2, COUNTER + 2, COUNTER + 2, COUNTER + 2, 0, 1, 0);
    expect_but(COUNTER, COUNTER + PAGES, COUNTER + PAGES, COUNTER + PAGES, 0, 1, 0);
}

static void test_in_transit(void)
{
    const guint64 next = COUNTER + 1, old = next - PAGES;

    /* The next number's page, after no, one, two and three of its stores. */
    expect_but(next, old, old, old, 0, 0, 0);
    expect_but(next, next, old, old, 0, 0, 0);
    expect_but(next, next, next, old, 0, 0, 0);
    expect_but(next, next, next, next, 0, 0, 0);
}

static void test_torn(void)
{
    const guint64 next = COUNTER + 1, old = next - PAGES;

    /* In an order in which the guest does not store, on the one page where it may be. */
    expect_but(next, old, next, next, 0, 0, 1);
    expect_but(next, old, old, next, 0, 0, 1);
    expect_but(next, next, old, next, 0, 0, 1);
    /* On any other page. */
    expect_but(COUNTER, COUNTER, COUNTER, COUNTER - PAGES, 0, 0, 1);
    expect_but(next + 1, next + 1, next + 1 - PAGES, next + 1 - PAGES, 0, 0, 1);
}

static void put_number(InstantMemory *memory, guint64 page, guint64 number)
{
    put_words(memory, page, number, number, number);
}

static void test_missing_and_repeated(void)
{
    g_autoptr(InstantMemory) missing = play(COUNTER, NONE, 5);
    g_autoptr(InstantMemory) repeated = play(COUNTER, NONE, NONE);
    g_autoptr(InstantMemory) empty = instant_memory_new();
    InstantResult result;

    expect(missing, 0, 0, 0, 1);

    /* Twice in the image: a loader keeps what comes last, and so does the judge. */
    put_number(repeated, page_of(COUNTER), COUNTER + PAGES);
    put_number(repeated, page_of(COUNTER), COUNTER);
    g_assert_true(instant_check(repeated, &result));
    g_assert_cmpuint(result.repeated, ==, 1);
    instant_result_clear(&result);
    put_number(repeated, page_of(COUNTER), COUNTER + PAGES);
    g_assert_false(instant_check(repeated, &result));
    g_assert_cmpuint(result.late, ==, 1);
    instant_result_clear(&result);

    g_assert_false(instant_check(empty, &result));
    instant_result_clear(&result);
}

static void test_foreign(void)
{
    g_autoptr(InstantMemory) memory = play(COUNTER, NONE, 5);
    guint64 words[GUEST_WORDS] = { 0 }, number = 0;
    InstantResult result;

    for (guint64 n = 1; n <= COUNTER; n++) {
        number = page_of(n) == 5 ? n : number;
    }
    words[GUEST_WORD_FIRST] = words[GUEST_WORD_MIDDLE] = words[GUEST_WORD_LAST] = number;
    words[7] = 1;
    instant_memory_put(memory, address_of(5), words, sizeof(words));
    g_assert_false(instant_check(memory, &result));
    g_assert_cmpuint(result.foreign, ==, 1);
    g_assert_cmpuint(result.early + result.late + result.torn, ==, 0);
    instant_result_clear(&result);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/instant-check/order-is-a-permutation", test_order_is_a_permutation);
    g_test_add_func("/instant-check/good", test_good);
    g_test_add_func("/instant-check/early", test_early);
    g_test_add_func("/instant-check/late", test_late);
    g_test_add_func("/instant-check/in-transit", test_in_transit);
    g_test_add_func("/instant-check/torn", test_torn);
    g_test_add_func("/instant-check/missing-and-repeated", test_missing_and_repeated);
    g_test_add_func("/instant-check/foreign", test_foreign);
    return g_test_run();
}
