/*
 * The syntax of QEMU's option arguments: "implied,key=value,flag" and JSON. Nothing about
 * processes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

/*
 * Takes one option argument apart into key -> value (char *, owned). The first part without "="
 * gets @implied_key; a later part without "=" is a flag: "on", or with a leading "no" "off" for the
 * name behind it. ",," stands for a comma. In JSON the scalar members of all levels count, the
 * outer ones first. Later keys win over earlier ones, as in QEMU. An empty table for broken JSON.
 */
GHashTable *qemu_options_parse(const char *text, const char *implied_key);

/* Whether the switch @key is on. */
gboolean qemu_options_get_bool(GHashTable *options, const char *key);

/* A size as -m takes it: number, fraction allowed, MiB where no suffix says else. 0 = not one. */
guint64 qemu_options_parse_size(const char *text);

/*
 * The options of a character device in its short form, as -monitor and -qmp take it, by the names
 * of the long one: "unix:PATH,..." and "tcp:HOST:PORT,..." become backend=socket with path, or host
 * and port; "stdio" becomes backend=stdio. Anything else has no "backend".
 */
GHashTable *qemu_options_parse_chardev(const char *text);
