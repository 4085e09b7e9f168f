/*
 * Takes an HMP line apart by the rules of QEMU's monitor, found out by asking QEMU 7.2 and 10.0.
 * What is not right by these rules is left to QEMU, which says it in its own words.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "hmp-internal.h"

/* isspace() of the C locale; GLib's leaves out the vertical tab. */
static gboolean is_space(char c)
{
    return c && strchr(" \t\n\v\f\r", c);
}

static void skip_space(HmpLine *line)
{
    while (is_space(*line->at)) {
        line->at++;
    }
}

char *hmp_line_take_name(HmpLine *line)
{
    skip_space(line);
    const char *start = line->at;
    while (*line->at && *line->at != '/' && !is_space(*line->at)) {
        line->at++;
    }
    return g_strndup(start, (gsize)(line->at - start));
}

gboolean hmp_line_take_flags(HmpLine *line, const char *letters, guint *flags)
{
    *flags = 0;
    for (guint i = 0; letters[i]; i++) {
        skip_space(line);
        if (line->at[0] != '-') {
            continue;
        }
        char c = line->at[1];
        if (c == letters[i]) {
            *flags |= 1u << i;
            line->at += 2;
        } else if (!c || !strchr(letters + i + 1, c)) {
            return FALSE;
        }
    }
    return TRUE;
}

/* What stands behind a backslash, or 0. */
static char unescape(char c)
{
    static const char escapes[] = "n\nr\r\\\\''\"\"";
    for (const char *each = escapes; *each; each += 2) {
        if (each[0] == c) {
            return each[1];
        }
    }
    return 0;
}

/* line->at is behind the opening quote. */
static char *take_quoted(HmpLine *line)
{
    g_autoptr(GString) text = g_string_new(NULL);
    while (*line->at != '"') {
        char c = *line->at++;
        if (c == '\\') {
            c = unescape(*line->at++);
        }
        if (!c) {
            return NULL;
        }
        g_string_append_c(text, c);
    }
    line->at++;
    return g_string_free(g_steal_pointer(&text), FALSE);
}

char *hmp_line_take_string(HmpLine *line)
{
    skip_space(line);
    if (*line->at == '"') {
        line->at++;
        return take_quoted(line);
    }
    const char *start = line->at;
    while (*line->at && !is_space(*line->at)) {
        line->at++;
    }
    return line->at == start ? NULL : g_strndup(start, (gsize)(line->at - start));
}

gboolean hmp_line_take_switch(HmpLine *line, gboolean *on)
{
    skip_space(line);
    if (*line->at == '"') {
        return FALSE;
    }
    g_autofree char *word = hmp_line_take_string(line);
    *on = g_strcmp0(word, "on") == 0;
    return *on || g_strcmp0(word, "off") == 0;
}

gboolean hmp_line_at_end(HmpLine *line)
{
    skip_space(line);
    return *line->at == '\0';
}

/* The power of 1024 that @suffix stands for; MiB where there is none. -1 = not a suffix. */
static int suffix_power(const char *suffix)
{
    static const char letters[] = "bkmgtpe";
    if (!*suffix) {
        return 2;
    }
    const char *found = suffix[1] ? NULL : strchr(letters, g_ascii_tolower(*suffix));
    return found ? (int)(found - letters) : -1;
}

gboolean hmp_parse_size(const char *text, guint64 *bytes)
{
    while (is_space(*text)) {
        text++;
    }
    text += *text == '+';
    gboolean is_hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    if (!g_ascii_isdigit(*text)) {
        return FALSE;
    }
    char *end;
    guint64 whole = g_ascii_strtoull(text, &end, is_hex ? 16 : 10);
    double fraction = 0; /* of bytes there is none */
    if (*end == '.' && g_ascii_isdigit(end[1])) {
        gsize digits = strspn(end + 1, "0123456789");
        g_autofree char *part = g_strndup(end, digits + 1);
        fraction = g_ascii_strtod(part, NULL);
        end += digits + 1;
    }
    int power = suffix_power(end);
    gboolean has_fraction = fraction > 0;
    if (power < 0 || (is_hex && (*end || has_fraction)) || (power == 0 && has_fraction)) {
        return FALSE;
    }
    guint64 unit = G_GUINT64_CONSTANT(1) << (10 * power);
    if (whole > G_MAXINT64 / unit) {
        return FALSE;
    }
    *bytes = whole * unit;
    guint64 rest = (guint64)(fraction * (double)unit + 0.5);
    if (rest > G_MAXINT64 - *bytes) {
        return FALSE;
    }
    *bytes += rest;
    return TRUE;
}
