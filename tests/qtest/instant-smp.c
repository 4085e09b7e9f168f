/*
 * What vCPUs saw of each other. Before it writes number n, a vCPU reads the counters of the others
 * and notes them in the page of n; its own counter becomes n by an instruction that all others see
 * before anything it does next. So
 *
 * - no number was seen that is not in the other's counter yet: an effect before its cause;
 * - what was seen never goes back;
 * - if i, at n, saw s of j, then j read i's counter for its number s + 2 after it had stored s + 1,
 *   which was after i's reading and so after i stored n - 1: it must have seen n - 1 or more.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "instant-judge.h"

/* The page of this number is being written again just now. */
#define NOT_NOTED G_MAXUINT64

/* A vCPU's notes about its numbers in (counter - page_count, counter]. */
typedef struct Notes {
    guint64 first, last; /* the numbers; none if last < first */
    guint64 *seen;       /* GUEST_MAX_CPUS for each number */
} Notes;

static guint64 *notes_at(const Notes *notes, guint64 number)
{
    return &notes->seen[(number - notes->first) * GUEST_MAX_CPUS];
}

static void complain_effect(Judge *judge, guint64 cpu, guint64 number, guint64 other, guint64 seen,
                            const char *why, guint64 limit)
{
    judge->result->effects++;
    judge_complain(judge,
                   "vCPU %" G_GUINT64_FORMAT " has seen number %" G_GUINT64_FORMAT
                   " of vCPU %" G_GUINT64_FORMAT " before it wrote %" G_GUINT64_FORMAT
                   ", %s %" G_GUINT64_FORMAT,
                   cpu, seen, other, number, why, limit);
}

/* Takes the notes out of the page that begins with @words, whichever number it has. */
static void take_notes(Judge *judge, guint64 cpu, const guint64 *words, Notes *notes)
{
    const guint64 number = words[GUEST_WORD_FIRST];

    for (guint64 other = 0; other < judge->cpus; other++) {
        guint64 seen = words[GUEST_WORD_SEEN + other];

        if (other != cpu && seen > judge->state[other].counter) {
            complain_effect(judge, cpu, number, other, seen, "which is only at",
                            judge->state[other].counter);
        }
        if (number >= notes->first && number <= notes->last) {
            notes_at(notes, number)[other] = seen;
        }
    }
}

static void read_notes(Judge *judge, guint64 cpu, Notes *notes)
{
    const struct guest_state *state = &judge->state[cpu];
    const guint64 mask = guest_order_mask(state->page_count);

    notes->last = state->counter;
    notes->first = state->counter > state->page_count ? state->counter - state->page_count + 1 : 1;
    notes->seen = g_new(guint64, (state->page_count + 1) * GUEST_MAX_CPUS);
    for (guint64 i = 0; i < (state->page_count + 1) * GUEST_MAX_CPUS; i++) {
        notes->seen[i] = NOT_NOTED;
    }
    for (guint64 i = 0, page = 0; i < state->page_count; i++) {
        guint times;
        const guint64 *words =
            instant_memory_get_page(judge->memory, guest_page_address(state, page), &times);

        if (words) {
            take_notes(judge, cpu, words, notes);
        }
        page = guest_next_page(state, page, mask);
    }
}

static void compare_notes(Judge *judge, const Notes *notes, guint64 cpu, guint64 other)
{
    const Notes *mine = &notes[cpu], *theirs = &notes[other];

    for (guint64 n = mine->first, before = 0; n <= mine->last; n++) {
        guint64 seen = notes_at(mine, n)[other], answer = seen + 2;

        if (seen == NOT_NOTED) {
            continue;
        }
        if (seen < before) {
            complain_effect(judge, cpu, n, other, seen, "but earlier", before);
        }
        before = seen;
        /* NOT_NOTED is more than any number. */
        if (answer >= theirs->first && answer <= theirs->last &&
            notes_at(theirs, answer)[cpu] < n - 1) {
            complain_effect(judge, other, answer, cpu, notes_at(theirs, answer)[cpu],
                            "but it was seen by one that was at", n);
        }
    }
}

void judge_what_was_seen(Judge *judge)
{
    Notes notes[GUEST_MAX_CPUS] = { 0 };

    if (judge->cpus < 2) {
        return;
    }
    for (guint64 cpu = 0; cpu < judge->cpus; cpu++) {
        read_notes(judge, cpu, &notes[cpu]);
    }
    for (guint64 cpu = 0; cpu < judge->cpus; cpu++) {
        for (guint64 other = 0; other < judge->cpus; other++) {
            if (other != cpu) {
                compare_notes(judge, notes, cpu, other);
            }
        }
    }
    for (guint64 cpu = 0; cpu < judge->cpus; cpu++) {
        g_free(notes[cpu].seen);
    }
}
