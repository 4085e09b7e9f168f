/*
 * Small images for the tests of writers and readers, and device sections made by hand. Header only:
 * each test program uses part of it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib/gstdio.h>
#include <string.h>

#include "migration/image-writer.h"

static inline void put_u32(GByteArray *out, guint32 value)
{
    value = GUINT32_TO_BE(value);
    g_byte_array_append(out, (const guint8 *)&value, sizeof(value));
}

static inline void put_u64(GByteArray *out, guint64 value)
{
    value = GUINT64_TO_BE(value);
    g_byte_array_append(out, (const guint8 *)&value, sizeof(value));
}

static inline void put_u8(GByteArray *out, guint8 value)
{
    g_byte_array_append(out, &value, 1);
}

static inline void put_name(GByteArray *out, const char *name)
{
    put_u8(out, (guint8)strlen(name));
    g_byte_array_append(out, (const guint8 *)name, (guint)strlen(name));
}

/* A SECTION_FULL as QEMU writes it. */
static inline void put_section(GByteArray *out, guint32 id, const char *name, guint32 version,
                               const void *body, gsize length)
{
    put_u8(out, 0x04);
    put_u32(out, id);
    put_name(out, name);
    put_u32(out, 0);
    put_u32(out, version);
    g_byte_array_append(out, body, (guint)length);
    put_u8(out, 0x7e);
    put_u32(out, id);
}

/* The section globalstate with the given state, 32 bytes of state and 68 of @rest behind it. */
static inline void put_globalstate(GByteArray *out, guint32 id, const char *state, guint8 rest)
{
    guint8 body[104] = { 0 };

    body[3] = (guint8)(strlen(state) + 1);
    strcpy((char *)body + 4, state);
    memset(body + 36, rest, sizeof(body) - 36);
    put_section(out, id, "globalstate", 1, body, sizeof(body));
}

/* Ordinary device state: a few sections, one with a body that looks like footers. */
static inline GByteArray *sample_device_state(void)
{
    GByteArray *out = g_byte_array_new();
    /* A footer with the right id, twice, but nothing that could follow one. */
    static const guint8 trap[] = { 0x7e, 0, 0, 0, 9, 0x04, 0x7e, 0, 0, 0, 9, 0x00 };

    put_section(out, 3, "timer", 2, "0123456789", 10);
    put_section(out, 9, "0000:00:02.0/trap", 1, trap, sizeof(trap));
    put_section(out, 4, "empty", 1, "", 0);
    put_globalstate(out, 7, "running", 0xee);
    return out;
}

/* Opens a channel onto a new file in a new directory; remove both with image_file_remove(). */
static inline Channel *image_file_create(char **path)
{
    g_autofree char *dir = g_dir_make_tmp("stillframe-image-XXXXXX", NULL);
    g_autoptr(GError) error = NULL;
    *path = g_build_filename(dir, "image", NULL);
    Destination destination = { .kind = DEST_FILE, .path = *path };
    Channel *channel = channel_open_output(&destination, FALSE, &error);

    g_assert_no_error(error);
    return channel;
}

static inline void image_file_remove(char *path)
{
    g_autofree char *dir = g_path_get_dirname(path);

    g_assert_cmpint(g_unlink(path), ==, 0);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
    g_free(path);
}
