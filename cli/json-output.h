/*
 * JSON on standard output, the same way for every subcommand.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <json-glib/json-glib.h>
#include <stdio.h>

/* Prints @node, indented, with a newline, and flushes. */
void json_print(JsonNode *node);
/* The same for an object (taken), onto @to. */
void json_print_object(JsonObject *object, FILE *to);
