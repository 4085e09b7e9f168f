/*
 * What the parts of the HMP migrate family share. For monitor/ and its tests only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>
#include <json-glib/json-glib.h>

/* A line that is taken apart from left to right. @at only moves forward. */
typedef struct HmpLine {
    const char *at;
} HmpLine;

/* The next word as HMP reads a command's name: up to a space or "/". Owned by the caller. */
char *hmp_line_take_name(HmpLine *line);
/*
 * Flags that may stand here, one letter each, in the order in which HMP looks for them; bit i of
 * *flags for letters[i]. FALSE for a flag that is unknown or out of order.
 */
gboolean hmp_line_take_flags(HmpLine *line, const char *letters, guint *flags);
/* A word, or a text in double quotes with QEMU's escapes. NULL for a mistake. */
char *hmp_line_take_string(HmpLine *line);
/* "on" or "off", nothing else. FALSE for a mistake. */
gboolean hmp_line_take_switch(HmpLine *line, gboolean *on);
/* Whether nothing is left but spaces. */
gboolean hmp_line_at_end(HmpLine *line);

/*
 * A size as HMP's max-bandwidth takes it: MiB where no suffix (b, k, M, G, T, P, E) says else,
 * fractions allowed, hexadecimal without suffix. FALSE for anything else and above 2^63 - 1.
 */
gboolean hmp_parse_size(const char *text, guint64 *bytes);

/* "name: on" for each entry of query-migrate-capabilities' answer. */
char *hmp_info_capabilities(JsonNode *capabilities);
/*
 * QEMU's own text of "info migrate_parameters", with what query-migrate-parameters' answer says
 * of max-bandwidth, multifd-channels and direct-io.
 */
char *hmp_info_parameters(const char *qemu_text, JsonNode *parameters);
/*
 * "info migrate" of query-migrate's answer, in the layout of QEMU @version. The migration object's
 * properties ("globals"), which QMP does not tell, come from QEMU's own text; and so does all of
 * it where the answer has members that only a migration by QEMU itself has.
 */
char *hmp_info_migrate(const char *qemu_text, JsonNode *info, guint version);
