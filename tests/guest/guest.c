/*
 * A bare-metal guest whose memory can be judged: see layout.h. It writes as fast as it can, and
 * checks each page before it writes it again.
 *
 * Command line (-append): ranges=START+LENGTH[,START+LENGTH...] in bytes, the pages to write
 * (firmware leaves its tables near the top of low memory and below 1 MiB: choose others);
 * spin=N, so many PAUSE instructions between two numbers; rounds=N, then halt; every=N, a letter
 * every N rounds; order=linear, page after page instead of scattered.
 *
 * Serial port: "A" when it begins, "V" after each round (from the second on every page of it was
 * checked), "H" when it halts, "X page P expected N found N" and a halt when a page is wrong.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdbool.h>
#include <stddef.h>

#include "layout.h"

#define SERIAL_PORT 0x3f8
#define SERIAL_STATUS (SERIAL_PORT + 5)
#define SERIAL_CAN_SEND 0x20

/* The start info of the x86/HVM direct boot ABI ("PVH"), as far as it is needed. */
struct start_info {
    uint32_t magic;
    uint32_t version;
    uint32_t flags;
    uint32_t module_count;
    uint64_t module_list;
    uint64_t command_line;
};

struct options {
    uint64_t spin;
    uint64_t rounds; /* 0 = no end */
    uint64_t every;
};

void guest_main(const struct start_info *info);
void *memset(void *to, int byte, size_t count);

/* A compiler may call it although there is no C library. */
void *memset(void *to, int byte, size_t count)
{
    void *at = to;

    __asm__ volatile("rep stosb" : "+D"(at), "+c"(count) : "a"(byte) : "memory");
    return to;
}

static inline void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void put_char(char c)
{
    while (!(inb(SERIAL_STATUS) & SERIAL_CAN_SEND)) {
    }
    outb(SERIAL_PORT, (uint8_t)c);
}

static void put_text(const char *text)
{
    while (*text) {
        put_char(*text++);
    }
}

static void put_number(uint64_t number)
{
    char digits[20];
    int count = 0;

    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    while (count) {
        put_char(digits[--count]);
    }
}

__attribute__((noreturn)) static void halt(void)
{
    for (;;) {
        __asm__ volatile("cli; hlt");
    }
}

__attribute__((noreturn)) static void die(const char *reason)
{
    put_text("\nX ");
    put_text(reason);
    put_char('\n');
    halt();
}

/* Decimal, or hexadecimal behind 0x. */
static uint64_t parse_number(const char **text)
{
    uint64_t number = 0, base = 10;

    if ((*text)[0] == '0' && (*text)[1] == 'x') {
        base = 16;
        *text += 2;
    }
    for (;; (*text)++) {
        char c = **text;
        uint64_t digit;

        if (c >= '0' && c <= '9') {
            digit = (uint64_t)(c - '0');
        } else if (base == 16 && c >= 'a' && c <= 'f') {
            digit = (uint64_t)(c - 'a') + 10;
        } else {
            return number;
        }
        number = number * base + digit;
    }
}

/* If the option at *text is @name, goes to its value. */
static bool take_name(const char **text, const char *name)
{
    const char *at = *text;

    while (*name) {
        if (*at++ != *name++) {
            return false;
        }
    }
    *text = at;
    return true;
}

static void parse_ranges(const char **text, struct guest_state *state)
{
    do {
        uint64_t start = parse_number(text), length;

        if (**text != '+' || state->range_count == GUEST_MAX_RANGES) {
            die("bad ranges=");
        }
        (*text)++;
        length = parse_number(text);
        if (start % GUEST_PAGE_SIZE || start <= GUEST_STATE_ADDRESS ||
            start + length > GUEST_MAX_ADDRESS) {
            die("a range is not where it can be");
        }
        state->range[state->range_count].start = start;
        state->range[state->range_count].pages = length / GUEST_PAGE_SIZE;
        state->range_count++;
        state->page_count += length / GUEST_PAGE_SIZE;
    } while (*(*text)++ == ',');
    (*text)--;
}

static void parse_command_line(const char *text, struct guest_state *state, struct options *options)
{
    while (*text) {
        if (take_name(&text, "ranges=")) {
            parse_ranges(&text, state);
        } else if (take_name(&text, "spin=")) {
            options->spin = parse_number(&text);
        } else if (take_name(&text, "rounds=")) {
            options->rounds = parse_number(&text);
        } else if (take_name(&text, "every=")) {
            options->every = parse_number(&text);
        } else if (take_name(&text, "order=linear")) {
            state->linear = 1;
        } else {
            text++;
        }
    }
}

static volatile uint64_t *page_address(const struct guest_state *state, uint64_t page)
{
    uint64_t range = 0;

    while (page >= state->range[range].pages) {
        page -= state->range[range++].pages;
    }
    return (volatile uint64_t *)(state->range[range].start + page * GUEST_PAGE_SIZE);
}

__attribute__((noinline, noreturn)) static void fail(uint64_t page, uint64_t expected,
                                                     volatile uint64_t *words)
{
    put_text("\nX page ");
    put_number(page);
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

static void end_round(uint64_t round, const struct options *options)
{
    if (round % options->every == 0) {
        put_char('V');
    }
    if (round == options->rounds) {
        put_text("H\n");
        halt();
    }
}

static void write_for_ever(volatile struct guest_state *counter, const struct guest_state *state,
                           const struct options *options)
{
    const uint64_t pages = state->page_count, mask = guest_order_mask(pages);
    uint64_t number = 0, page = 0, round_end = pages, round = 0;

    for (;;) {
        volatile uint64_t *words = page_address(state, page);

        number++;
        if (round > 0) {
            uint64_t last = number - pages;

            if (words[GUEST_WORD_FIRST] != last || words[GUEST_WORD_MIDDLE] != last ||
                words[GUEST_WORD_LAST] != last) {
                fail(page, last, words);
            }
        }
        words[GUEST_WORD_FIRST] = number;
        words[GUEST_WORD_MIDDLE] = number;
        words[GUEST_WORD_LAST] = number;
        counter->counter = number;
        for (uint64_t i = 0; i < options->spin; i++) {
            __asm__ volatile("pause");
        }
        if (number == round_end) {
            round_end += pages;
            end_round(++round, options);
        }
        page = guest_next_page(state, page, mask);
    }
}

void guest_main(const struct start_info *info)
{
    volatile struct guest_state *shared = (volatile struct guest_state *)GUEST_STATE_ADDRESS;
    struct guest_state state = { .counter = 0 };
    struct options options = { .every = 1 };

    put_char('A');
    parse_command_line((const char *)info->command_line, &state, &options);
    if (state.page_count == 0 || options.every == 0) {
        die("no pages to write: ranges= is missing");
    }
    shared->counter = 0;
    shared->page_count = state.page_count;
    shared->range_count = state.range_count;
    for (uint64_t i = 0; i < state.range_count; i++) {
        shared->range[i].start = state.range[i].start;
        shared->range[i].pages = state.range[i].pages;
    }
    shared->linear = state.linear;
    shared->magic = GUEST_MAGIC;
    write_for_ever(shared, &state, &options);
}
