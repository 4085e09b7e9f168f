/*
 * One instant or not: the judgement of the bare-metal guest's memory, and of its vCPUs' pages.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "instant-check.h"

#include <string.h>

#include "instant-judge.h"

#define LINES_MAX 8 /* that a result's text has */

void judge_complain(Judge *judge, const char *format, ...)
{
    va_list ap;

    if (judge->lines++ < LINES_MAX) {
        va_start(ap, format);
        g_string_append_vprintf(judge->result->text, format, ap);
        g_string_append_c(judge->result->text, '\n');
        va_end(ap);
    }
}

const guint64 *judge_get_page(Judge *judge, guint64 address)
{
    guint times;
    const guint64 *words = instant_memory_get_page(judge->memory, address, &times);

    if (!words) {
        judge->result->missing++;
        judge_complain(judge, "page 0x%" G_GINT64_MODIFIER "x is missing", address);
    }
    judge->result->repeated += times > 1;
    return words;
}

void judge_wrong_page(Judge *judge, guint64 address, guint64 expected, guint64 found, gboolean torn)
{
    InstantResult *result = judge->result;
    const char *verdict = torn ? "torn" : found > expected ? "late" : "early";

    *(torn ? &result->torn : found > expected ? &result->late : &result->early) += 1;
    judge_complain(judge,
                   "page 0x%" G_GINT64_MODIFIER "x is %s: expected %" G_GUINT64_FORMAT
                   ", found %" G_GUINT64_FORMAT,
                   address, verdict, expected, found);
}

/* Reads the guest's own description of the vCPU. */
static gboolean judge_read_state(Judge *judge, guint64 cpu)
{
    struct guest_state *state = &judge->state[cpu];
    const guint64 *page = judge_get_page(judge, guest_state_address(cpu));
    guint64 pages = 0;

    if (!page) {
        return FALSE;
    }
    memcpy(state, page, sizeof(*state));
    if (state->magic != GUEST_MAGIC || state->range_count > GUEST_MAX_RANGES || state->cpus < 1 ||
        state->cpus > GUEST_MAX_CPUS || state->cpu != cpu) {
        judge_complain(judge, "the state page is not the guest's");
        return FALSE;
    }
    for (guint i = 0; i < state->range_count; i++) {
        pages += state->range[i].pages;
    }
    if (pages == 0 || pages != state->page_count || pages > GUEST_MAX_ADDRESS / GUEST_PAGE_SIZE) {
        judge_complain(judge, "the state page contradicts itself");
        return FALSE;
    }
    return TRUE;
}

/* All words that the guest does not write must be zero, as they were at the beginning. */
static guint64 count_foreign(const struct guest_state *state, const guint64 *words)
{
    guint64 foreign = 0;

    for (guint i = 0; i < GUEST_WORDS; i++) {
        gboolean seen = state->cpus > 1 && i >= GUEST_WORD_SEEN &&
                        i < GUEST_WORD_SEEN + state->cpus && i != GUEST_WORD_SEEN + state->cpu;

        foreign += words[i] != 0 && !seen && i != GUEST_WORD_FIRST && i != GUEST_WORD_MIDDLE &&
                   i != GUEST_WORD_LAST;
    }
    return foreign;
}

/* Whether the page is between two stores of the number @next: new words first, then old ones. */
static gboolean is_in_transit(const guint64 word[3], guint64 old, guint64 next)
{
    guint i = 0;

    while (i < 3 && word[i] == next) {
        i++;
    }
    while (i < 3 && word[i] == old) {
        i++;
    }
    return i == 3;
}

/* @first is the number that was written to page @page in the first round. */
static void judge_page(Judge *judge, const struct guest_state *state, guint64 page, guint64 first)
{
    guint64 address = guest_page_address(state, page), expected, word[3];
    const guint64 *words = judge_get_page(judge, address);

    judge->result->pages++;
    if (!words) {
        return;
    }
    judge->result->foreign += count_foreign(state, words);
    word[0] = words[GUEST_WORD_FIRST];
    word[1] = words[GUEST_WORD_MIDDLE];
    word[2] = words[GUEST_WORD_LAST];
    expected = guest_expected_number(first, state->counter, state->page_count);
    if (word[0] == expected && word[1] == expected && word[2] == expected) {
        return;
    }
    /* The one write that may be ahead of the counter. */
    if (guest_expected_number(first, state->counter + 1, state->page_count) == state->counter + 1 &&
        is_in_transit(word, expected, state->counter + 1)) {
        return;
    }
    judge_wrong_page(judge, address, expected, word[0] == expected ? word[2] : word[0],
                     word[0] != word[1] || word[1] != word[2]);
}

static void judge_pages(Judge *judge, const struct guest_state *state)
{
    const guint64 mask = guest_order_mask(state->page_count);

    for (guint64 i = 0, page = 0; i < state->page_count; i++) {
        judge_page(judge, state, page, i + 1);
        page = guest_next_page(state, page, mask);
    }
}

static gboolean judge_all(Judge *judge)
{
    InstantResult *result = judge->result;

    for (guint64 cpu = 0; cpu == 0 || cpu < judge->state[0].cpus; cpu++) {
        if (!judge_read_state(judge, cpu)) {
            return FALSE;
        }
        if (judge->state[cpu].cpus != judge->state[0].cpus) {
            judge_complain(judge, "the state pages contradict each other");
            return FALSE;
        }
    }
    judge->cpus = result->cpus = judge->state[0].cpus;
    result->counter = judge->state[0].counter;
    for (guint64 cpu = 0; cpu < judge->cpus; cpu++) {
        judge_pages(judge, &judge->state[cpu]);
    }
    if (result->foreign) {
        judge_complain(judge, "%" G_GUINT64_FORMAT " words that the guest never wrote",
                       result->foreign);
    }
    judge_what_was_seen(judge);
    judge_dma(judge);
    return judge->lines == 0;
}

gboolean instant_check(InstantMemory *memory, InstantResult *result)
{
    Judge judge = { .memory = memory, .result = result };
    gboolean good;

    *result = (InstantResult){ .text = g_string_new(NULL) };
    good = judge_all(&judge);
    g_string_append_printf(
        result->text,
        "instant %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " vCPUs, %" G_GUINT64_FORMAT
        " device requests, %" G_GUINT64_FORMAT " pages: %" G_GUINT64_FORMAT
        " early, %" G_GUINT64_FORMAT " late, %" G_GUINT64_FORMAT " torn, %" G_GUINT64_FORMAT
        " missing, %" G_GUINT64_FORMAT " repeated, %" G_GUINT64_FORMAT " effects before causes",
        result->counter, result->cpus, result->requests, result->pages, result->early, result->late,
        result->torn, result->missing, result->repeated, result->effects);
    return good;
}

void instant_result_clear(InstantResult *result)
{
    if (result->text) {
        g_string_free(g_steal_pointer(&result->text), TRUE);
    }
}

guint64 instant_check_assert(InstantMemory *memory)
{
    InstantResult result;
    guint64 counter;

    if (!instant_check(memory, &result)) {
        g_error("not one instant:\n%s", result.text->str);
    }
    g_test_message("%s", result.text->str);
    counter = result.counter;
    instant_result_clear(&result);
    return counter;
}

guint64 instant_check_image(InstantMemory *memory, const char *path)
{
    g_autoptr(GError) err = NULL;

    instant_memory_load_image(memory, path, 0, &err);
    g_assert_no_error(err);
    return instant_check_assert(memory);
}
