/*
 * The flat view of guest memory, from HMP's text: no QMP command tells it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "monitor/memory-map.h"

#include <string.h>

void memory_piece_free(MemoryPiece *piece)
{
    if (piece) {
        g_free(piece->region);
        g_free(piece);
    }
}

static gboolean take_hex(const char **at, guint64 *value)
{
    char *end = NULL;

    if (!g_ascii_isxdigit(**at)) {
        return FALSE;
    }
    *value = g_ascii_strtoull(*at, &end, 16);
    *at = end;
    return TRUE;
}

/* "  FIRST-LAST (prio N, KIND): NAME[ @OFFSET][ ACCELERATOR]", numbers without 0x. */
static MemoryPiece *parse_line(const char *line)
{
    guint64 first, last;
    guint64 offset = 0;

    line += strspn(line, " ");
    if (!take_hex(&line, &first) || *line++ != '-' || !take_hex(&line, &last) || last < first ||
        last - first == G_MAXUINT64) {
        return NULL;
    }
    const char *kind = strstr(line, ", ");
    const char *name = kind ? strstr(kind, "): ") : NULL;
    if (!name || (strncmp(kind, ", ram)", 6) && strncmp(kind, ", rom)", 6))) {
        return NULL;
    }
    name += 3;
    gsize length = strcspn(name, " \r\n");
    const char *at = name + length;
    if (!strncmp(at, " @", 2)) {
        at += 2;
        if (!take_hex(&at, &offset)) {
            return NULL;
        }
    }
    MemoryPiece *piece = g_new0(MemoryPiece, 1);
    *piece = (MemoryPiece){ .region = g_strndup(name, length),
                            .address = first,
                            .length = last - first + 1,
                            .offset = offset };
    return piece;
}

GPtrArray *memory_map_parse(const char *text)
{
    GPtrArray *pieces = g_ptr_array_new_with_free_func((GDestroyNotify)memory_piece_free);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    gboolean wanted = FALSE;

    for (guint i = 0; lines[i]; i++) {
        if (g_str_has_prefix(lines[i], "FlatView")) {
            wanted = FALSE;
        } else if (g_str_has_prefix(lines[i], " AS \"memory\"")) {
            wanted = TRUE;
        }
        MemoryPiece *piece = wanted ? parse_line(lines[i]) : NULL;
        if (piece) {
            g_ptr_array_add(pieces, piece);
        }
    }
    return pieces;
}

GPtrArray *machine_query_memory_map(QmpClient *qmp, GError **errp)
{
    g_autofree char *text = qmp_client_hmp(qmp, "info mtree -f", errp);

    return text ? memory_map_parse(text) : NULL;
}

gboolean memory_piece_is_of_block(const MemoryPiece *piece, const char *block)
{
    gsize region = strlen(piece->region);
    gsize length = strlen(block);

    return !strcmp(piece->region, block) ||
           (length > region + 1 && block[length - region - 1] == '/' &&
            !strcmp(block + length - region, piece->region));
}
