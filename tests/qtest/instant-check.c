/*
 * One instant or not: the judgement of the bare-metal guest's memory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "instant-check.h"

#include <string.h>
#include <sys/mman.h>

#include "migration/image-reader.h"
#include "tests/guest/layout.h"

#define LINES_MAX 8 /* pages that a result names */

typedef struct Range {
    guint64 address;
    guint64 length;
    char *block;
    guint64 offset;
    guint8 *data;    /* @length bytes, mapped: what is not touched costs nothing */
    guint8 *present; /* how often each page was put, up to 255 */
} Range;

struct InstantMemory {
    GPtrArray *ranges;
};

static void range_free(gpointer data)
{
    Range *range = data;

    munmap(range->data, range->length);
    g_free(range->present);
    g_free(range->block);
    g_free(range);
}

InstantMemory *instant_memory_new(void)
{
    InstantMemory *memory = g_new0(InstantMemory, 1);

    memory->ranges = g_ptr_array_new_with_free_func(range_free);
    return memory;
}

void instant_memory_free(InstantMemory *memory)
{
    if (memory) {
        g_ptr_array_unref(memory->ranges);
        g_free(memory);
    }
}

void instant_memory_map(InstantMemory *memory, guint64 address, guint64 length, const char *block,
                        guint64 offset)
{
    Range *range = g_new0(Range, 1);

    g_assert_cmpuint(length % GUEST_PAGE_SIZE, ==, 0);
    range->address = address;
    range->length = length;
    range->block = g_strdup(block);
    range->offset = offset;
    range->data = mmap(NULL, length, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    g_assert_true(range->data != MAP_FAILED);
    range->present = g_malloc0(length / GUEST_PAGE_SIZE);
    g_ptr_array_add(memory->ranges, range);
}

static Range *find_range(InstantMemory *memory, guint64 address)
{
    for (guint i = 0; i < memory->ranges->len; i++) {
        Range *range = g_ptr_array_index(memory->ranges, i);

        if (address >= range->address && address - range->address < range->length) {
            return range;
        }
    }
    return NULL;
}

/* @data NULL: zeros. */
static void range_put(Range *range, guint64 at, const guint8 *data, gsize length)
{
    guint8 *present = &range->present[at / GUEST_PAGE_SIZE];

    if (data) {
        memcpy(range->data + at, data, length);
    } else if (*present) {
        memset(range->data + at, 0, length);
    }
    *present = (guint8)MIN(*present + 1, 255);
}

void instant_memory_put(InstantMemory *memory, guint64 address, gconstpointer data, gsize length)
{
    Range *range = find_range(memory, address);

    g_assert_nonnull(range);
    g_assert_cmpuint(address % GUEST_PAGE_SIZE + length, <=, GUEST_PAGE_SIZE);
    range_put(range, address - range->address, data, length);
}

/* The page's bytes, or NULL where nothing put it. */
static const guint64 *get_page(InstantMemory *memory, guint64 address, guint *times)
{
    const Range *range = find_range(memory, address);

    *times = range ? range->present[(address - range->address) / GUEST_PAGE_SIZE] : 0;
    return *times ? (const guint64 *)(const void *)(range->data + (address - range->address))
                  : NULL;
}

guint64 instant_memory_count(InstantMemory *memory, guint64 address, guint64 length, guint8 byte)
{
    guint64 count = 0;

    for (guint64 at = address; at < address + length; at += GUEST_PAGE_SIZE) {
        guint times = 0;
        const guint8 *page = (const guint8 *)get_page(memory, at, &times);
        gsize i = 0;
        while (page && times == 1 && i < GUEST_PAGE_SIZE && page[i] == byte) {
            i++;
        }
        count += i == GUEST_PAGE_SIZE;
    }
    return count;
}

/* ---- Filling it ---- */

typedef struct LoadContext {
    InstantMemory *memory;
    const ImageHead *head;
} LoadContext;

static gboolean block_has_name(const char *block, const char *name)
{
    const char *slash = strrchr(block, '/');

    return g_str_equal(block, name) || (slash && g_str_equal(slash + 1, name));
}

static gboolean load_run(guint block, guint64 offset, const void *data, guint64 length,
                         gpointer user, GError **errp)
{
    const LoadContext *context = user;
    const ImageBlock *image_block = g_ptr_array_index(context->head->blocks, block);

    for (guint64 at = 0; at < length; at += GUEST_PAGE_SIZE) {
        for (guint i = 0; i < context->memory->ranges->len; i++) {
            Range *range = g_ptr_array_index(context->memory->ranges, i);

            if (offset + at >= range->offset && offset + at - range->offset < range->length &&
                block_has_name(image_block->name, range->block)) {
                range_put(range, offset + at - range->offset,
                          data ? (const guint8 *)data + at : NULL, GUEST_PAGE_SIZE);
            }
        }
    }
    return TRUE;
}

gboolean instant_memory_load_image(InstantMemory *memory, const char *path, guint64 offset,
                                   GError **errp)
{
    g_autoptr(ImageReader) reader = image_reader_open(path, offset, errp);
    LoadContext context = { .memory = memory };

    if (!reader) {
        return FALSE;
    }
    context.head = image_reader_get_head(reader);
    return image_reader_foreach_page(reader, load_run, &context, errp);
}

void instant_memory_load_live(InstantMemory *memory, TestVm *vm)
{
    for (guint i = 0; i < memory->ranges->len; i++) {
        Range *range = g_ptr_array_index(memory->ranges, i);

        test_vm_read_memory(vm, range->address, range->data, range->length);
        memset(range->present, 1, range->length / GUEST_PAGE_SIZE);
    }
}

/* ---- Judging it ---- */

typedef struct Judge {
    InstantMemory *memory;
    InstantResult *result;
    struct guest_state state;
    guint lines;
} Judge;

static void G_GNUC_PRINTF(2, 3) complain(Judge *judge, const char *format, ...)
{
    va_list ap;

    if (judge->lines++ < LINES_MAX) {
        va_start(ap, format);
        g_string_append_vprintf(judge->result->text, format, ap);
        g_string_append_c(judge->result->text, '\n');
        va_end(ap);
    }
}

static guint64 page_address(const struct guest_state *state, guint64 page)
{
    guint i = 0;

    while (page >= state->range[i].pages) {
        page -= state->range[i++].pages;
    }
    return state->range[i].start + page * GUEST_PAGE_SIZE;
}

/* Reads the guest's own description of itself. */
static gboolean judge_read_state(Judge *judge)
{
    struct guest_state *state = &judge->state;
    guint64 pages = 0;
    guint times;
    const guint64 *page = get_page(judge->memory, GUEST_STATE_ADDRESS, &times);

    if (!page) {
        complain(judge, "the state page is missing");
        return FALSE;
    }
    memcpy(state, page, sizeof(*state));
    if (state->magic != GUEST_MAGIC || state->range_count > GUEST_MAX_RANGES) {
        complain(judge, "the state page is not the guest's");
        return FALSE;
    }
    for (guint i = 0; i < state->range_count; i++) {
        pages += state->range[i].pages;
    }
    if (pages == 0 || pages != state->page_count || pages > GUEST_MAX_ADDRESS / GUEST_PAGE_SIZE) {
        complain(judge, "the state page contradicts itself");
        return FALSE;
    }
    if (times > 1) {
        judge->result->repeated++;
    }
    judge->result->counter = state->counter;
    return TRUE;
}

/* What a page must hold whose first number ever was @first, when @counter was the last number. */
static guint64 expected_number(guint64 first, guint64 counter, guint64 page_count)
{
    return counter < first ? 0 : first + (counter - first) / page_count * page_count;
}

/* All words that the guest does not write must be zero, as they were at the beginning. */
static guint64 count_foreign(const guint64 *words)
{
    guint64 foreign = 0;

    for (guint i = 0; i < GUEST_WORDS; i++) {
        foreign += words[i] != 0 && i != GUEST_WORD_FIRST && i != GUEST_WORD_MIDDLE &&
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

static void judge_words(Judge *judge, guint64 address, const guint64 word[3], guint64 expected)
{
    InstantResult *result = judge->result;
    const char *verdict;

    if (word[0] != word[1] || word[1] != word[2]) {
        verdict = "torn";
        result->torn++;
    } else if (word[0] > expected) {
        verdict = "late";
        result->late++;
    } else {
        verdict = "early";
        result->early++;
    }
    complain(judge,
             "page 0x%" G_GINT64_MODIFIER "x is %s: expected %" G_GUINT64_FORMAT
             ", found %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT,
             address, verdict, expected, word[0], word[1], word[2]);
}

/* @first is the number that was written to page @page in the first round. */
static void judge_page(Judge *judge, guint64 page, guint64 first)
{
    const struct guest_state *state = &judge->state;
    guint64 address = page_address(state, page), expected, word[3];
    guint times;
    const guint64 *words = get_page(judge->memory, address, &times);

    judge->result->pages++;
    if (!words) {
        judge->result->missing++;
        complain(judge, "page 0x%" G_GINT64_MODIFIER "x is missing", address);
        return;
    }
    if (times > 1) {
        judge->result->repeated++;
    }
    judge->result->foreign += count_foreign(words);
    word[0] = words[GUEST_WORD_FIRST];
    word[1] = words[GUEST_WORD_MIDDLE];
    word[2] = words[GUEST_WORD_LAST];
    expected = expected_number(first, state->counter, state->page_count);
    if (word[0] == expected && word[1] == expected && word[2] == expected) {
        return;
    }
    /* The one write that may be ahead of the counter. */
    if (expected_number(first, state->counter + 1, state->page_count) == state->counter + 1 &&
        is_in_transit(word, expected, state->counter + 1)) {
        return;
    }
    judge_words(judge, address, word, expected);
}

gboolean instant_check(InstantMemory *memory, InstantResult *result)
{
    Judge judge = { .memory = memory, .result = result };

    *result = (InstantResult){ .text = g_string_new(NULL) };
    if (!judge_read_state(&judge)) {
        return FALSE;
    }
    for (guint64 i = 0, page = 0, mask = guest_order_mask(judge.state.page_count);
         i < judge.state.page_count; i++) {
        judge_page(&judge, page, i + 1);
        page = guest_next_page(&judge.state, page, mask);
    }
    if (result->foreign) {
        complain(&judge, "%" G_GUINT64_FORMAT " words that the guest never wrote", result->foreign);
    }
    g_string_append_printf(result->text,
                           "instant %" G_GUINT64_FORMAT ", %" G_GUINT64_FORMAT
                           " pages: %" G_GUINT64_FORMAT " early, %" G_GUINT64_FORMAT
                           " late, %" G_GUINT64_FORMAT " torn, %" G_GUINT64_FORMAT
                           " missing, %" G_GUINT64_FORMAT " repeated",
                           result->counter, result->pages, result->early, result->late,
                           result->torn, result->missing, result->repeated);
    return judge.lines == 0;
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
