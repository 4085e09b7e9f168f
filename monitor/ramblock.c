/*
 * Reads the text of "info ramblock", the only place where QEMU tells its RAM blocks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "monitor/machine.h"

/* The stream has one byte for the length of a name. */
#define NAME_MAX_BYTES 255
#define HOST_PAGE 4096

/* QEMU 7.2 prints Block Name, PSize, Offset, Used, Total; QEMU 8 added HVA and RO. */
enum { COLUMNS_OLD = 5, COLUMNS_NEW = 7 };

void ram_block_free(RamBlock *block)
{
    if (block) {
        g_free(block->name);
        g_free(block);
    }
}

/* Cuts the last word off @line (in place) and returns it, NULL where there is none. */
static const char *take_last_word(char *line)
{
    g_strchomp(line);
    char *start = line + strlen(line);
    while (start > line && start[-1] != ' ') {
        start--;
    }
    if (!*start || start == line) {
        return NULL;
    }
    start[-1] = '\0';
    return start;
}

static gboolean take_hex(char *line, guint64 *value)
{
    const char *word = take_last_word(line);
    return word && g_str_has_prefix(word, "0x") &&
           g_ascii_string_to_unsigned(word + 2, 16, 0, G_MAXUINT64, value, NULL);
}

/* "4 KiB", "2 MiB", "1 GiB": two words. */
static gboolean take_page_size(char *line, guint64 *value)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB" };
    const char *unit = take_last_word(line);
    guint shift = 0;
    while (unit && shift < G_N_ELEMENTS(units) && strcmp(unit, units[shift])) {
        shift++;
    }
    if (!unit || shift == G_N_ELEMENTS(units)) {
        return FALSE;
    }
    const char *number = take_last_word(line);
    guint64 count;
    if (!number || !g_ascii_string_to_unsigned(number, 10, 1, 1 << 20, &count, NULL)) {
        return FALSE;
    }
    *value = count << (10 * shift);
    return TRUE;
}

static gboolean block_is_plausible(const RamBlock *block)
{
    guint64 page = block->page_size;
    return page >= HOST_PAGE && (page & (page - 1)) == 0 && block->used_length > 0 &&
           block->used_length % HOST_PAGE == 0 && block->used_length <= block->max_length &&
           block->max_length <= G_MAXUINT64 - block->offset &&
           block->host_address % HOST_PAGE == 0 &&
           block->max_length <= G_MAXUINT64 - block->host_address &&
           strlen(block->name) <= NAME_MAX_BYTES;
}

/* The name may hold anything, so a line is taken apart from its end. */
static RamBlock *parse_line(const char *text, guint columns)
{
    g_autofree char *line = g_strconcat(" ", text, NULL);
    g_autoptr(RamBlock) block = g_new0(RamBlock, 1);
    if (columns == COLUMNS_NEW) {
        const char *access = take_last_word(line);
        if (!access || (strcmp(access, "ro") && strcmp(access, "rw"))) {
            return NULL;
        }
        block->read_only = !strcmp(access, "ro");
        if (!take_hex(line, &block->host_address)) {
            return NULL;
        }
    }
    if (!take_hex(line, &block->max_length) || !take_hex(line, &block->used_length) ||
        !take_hex(line, &block->offset) || !take_page_size(line, &block->page_size)) {
        return NULL;
    }
    block->name = g_strdup(g_strstrip(line));
    return block_is_plausible(block) ? g_steal_pointer(&block) : NULL;
}

static guint columns_of_header(const char *header)
{
    if (!strstr(header, "Block Name") || !strstr(header, "PSize") || !strstr(header, "Total")) {
        return 0;
    }
    return strstr(header, "HVA") ? COLUMNS_NEW : COLUMNS_OLD;
}

static gboolean has_block(GPtrArray *blocks, const char *name)
{
    for (guint i = 0; i < blocks->len; i++) {
        if (!strcmp(((RamBlock *)blocks->pdata[i])->name, name)) {
            return TRUE;
        }
    }
    return FALSE;
}

GPtrArray *ram_blocks_parse(const char *text, GError **errp)
{
    g_autoptr(GPtrArray) blocks = g_ptr_array_new_with_free_func((GDestroyNotify)ram_block_free);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    guint columns = lines[0] ? columns_of_header(lines[0]) : 0;
    if (!columns) {
        g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_PROTOCOL,
                    "\"info ramblock\" of this QEMU begins \"%.60s\": its columns are not known",
                    lines[0] ? g_strchomp(lines[0]) : "");
        return NULL;
    }
    for (char **line = lines + 1; *line; line++) {
        if (!*g_strchomp(*line)) {
            continue;
        }
        g_autoptr(RamBlock) block = parse_line(*line, columns);
        if (!block || (*block->name && has_block(blocks, block->name))) {
            g_set_error(errp, SF_ERROR, SF_ERROR_MONITOR_PROTOCOL,
                        "\"info ramblock\" has a line that makes no sense: \"%.200s\"", *line);
            return NULL;
        }
        if (*block->name) {
            g_ptr_array_add(blocks, g_steal_pointer(&block));
        }
    }
    return g_steal_pointer(&blocks);
}
