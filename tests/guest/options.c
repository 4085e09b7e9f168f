/*
 * The guest's command line.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "options.h"

#include "machine.h"

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

static void parse_range(const char **text, struct memory_range *range)
{
    range->start = parse_number(text);
    if (**text != '+') {
        die("a range is START+LENGTH");
    }
    (*text)++;
    range->length = parse_number(text);
    if (range->start % GUEST_PAGE_SIZE || range->start < GUEST_RANGES_ADDRESS ||
        range->start + range->length > GUEST_MAX_ADDRESS) {
        die("a range is not where it can be");
    }
}

static void parse_ranges(const char **text, struct options *options)
{
    do {
        if (options->range_count == GUEST_MAX_RANGES) {
            die("too many ranges");
        }
        parse_range(text, &options->range[options->range_count++]);
    } while (*(*text)++ == ',');
    (*text)--;
}

void options_parse(struct options *options, const char *text)
{
    *options = (struct options){ .cpus = 1, .every = 1 };
    while (*text) {
        if (take_name(&text, "ranges=")) {
            parse_ranges(&text, options);
        } else if (take_name(&text, "disk=")) {
            parse_range(&text, &options->disk);
        } else if (take_name(&text, "net=")) {
            parse_range(&text, &options->net);
        } else if (take_name(&text, "cpus=")) {
            options->cpus = parse_number(&text);
        } else if (take_name(&text, "spin=")) {
            options->spin = parse_number(&text);
        } else if (take_name(&text, "rounds=")) {
            options->rounds = parse_number(&text);
        } else if (take_name(&text, "every=")) {
            options->every = parse_number(&text);
        } else if (take_name(&text, "order=linear")) {
            options->linear = 1;
        } else {
            text++;
        }
    }
    if (options->cpus == 0 || options->cpus > GUEST_MAX_CPUS || options->every == 0) {
        die("cpus= or every= is not what it can be");
    }
}
