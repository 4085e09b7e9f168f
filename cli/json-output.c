/*
 * JSON on standard output.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "json-output.h"

#include <stdio.h>

static void print_to(JsonNode *node, FILE *to)
{
    g_autoptr(JsonGenerator) generator = json_generator_new();

    json_generator_set_pretty(generator, TRUE);
    json_generator_set_root(generator, node);
    g_autofree char *text = json_generator_to_data(generator, NULL);
    fprintf(to, "%s\n", text);
    fflush(to);
}

void json_print(JsonNode *node)
{
    print_to(node, stdout);
}

void json_print_object(JsonObject *object, FILE *to)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);

    json_node_take_object(node, object);
    print_to(node, to);
}
