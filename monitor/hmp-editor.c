/*
 * The line editor of HMP consoles. What it draws, and which keys it knows, was taken from what
 * QEMU's monitor sends to a socket.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hmp-editor.h"

#include <string.h>

/* QEMU takes no longer lines; it keeps 64 of them. */
#define LINE_MAX_BYTES 4095
#define HISTORY_MAX 64

#define CTRL(letter) ((letter) - 'A' + 1)
#define KEY_ESCAPE 0x1b
#define KEY_DELETE 0x7f

typedef enum KeyState {
    KEY_PLAIN,
    KEY_AFTER_ESCAPE,
    KEY_IN_SEQUENCE, /* behind ESC [ or ESC O */
} KeyState;

struct HmpEditor {
    HmpEditorOps ops;
    gpointer user;
    GString *line;
    gsize cursor;
    GString *shown; /* what stands on the terminal, and where its cursor is */
    gsize shown_cursor;
    GPtrArray *history;
    guint history_at; /* history->len = the new line */
    KeyState state;
    guint key_number;
};

HmpEditor *hmp_editor_new(const HmpEditorOps *ops, gpointer user)
{
    HmpEditor *editor = g_new0(HmpEditor, 1);
    editor->ops = *ops;
    editor->user = user;
    editor->line = g_string_new(NULL);
    editor->shown = g_string_new(NULL);
    editor->history = g_ptr_array_new_with_free_func(g_free);
    return editor;
}

void hmp_editor_free(HmpEditor *editor)
{
    if (editor) {
        g_string_free(editor->line, TRUE);
        g_string_free(editor->shown, TRUE);
        g_ptr_array_unref(editor->history);
        g_free(editor);
    }
}

static void show(HmpEditor *editor, const char *text)
{
    editor->ops.show(text, strlen(text), editor->user);
}

static void append_repeated(GString *text, const char *what, gsize count)
{
    while (count--) {
        g_string_append(text, what);
    }
}

/* Brings the terminal up to date. */
static void redraw(HmpEditor *editor)
{
    g_autoptr(GString) out = g_string_new(NULL);
    if (!g_string_equal(editor->line, editor->shown)) {
        append_repeated(out, "\033[D", editor->shown_cursor);
        g_string_append(out, editor->line->str);
        g_string_append(out, "\033[K");
        g_string_assign(editor->shown, editor->line->str);
        editor->shown_cursor = editor->line->len;
    }
    if (editor->cursor < editor->shown_cursor) {
        append_repeated(out, "\033[D", editor->shown_cursor - editor->cursor);
    } else {
        append_repeated(out, "\033[C", editor->cursor - editor->shown_cursor);
    }
    editor->shown_cursor = editor->cursor;
    editor->ops.show(out->str, out->len, editor->user);
}

void hmp_editor_prompt(HmpEditor *editor)
{
    g_string_truncate(editor->line, 0);
    g_string_truncate(editor->shown, 0);
    editor->cursor = editor->shown_cursor = 0;
    editor->history_at = editor->history->len;
    editor->state = KEY_PLAIN;
    show(editor, HMP_PROMPT);
}

gboolean hmp_editor_is_empty(HmpEditor *editor)
{
    return editor->line->len == 0;
}

static void insert(HmpEditor *editor, const char *text, gsize length)
{
    if (editor->line->len + length <= LINE_MAX_BYTES) {
        g_string_insert_len(editor->line, (gssize)editor->cursor, text, (gssize)length);
        editor->cursor += length;
    }
}

/* Takes out what stands from @from to the cursor. */
static void erase_back_to(HmpEditor *editor, gsize from)
{
    g_string_erase(editor->line, (gssize)from, (gssize)(editor->cursor - from));
    editor->cursor = from;
}

static void erase_word(HmpEditor *editor)
{
    gsize from = editor->cursor;
    while (from > 0 && g_ascii_isspace(editor->line->str[from - 1])) {
        from--;
    }
    while (from > 0 && !g_ascii_isspace(editor->line->str[from - 1])) {
        from--;
    }
    erase_back_to(editor, from);
}

static void erase_next(HmpEditor *editor)
{
    if (editor->cursor < editor->line->len) {
        g_string_erase(editor->line, (gssize)editor->cursor, 1);
    }
}

static void recall(HmpEditor *editor, int step)
{
    gint64 at = (gint64)editor->history_at + step;
    if (at < 0 || at > editor->history->len) {
        return;
    }
    editor->history_at = (guint)at;
    g_string_assign(editor->line, at < editor->history->len ? editor->history->pdata[at] : "");
    editor->cursor = editor->line->len;
}

/* A line that is there already moves to the end, as in QEMU. */
static void remember(HmpEditor *editor, const char *line)
{
    guint found;
    if (!*line) {
        return;
    }
    if (g_ptr_array_find_with_equal_func(editor->history, line, g_str_equal, &found)) {
        g_ptr_array_remove_index(editor->history, found);
    } else if (editor->history->len >= HISTORY_MAX) {
        g_ptr_array_remove_index(editor->history, 0);
    }
    g_ptr_array_add(editor->history, g_strdup(line));
}

/* How many bytes all of @words have in common. */
static gsize common_length(GPtrArray *words)
{
    const char *first = words->pdata[0];
    gsize length = strlen(first);
    for (guint i = 1; i < words->len; i++) {
        const char *word = words->pdata[i];
        gsize same = 0;
        while (same < length && word[same] == first[same]) {
            same++;
        }
        length = same;
    }
    return length;
}

static void list_words(HmpEditor *editor, GPtrArray *words)
{
    show(editor, "\r\n");
    for (guint i = 0; i < words->len; i++) {
        show(editor, words->pdata[i]);
        show(editor, i + 1 < words->len ? "  " : "\r\n");
    }
    show(editor, HMP_PROMPT);
    g_string_truncate(editor->shown, 0);
    editor->shown_cursor = 0;
}

static void complete(HmpEditor *editor)
{
    g_autofree char *before = g_strndup(editor->line->str, editor->cursor);
    g_auto(GStrv) all = editor->ops.complete ? editor->ops.complete(before, editor->user) : NULL;
    const char *space = strrchr(before, ' ');
    const char *word = space ? space + 1 : before;
    g_autoptr(GPtrArray) fitting = g_ptr_array_new();
    for (char **each = all; each && *each; each++) {
        if (g_str_has_prefix(*each, word)) {
            g_ptr_array_add(fitting, *each);
        }
    }
    if (fitting->len == 0) {
        return;
    }
    gsize typed = strlen(word), common = common_length(fitting);
    if (common > typed) {
        insert(editor, (char *)fitting->pdata[0] + typed, common - typed);
    }
    if (fitting->len == 1) {
        insert(editor, " ", 1);
    } else if (common == typed) {
        list_words(editor, fitting);
    }
}

static void take_plain(HmpEditor *editor, char key)
{
    switch (key) {
    case CTRL('A'):
        editor->cursor = 0;
        break;
    case CTRL('B'):
        editor->cursor -= editor->cursor > 0;
        break;
    case CTRL('D'):
        erase_next(editor);
        break;
    case CTRL('E'):
        editor->cursor = editor->line->len;
        break;
    case CTRL('F'):
        editor->cursor += editor->cursor < editor->line->len;
        break;
    case CTRL('I'):
        complete(editor);
        break;
    case CTRL('K'):
        g_string_truncate(editor->line, editor->cursor);
        break;
    case CTRL('N'):
        recall(editor, 1);
        break;
    case CTRL('P'):
        recall(editor, -1);
        break;
    case CTRL('U'):
        erase_back_to(editor, 0);
        break;
    case CTRL('W'):
        erase_word(editor);
        break;
    case CTRL('H'):
    case KEY_DELETE:
        erase_back_to(editor, editor->cursor - (editor->cursor > 0));
        break;
    case KEY_ESCAPE:
        editor->state = KEY_AFTER_ESCAPE;
        break;
    default:
        if ((guchar)key >= ' ') {
            insert(editor, &key, 1);
        }
    }
}

/* Cursor keys, and those that end with "~". */
static void take_sequence(HmpEditor *editor, char key)
{
    switch (key) {
    case 'A':
        recall(editor, -1);
        break;
    case 'B':
        recall(editor, 1);
        break;
    case 'C':
        take_plain(editor, CTRL('F'));
        break;
    case 'D':
        take_plain(editor, CTRL('B'));
        break;
    case 'H':
        editor->cursor = 0;
        break;
    case 'F':
        editor->cursor = editor->line->len;
        break;
    case '~':
        if (editor->key_number == 1 || editor->key_number == 7) {
            editor->cursor = 0;
        } else if (editor->key_number == 4 || editor->key_number == 8) {
            editor->cursor = editor->line->len;
        } else if (editor->key_number == 3) {
            erase_next(editor);
        }
        break;
    default:
        break;
    }
}

/* Anything but a digit or a separator ends a sequence, so a stray one costs one key. */
static void take_in_sequence(HmpEditor *editor, char key)
{
    if (g_ascii_isdigit(key)) {
        editor->key_number = (editor->key_number * 10 + (guint)(key - '0')) % 1000;
    } else if (key != ';') {
        editor->state = KEY_PLAIN;
        take_sequence(editor, key);
    }
}

char *hmp_editor_feed(HmpEditor *editor, char byte)
{
    if (editor->state == KEY_AFTER_ESCAPE) {
        editor->state = byte == '[' || byte == 'O' ? KEY_IN_SEQUENCE : KEY_PLAIN;
        editor->key_number = 0;
        return NULL;
    }
    if (editor->state == KEY_IN_SEQUENCE) {
        take_in_sequence(editor, byte);
    } else if (byte == '\r' || byte == '\n') {
        show(editor, "\r\n");
        remember(editor, editor->line->str);
        return g_strdup(editor->line->str);
    } else {
        take_plain(editor, byte);
    }
    redraw(editor);
    return NULL;
}
