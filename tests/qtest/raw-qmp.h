/*
 * A QMP client without opinions: it sends bytes and keeps every byte that comes, so that two
 * conversations can be compared.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "vm.h"

typedef struct RawQmp RawQmp;

/* Connects to the socket at @path, trying for some seconds; nothing is sent. */
RawQmp *raw_qmp_connect(const char *path);
void raw_qmp_free(RawQmp *raw);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(RawQmp, raw_qmp_free)

/* Sends @length bytes, reading meanwhile; @fd (-1 for none) goes with the first one. FALSE when the
 * other side has gone. */
gboolean raw_qmp_send_try(RawQmp *raw, const void *data, gsize length, int fd);
/* What goes in a tenth of a second; returns the number of bytes. */
gsize raw_qmp_send_some(RawQmp *raw, const void *data, gsize length);
/* The same for a text, asserting. */
void raw_qmp_say(RawQmp *raw, const char *text);
void raw_qmp_say_fd(RawQmp *raw, const char *text, int fd);
/* Reads until @text has come, from byte @from of everything on; asserts after some seconds. Returns
 * where the next message begins. */
gsize raw_qmp_wait(RawQmp *raw, gsize from, const char *text);
/* Everything that has come so far; owned by @raw. */
const char *raw_qmp_text(RawQmp *raw);
/* Forgets what has come so far. */
void raw_qmp_forget(RawQmp *raw);
/* Reads until the other side closes. */
void raw_qmp_wait_end(RawQmp *raw);
/* Greeting and negotiation. */
RawQmp *raw_qmp_open(const char *path);
/* One command, printf-formatted JSON in which ' stands for "; waits for its answer, which the
 * caller frees. Events that come meanwhile are kept in the text. */
char *raw_qmp_run(RawQmp *raw, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* The same; asserts that the answer is no error. */
void raw_qmp_must(RawQmp *raw, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* Everything with the numbers of timestamps made 0; the caller frees. */
char *raw_qmp_text_without_times(RawQmp *raw);
