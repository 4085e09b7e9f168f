/*
 * A line editor with a history that draws as QEMU's own: a program that reads the terminal of a
 * QEMU monitor sees what it knows. Bytes go in one by one; what is to be shown comes out by a
 * callback. For monitor/ and its tests only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

typedef struct HmpEditor HmpEditor;

typedef struct HmpEditorOps {
    /* Shows @length bytes. */
    void (*show)(const char *text, gsize length, gpointer user);
    /*
     * All words that may stand where the last word of @line (up to the cursor) begins, whether they
     * fit or not; owned by the caller. NULL where nothing is known. The operation may be NULL.
     */
    GStrv (*complete)(const char *line, gpointer user);
} HmpEditorOps;

#define HMP_PROMPT "(qemu) "

/* @ops is copied. */
HmpEditor *hmp_editor_new(const HmpEditorOps *ops, gpointer user);
void hmp_editor_free(HmpEditor *editor);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HmpEditor, hmp_editor_free)

/* Shows the prompt and begins an empty line. */
void hmp_editor_prompt(HmpEditor *editor);
/* Takes one byte from the keyboard. Returns the line when it is complete (owned by the caller). */
char *hmp_editor_feed(HmpEditor *editor, char byte);
/* Whether nothing has been typed on this line. */
gboolean hmp_editor_is_empty(HmpEditor *editor);
