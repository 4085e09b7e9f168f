/*
 * JSON on standard output.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "json-output.h"

#include <stdio.h>

void json_print(JsonNode *node)
{
    g_autoptr(JsonGenerator) generator = json_generator_new();

    json_generator_set_pretty(generator, TRUE);
    json_generator_set_root(generator, node);
    g_autofree char *text = json_generator_to_data(generator, NULL);
    puts(text);
    fflush(stdout);
}
