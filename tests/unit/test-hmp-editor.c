/*
 * The console's line editor: which line comes out of which keys. What it draws is compared with
 * QEMU's own monitor in tests/qtest/test-monitor.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "monitor/hmp-editor.h"

#include <string.h>

static void show(const char *text, gsize length, gpointer user)
{
    g_string_append_len(user, text, (gssize)length);
}

static GStrv complete(const char *line, gpointer user)
{
    static const char *const words[] = { "migrate", "migrate_cancel", "mouse_move", "x", NULL };
    return g_str_has_prefix(line, "no ") ? NULL : g_strdupv((GStrv)words);
}

/* Feeds @keys; the lines that came out, one after the other with "|" behind each. */
static char *type(HmpEditor *editor, const char *keys)
{
    g_autoptr(GString) lines = g_string_new(NULL);
    for (; *keys; keys++) {
        g_autofree char *line = hmp_editor_feed(editor, *keys);
        if (line) {
            g_string_append_printf(lines, "%s|", line);
            hmp_editor_prompt(editor);
        }
    }
    return g_string_free(g_steal_pointer(&lines), FALSE);
}

static const struct {
    const char *keys;
    const char *lines;
} cases[] = {
    { "info status\n", "info status|" },
    { "a\rb\n\n", "a|b||" },
    { "abc\177\177x\b\n", "a|" },
    { "\177\b\033[D\033[Cx\n", "x|" },
    { "ac\033[Db\n", "abc|" },
    { "bc\001a\005d\n", "abcd|" },
    { "bc\033[Ha\033[Fd\n", "abcd|" },
    { "bc\033OHa\033OFd\n", "abcd|" },
    { "bc\033[1~a\033[4~d\n", "abcd|" },
    { "abxc\033[D\033[D\033[3~\n", "abc|" },
    { "abxc\002\002\004\n", "abc|" },
    { "abcd\002\002\013\n", "ab|" },
    { "one two  \027three\n", "one three|" },
    { "one\025two\n", "two|" },
    { "a\nb\n\033[A\n", "a|b|b|" },
    { "a\nb\n\033[A\033[A\n", "a|b|a|" },
    { "a\nb\n\033[A\033[A\033[A\033[A\033[Bx\n", "a|b|bx|" },
    { "a\nb\n\020\020\016\016c\n", "a|b|c|" },
    { "a\nb\na\n\020\020\n", "a|b|a|b|" },
    { "mi\t\n", "migrate|" },
    { "mo\t1\n", "mouse_move 1|" },
    { "q\tx\t1\n", "qx1|" },
    { "x\t1\n", "x 1|" },
    { "no m\t\n", "no m|" },
    { "\033xa\033[99;5Zb\n", "ab|" },
    { "\001\002\003\006a\n", "a|" },
};

static void test_keys(void)
{
    static const HmpEditorOps ops = { .show = show, .complete = complete };
    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GString) shown = g_string_new(NULL);
        g_autoptr(HmpEditor) editor = hmp_editor_new(&ops, shown);
        hmp_editor_prompt(editor);
        g_autofree char *lines = type(editor, cases[i].keys);
        g_test_message("case %u", i);
        g_assert_cmpstr(lines, ==, cases[i].lines);
    }
}

/* Ambiguous words are shown, the line as far as it was typed again below them. */
static void test_choice(void)
{
    static const HmpEditorOps ops = { .show = show, .complete = complete };
    g_autoptr(GString) shown = g_string_new(NULL);
    g_autoptr(HmpEditor) editor = hmp_editor_new(&ops, shown);
    hmp_editor_prompt(editor);
    g_free(type(editor, "migrate"));
    g_string_truncate(shown, 0);
    g_free(type(editor, "\t"));
    g_assert_cmpstr(shown->str, ==, "\r\nmigrate  migrate_cancel\r\n(qemu) migrate\033[K");
}

/* A line has its limit, and the history too. */
static void test_limits(void)
{
    static const HmpEditorOps ops = { .show = show };
    g_autoptr(GString) shown = g_string_new(NULL);
    g_autoptr(HmpEditor) editor = hmp_editor_new(&ops, shown);
    hmp_editor_prompt(editor);
    for (int i = 0; i < 5000; i++) {
        g_assert_null(hmp_editor_feed(editor, 'x'));
        g_string_truncate(shown, 0);
    }
    g_autofree char *line = hmp_editor_feed(editor, '\n');
    g_assert_cmpuint(strlen(line), ==, 4095);
    for (int i = 0; i < 100; i++) {
        g_autofree char *text = g_strdup_printf("%d\n", i);
        g_free(type(editor, text));
    }
    for (int i = 0; i < 100; i++) {
        g_free(type(editor, "\033[A"));
    }
    g_autofree char *oldest = type(editor, "\n");
    g_assert_cmpstr(oldest, ==, "36|");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/hmp-editor/keys", test_keys);
    g_test_add_func("/hmp-editor/choice", test_choice);
    g_test_add_func("/hmp-editor/limits", test_limits);
    return g_test_run();
}
