/*
 * The parts of a stream that every format has.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "stream-parts.h"

#include <string.h>

#include "stream-format.h"

void stream_put_u8(GByteArray *out, guint8 value)
{
    g_byte_array_append(out, &value, sizeof(value));
}

void stream_put_u32(GByteArray *out, guint32 value)
{
    value = GUINT32_TO_BE(value);
    g_byte_array_append(out, (const guint8 *)&value, sizeof(value));
}

void stream_put_u64(GByteArray *out, guint64 value)
{
    value = GUINT64_TO_BE(value);
    g_byte_array_append(out, (const guint8 *)&value, sizeof(value));
}

void stream_put_name(GByteArray *out, const char *name)
{
    gsize length = strlen(name);

    stream_put_u8(out, (guint8)length);
    g_byte_array_append(out, (const guint8 *)name, (guint)length);
}

gboolean stream_check_head(const ImageHead *head, GError **errp)
{
    guint64 total = 0;

    /* Nine bits of the word are flags: a smaller page would have offsets in them. */
    if (!head->machine_type || head->target_page_bits < 10 || head->target_page_bits > 30) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "a migration stream needs a machine type and target pages of 1 KiB or more");
        return FALSE;
    }
    for (guint i = 0; i < head->blocks->len; i++) {
        const ImageBlock *block = g_ptr_array_index(head->blocks, i);
        gsize name = strlen(block->name);
        guint64 page_mask = (1ULL << head->target_page_bits) - 1;

        if (!name || name > STREAM_NAME_MAX || block->used_length & page_mask ||
            block->used_length > G_MAXINT64 - total) {
            g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                        "RAM block \"%s\" of %" G_GUINT64_FORMAT
                        " bytes cannot stand in a migration stream",
                        block->name, block->used_length);
            return FALSE;
        }
        total += block->used_length;
    }
    return TRUE;
}

gboolean stream_check_range(const ImageHead *head, guint block, guint64 offset, guint64 length,
                            GError **errp)
{
    const ImageBlock *b = block < head->blocks->len ? g_ptr_array_index(head->blocks, block) : NULL;
    guint64 page_mask = (1ULL << head->target_page_bits) - 1;

    if (!b || (offset | length) & page_mask || offset > b->used_length ||
        length > b->used_length - offset) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FAILED,
                    "pages outside of the image's RAM: block %u, offset 0x%" G_GINT64_MODIFIER
                    "x, length 0x%" G_GINT64_MODIFIER "x",
                    block, offset, length);
        return FALSE;
    }
    return TRUE;
}

static void put_subsection(GByteArray *out, const char *name)
{
    stream_put_u8(out, STREAM_SUBSECTION);
    stream_put_name(out, name);
    stream_put_u32(out, STREAM_CONFIG_SUBSECTION_VERSION);
}

static void put_configuration(GByteArray *out, const ImageHead *head, const char *capability)
{
    gsize length = strlen(head->machine_type);

    stream_put_u8(out, STREAM_CONFIGURATION);
    stream_put_u32(out, (guint32)length);
    g_byte_array_append(out, (const guint8 *)head->machine_type, (guint)length);
    if (head->send_page_bits) {
        put_subsection(out, STREAM_CONFIG_PAGE_BITS);
        stream_put_u32(out, head->target_page_bits);
    }
    if (capability) {
        put_subsection(out, STREAM_CONFIG_CAPABILITIES);
        stream_put_u32(out, 1);
        stream_put_name(out, capability);
    }
}

void stream_put_head(GByteArray *out, const ImageHead *head, const char *capability)
{
    guint64 total = 0;

    for (guint i = 0; i < head->blocks->len; i++) {
        total += ((const ImageBlock *)g_ptr_array_index(head->blocks, i))->used_length;
    }
    put_configuration(out, head, capability);
    stream_put_u8(out, STREAM_SECTION_START);
    stream_put_u32(out, STREAM_RAM_ID);
    stream_put_name(out, STREAM_RAM_NAME);
    stream_put_u32(out, 0); /* instance */
    stream_put_u32(out, STREAM_RAM_VERSION);
    stream_put_u64(out, total | RAM_FLAG_MEM_SIZE);
}

void stream_put_ram_footer(GByteArray *out)
{
    stream_put_u64(out, RAM_FLAG_EOS);
    stream_put_u8(out, STREAM_SECTION_FOOTER);
    stream_put_u32(out, STREAM_RAM_ID);
}

void stream_put_ram_end(GByteArray *out)
{
    stream_put_u8(out, STREAM_SECTION_END);
    stream_put_u32(out, STREAM_RAM_ID);
    stream_put_ram_footer(out);
}

/*
 * The description of the device sections is for tools, but its absence makes the loader print a
 * warning. Ours names none: only QEMU knows their fields. A conversion hands on QEMU's.
 */
void stream_put_end(GByteArray *out, const ImageHead *head)
{
    g_autofree char *description =
        head->description
            ? g_strdup(head->description)
            : g_strdup_printf("{\"page_size\": %u, \"devices\": []}", 1U << head->target_page_bits);
    gsize length = strlen(description);

    stream_put_u8(out, STREAM_EOF);
    stream_put_u8(out, STREAM_VMDESCRIPTION);
    stream_put_u32(out, (guint32)length);
    g_byte_array_append(out, (const guint8 *)description, (guint)length);
}
