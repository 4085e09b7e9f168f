/*
 * The writing vCPU: writes its pages as layout.h says, checks each before it writes it again, and
 * all of them at once when a key is pressed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "writer.h"

#include "dma.h"

struct writer {
    const struct options *options;
    volatile struct guest_state *shared; /* the state page; the copy in state does not change */
    struct guest_state state;
    uint64_t mask;
    uint64_t number;   /* the last that was written */
    uint64_t page;     /* the next to be written */
    uint64_t round;    /* so many are complete */
    uint64_t checks;   /* full checks of all memory that it has done */
    uint64_t reported; /* and said so */
};

/* How many full checks were asked for, and who has done how many. */
static volatile uint64_t checks_wanted;
static volatile uint64_t checks_done[GUEST_MAX_CPUS];

static volatile struct guest_state *state_page(uint64_t cpu)
{
    return (volatile struct guest_state *)guest_state_address(cpu);
}

void writer_prepare(const struct options *options, uint64_t cpu)
{
    volatile struct guest_state *state = state_page(cpu);

    state->counter = 0;
    state->page_count = 0;
    state->range_count = options->range_count;
    state->linear = options->linear;
    state->cpu = cpu;
    state->cpus = options->cpus;
    for (uint64_t i = 0; i < options->range_count; i++) {
        uint64_t pages = options->range[i].length / GUEST_PAGE_SIZE / options->cpus;

        state->range[i].start = options->range[i].start + cpu * GUEST_PAGE_SIZE;
        state->range[i].pages = pages;
        state->page_count += pages;
    }
    if (state->page_count == 0) {
        die("no pages to write: ranges= is missing");
    }
    compiler_barrier();
    state->magic = GUEST_MAGIC;
}

__attribute__((noinline, noreturn)) static void fail(struct writer *writer, uint64_t page,
                                                     uint64_t expected)
{
    volatile uint64_t *words = (volatile uint64_t *)guest_page_address(&writer->state, page);

    put_text("\nX page ");
    put_number(page);
    put_text(" of vCPU ");
    put_number(writer->state.cpu);
    put_text(" expected ");
    put_number(expected);
    put_text(" found ");
    put_number(words[GUEST_WORD_FIRST]);
    put_char(' ');
    put_number(words[GUEST_WORD_MIDDLE]);
    put_char(' ');
    put_number(words[GUEST_WORD_LAST]);
    put_char('\n');
    halt();
}

static bool page_holds(const volatile uint64_t *words, uint64_t number)
{
    return words[GUEST_WORD_FIRST] == number && words[GUEST_WORD_MIDDLE] == number &&
           words[GUEST_WORD_LAST] == number;
}

/* The words that are none of the three: counters that the others had by then, and zeros. */
static bool others_are_right(const struct guest_state *state, const volatile uint64_t *words)
{
    const uint64_t zeros = GUEST_WORD_SEEN + GUEST_MAX_CPUS;

    for (uint64_t i = 0; i < GUEST_MAX_CPUS; i++) {
        uint64_t most = i < state->cpus && i != state->cpu ? state_page(i)->counter : 0;

        if (words[GUEST_WORD_SEEN + i] > most) {
            return false;
        }
    }
    return words_are(words + zeros, GUEST_WORD_MIDDLE - zeros, 0) &&
           words_are(words + GUEST_WORD_MIDDLE + 1, GUEST_WORD_LAST - GUEST_WORD_MIDDLE - 1, 0);
}

/* Every word of every page, at the end of a round. */
static void check_all(struct writer *writer)
{
    const struct guest_state *state = &writer->state;

    for (uint64_t i = 0, page = 0; i < state->page_count; i++) {
        uint64_t expected = guest_expected_number(i + 1, writer->number, state->page_count);
        volatile uint64_t *words = (volatile uint64_t *)guest_page_address(state, page);

        if (!page_holds(words, expected)) {
            fail(writer, page, expected);
        }
        if (!others_are_right(state, words)) {
            die("a word that nobody wrote");
        }
        page = guest_next_page(state, page, writer->mask);
    }
}

/* A key asks for a full check; "C" says that all memory was found right, by all vCPUs. */
static void check_if_asked(struct writer *writer)
{
    const bool leads = writer->state.cpu == 0;

    if (leads && key_was_pressed()) {
        checks_wanted++;
    }
    if (writer->checks < checks_wanted) {
        check_all(writer);
        if (leads) {
            dma_check_all();
        }
        checks_done[writer->state.cpu] = ++writer->checks;
    }
    for (uint64_t i = 0; i < writer->state.cpus; i++) {
        if (checks_done[i] != checks_wanted) {
            return;
        }
    }
    if (leads && writer->reported < checks_wanted) {
        writer->reported = checks_wanted;
        put_char('C');
    }
}

static void end_round(struct writer *writer)
{
    const struct options *options = writer->options;

    writer->round++;
    if (writer->state.cpu == 0 && writer->round % options->every == 0) {
        put_char('V');
    }
    if (writer->round == options->rounds) {
        if (writer->state.cpu == 0) {
            put_text("H\n");
        }
        halt();
    }
    check_if_asked(writer);
}

static void write_next(struct writer *writer)
{
    const struct guest_state *state = &writer->state;
    volatile uint64_t *words = (volatile uint64_t *)guest_page_address(state, writer->page);
    uint64_t number = ++writer->number, seen[GUEST_MAX_CPUS];

    if (writer->round > 0 && !page_holds(words, number - state->page_count)) {
        fail(writer, writer->page, number - state->page_count);
    }
    for (uint64_t i = 0; i < state->cpus; i++) {
        seen[i] = i == state->cpu ? 0 : state_page(i)->counter;
    }
    words[GUEST_WORD_FIRST] = number;
    for (uint64_t i = 0; state->cpus > 1 && i < state->cpus; i++) {
        words[GUEST_WORD_SEEN + i] = seen[i];
    }
    words[GUEST_WORD_MIDDLE] = number;
    words[GUEST_WORD_LAST] = number;
    if (state->cpus > 1) {
        store_and_fence(&writer->shared->counter, number);
    } else {
        writer->shared->counter = number;
    }
    writer->page = guest_next_page(state, writer->page, writer->mask);
}

__attribute__((noreturn)) void writer_run(const struct options *options, uint64_t cpu)
{
    struct writer writer = { .options = options, .shared = state_page(cpu) };
    uint64_t round_end;

    writer.state.cpu = cpu;
    writer.state.cpus = writer.shared->cpus;
    writer.state.linear = writer.shared->linear;
    writer.state.page_count = round_end = writer.shared->page_count;
    for (uint64_t i = 0; i < GUEST_MAX_RANGES; i++) {
        writer.state.range[i].start = writer.shared->range[i].start;
        writer.state.range[i].pages = writer.shared->range[i].pages;
    }
    writer.mask = guest_order_mask(writer.state.page_count);
    for (;;) {
        write_next(&writer);
        if (cpu == 0) {
            dma_run(writer.number);
        }
        for (uint64_t i = 0; i < options->spin; i++) {
            cpu_pause();
        }
        if (writer.number == round_end) {
            round_end += writer.state.page_count;
            end_round(&writer);
        }
    }
}
