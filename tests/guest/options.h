/*
 * The guest's command line: see guest.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "layout.h"

struct memory_range {
    uint64_t start;
    uint64_t length;
};

struct options {
    struct memory_range range[GUEST_MAX_RANGES];
    uint64_t range_count;
    struct memory_range disk; /* length 0: no disk */
    struct memory_range net;
    uint64_t cpus;
    uint64_t linear;
    uint64_t spin;
    uint64_t rounds; /* 0 = no end */
    uint64_t every;
};

/* Dies, saying why, where @text makes no sense. */
void options_parse(struct options *options, const char *text);
