/*
 * Drawing guest memory. Each RAM block has a heading and rows of dots; small blocks (firmware) are
 * left out, a machine has many of them and they hide what matters.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "image/memory-map.h"
#include "util/big-array.h"

#define DOTS_A_ROW 256
#define DOT 3 /* pixels wide and high */
#define ROWS_MAX 256
#define MARGIN 12
#define LINE (2 * CANVAS_GLYPH_HEIGHT)
#define TEXT_SCALE 2
#define BLOCK_MIN (1024 * 1024)
#define BACKGROUND 0x16181d
#define TEXT_COLOUR 0xd8dee9
/* A region is hot with so many times the faults of the mean region that had any. */
#define HOT_FACTOR 2

typedef struct StateStyle {
    guint32 colour;
    const char *text;
} StateStyle;

static const StateStyle styles[MAP_STATES] = {
    [MAP_ABSENT] = { 0x2b2e36, "not in the image" },
    [MAP_ZERO] = { 0x000000, "zero" },
    [MAP_DATA] = { 0x5e81ac, "content" },
    [MAP_SWEEP] = { 0x4c9a6a, "saved by the sweep" },
    [MAP_FAULT] = { 0xebcb5b, "saved by a write fault" },
    [MAP_HOT] = { 0xe0703a, "in a hot region" },
    [MAP_CHANGED] = { 0xd03ad0, "changed against the parent" },
};

typedef struct Map {
    ImageReader *reader;
    const ImageProgress *progress;
    const ImageHead *head;
    const ImageIndex *index;
    guint8 **states; /* of each block */
    MemoryMapReport *report;
} Map;

static guint64 block_pages(const Map *map, guint block)
{
    return ((const ImageBlock *)g_ptr_array_index(map->head->blocks, block))->used_length >>
           map->head->target_page_bits;
}

static gboolean is_drawn(const Map *map, guint block)
{
    return ((const ImageBlock *)g_ptr_array_index(map->head->blocks, block))->used_length >=
           BLOCK_MIN;
}

/* ---- What each page is ---- */

static gboolean take_run(guint block, guint64 offset, const void *data, guint64 length,
                         gpointer user, GError **errp)
{
    Map *map = user;
    guint bits = map->head->target_page_bits;

    memset(map->states[block] + (offset >> bits), data ? MAP_DATA : MAP_ZERO, length >> bits);
    return image_progress_walk(map->progress, map->reader, errp);
}

static gboolean make_states(Map *map, GError **errp)
{
    map->states = g_new0(guint8 *, map->head->blocks->len + 1);
    for (guint i = 0; i < map->head->blocks->len; i++) {
        map->states[i] = big_array_new(block_pages(map, i), 1, errp);
        if (!map->states[i]) {
            return FALSE;
        }
    }
    return image_reader_foreach_page(map->reader, take_run, map, errp);
}

/* The mean number of faults of those units that had any, times HOT_FACTOR. */
static guint64 hot_from(const IndexBlock *block)
{
    guint64 sum = 0;
    guint64 units = 0;

    for (guint64 i = 0; i < block->n_heat; i++) {
        sum += block->heat[i];
        units += block->heat[i] > 0;
    }
    return units ? HOT_FACTOR * sum / units + 1 : G_MAXUINT64;
}

static gboolean is_hot(const IndexBlock *block, guint64 page, guint64 page_size, guint64 hot)
{
    guint64 unit = block->heat_unit ? page * page_size / block->heat_unit : 0;

    return unit < block->n_heat && block->heat[unit] >= hot;
}

static MapState state_of(const Map *map, const IndexBlock *block, const IndexRun *run, guint64 page,
                         guint64 hot)
{
    if (run->kind != INDEX_HERE) {
        return run->kind == INDEX_ZERO ? MAP_ZERO : MAP_DATA;
    }
    if (map->index->parent) {
        return MAP_CHANGED;
    }
    if (run->source == INDEX_BY_FAULT) {
        return MAP_FAULT;
    }
    return is_hot(block, page, map->index->page_size, hot) ? MAP_HOT : MAP_SWEEP;
}

/* The index knows more than that there is content. */
static void apply_index(Map *map, guint number)
{
    const ImageBlock *image = g_ptr_array_index(map->head->blocks, number);
    const IndexBlock *block = image_index_find_block(map->index, image->name, NULL);
    guint64 pages = block_pages(map, number);
    /* A converted image has no statistics, and its index tells of nobody who saved a page. */
    gboolean told = map->index->statistics != NULL || map->index->parent;

    if (!block || block->pages != pages || !told) {
        return;
    }
    guint64 hot = hot_from(block);
    for (guint64 i = 0; i < block->n_runs; i++) {
        const IndexRun *run = &block->runs[i];
        for (guint64 page = run->first; page < run->first + run->count; page++) {
            map->states[number][page] = (guint8)state_of(map, block, run, page, hot);
        }
    }
}

static gboolean apply_parent(Map *map, ImageReader *parent, GError **errp)
{
    DiffReport diff = { 0 };
    gboolean good = image_diff(parent, map->reader, map->progress, &diff, errp);

    /* The parent's blocks come first, so they are found by name. */
    for (guint i = 0; good && i < map->head->blocks->len; i++) {
        const ImageBlock *block = g_ptr_array_index(map->head->blocks, i);
        for (guint n = 0; n < diff.blocks->len; n++) {
            const DiffBlock *from = g_ptr_array_index(diff.blocks, n);
            if (strcmp(from->name, block->name) != 0) {
                continue;
            }
            for (guint64 page = 0; page < MIN(from->pages, block_pages(map, i)); page++) {
                if (from->states[page] == DIFF_CHANGED || from->states[page] == DIFF_ONLY_B) {
                    map->states[i][page] = MAP_CHANGED;
                }
            }
        }
    }
    diff_report_clear(&diff);
    return good;
}

/* ---- Drawing ---- */

/* Pages of one dot: a power of two, so that rows stand for round numbers. */
static guint64 pages_a_dot(const Map *map)
{
    guint64 total = 0;
    guint64 pages = 1;

    for (guint i = 0; i < map->head->blocks->len; i++) {
        total += is_drawn(map, i) ? block_pages(map, i) : 0;
    }
    while (total / pages > (guint64)DOTS_A_ROW * ROWS_MAX) {
        pages *= 2;
    }
    return pages;
}

static guint block_rows(const Map *map, guint block, guint64 pages)
{
    guint64 dots = (block_pages(map, block) + pages - 1) / pages;

    return (guint)((dots + DOTS_A_ROW - 1) / DOTS_A_ROW);
}

static void draw_block(Map *map, Canvas *canvas, guint block, guint64 pages, guint *y)
{
    const ImageBlock *image = g_ptr_array_index(map->head->blocks, block);
    g_autofree char *size = g_format_size_full(image->used_length, G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *title = g_strdup_printf("%s  %s", image->name, size);
    guint64 count = block_pages(map, block);

    canvas_text(canvas, MARGIN, *y, TEXT_SCALE, TEXT_COLOUR, title);
    *y += LINE + 4;
    for (guint64 page = 0, dot = 0; page < count; page += pages, dot++) {
        guint8 state = MAP_ABSENT;
        for (guint64 i = page; i < MIN(page + pages, count); i++) {
            state = MAX(state, map->states[block][i]);
        }
        canvas_fill(canvas, MARGIN + (guint)(dot % DOTS_A_ROW) * DOT,
                    *y + (guint)(dot / DOTS_A_ROW) * DOT, DOT, DOT, styles[state].colour);
    }
    *y += block_rows(map, block, pages) * DOT + MARGIN;
}

static void count_states(Map *map)
{
    for (guint i = 0; i < map->head->blocks->len; i++) {
        for (guint64 page = 0; page < block_pages(map, i); page++) {
            map->report->counts[map->states[i][page]]++;
        }
    }
}

static void draw_legend(Map *map, Canvas *canvas, guint64 pages, guint y)
{
    guint bits = map->head->target_page_bits;
    g_autofree char *dot = g_format_size_full(pages << bits, G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *row =
        g_format_size_full((pages * DOTS_A_ROW) << bits, G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *text = g_strdup_printf("each dot %s, each row %s", dot, row);

    canvas_text(canvas, MARGIN, y, TEXT_SCALE, TEXT_COLOUR, text);
    for (guint state = 0; state < MAP_STATES; state++) {
        if (!map->report->counts[state]) {
            continue;
        }
        g_autofree char *size =
            g_format_size_full(map->report->counts[state] << bits, G_FORMAT_SIZE_IEC_UNITS);
        g_autofree char *line = g_strdup_printf("%s: %s", styles[state].text, size);
        y += LINE + 4;
        canvas_fill(canvas, MARGIN, y, 14, 14, TEXT_COLOUR);
        canvas_fill(canvas, MARGIN + 1, y + 1, 12, 12, styles[state].colour);
        canvas_text(canvas, MARGIN + 24, y, TEXT_SCALE, TEXT_COLOUR, line);
    }
}

static guint legend_lines(const Map *map)
{
    guint lines = 0;

    for (guint state = 0; state < MAP_STATES; state++) {
        lines += map->report->counts[state] > 0;
    }
    return lines;
}

static Canvas *draw(Map *map)
{
    guint64 pages = pages_a_dot(map);
    guint width = 2 * MARGIN + DOTS_A_ROW * DOT;
    guint height = 2 * MARGIN + LINE + legend_lines(map) * (LINE + 4);
    guint y = MARGIN;

    for (guint i = 0; i < map->head->blocks->len; i++) {
        height += is_drawn(map, i) ? block_rows(map, i, pages) * DOT + MARGIN + LINE + 4 : 0;
    }
    Canvas *canvas = canvas_new(width, height, BACKGROUND);
    for (guint i = 0; i < map->head->blocks->len; i++) {
        if (is_drawn(map, i)) {
            draw_block(map, canvas, i, pages, &y);
        }
    }
    draw_legend(map, canvas, pages, y);
    map->report->width = width;
    map->report->height = height;
    return canvas;
}

static gboolean collect(Map *map, ImageReader *parent, GError **errp)
{
    g_autoptr(GError) error = NULL;

    /* The index stands at the end, and a comparison reads everything again. */
    if (!image_reader_map(map->reader, errp) || !make_states(map, errp)) {
        return FALSE;
    }
    map->index = image_reader_find_index(map->reader, &error);
    if (error) {
        g_propagate_error(errp, g_steal_pointer(&error));
        return FALSE;
    }
    for (guint i = 0; map->index && i < map->head->blocks->len; i++) {
        apply_index(map, i);
    }
    return !parent || apply_parent(map, parent, errp);
}

Canvas *memory_map_draw(ImageReader *reader, ImageReader *parent, const ImageProgress *progress,
                        MemoryMapReport *report, GError **errp)
{
    Map map = { .reader = reader,
                .progress = progress,
                .head = image_reader_get_head(reader),
                .report = report };
    Canvas *canvas = NULL;

    *report = (MemoryMapReport){ 0 };
    if (collect(&map, parent, errp)) {
        count_states(&map);
        canvas = draw(&map);
    }
    for (guint i = 0; map.states && i < map.head->blocks->len; i++) {
        big_array_free(map.states[i], block_pages(&map, i), 1);
    }
    g_free(map.states);
    return canvas;
}
