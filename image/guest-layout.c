/*
 * RAM around the PCI hole.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "image/guest-layout.h"
#include "migration/device-state.h"

#define KIB 1024ULL
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define RTC_SECTION "mc146818rtc"
#define CMOS_BYTES 128
/* What firmware has always read there: the numbers are QEMU's, too. */
#define CMOS_EXTENDED 0x30 /* u16: KiB above 1 MiB, up to 64 MiB */
#define CMOS_LOW 0x34      /* u16: units of 64 KiB above 16 MiB, below 4 GiB */
#define CMOS_HIGH 0x5b     /* u24: units of 64 KiB above 4 GiB */

typedef struct Sizes {
    guint64 low;  /* from 0 on */
    guint64 high; /* from 4 GiB on */
} Sizes;

static guint64 little(const guint8 *at, guint bytes)
{
    guint64 value = 0;

    for (guint i = 0; i < bytes; i++) {
        value |= (guint64)at[i] << 8 * i;
    }
    return value;
}

static gboolean sizes_from_cmos(const GPtrArray *sections, const guint8 *devices, Sizes *sizes)
{
    const DeviceSection *rtc = device_section_find(sections, RTC_SECTION, 0);

    if (!rtc || device_section_body_length(rtc) < CMOS_BYTES) {
        return FALSE;
    }
    const guint8 *cmos = devices + rtc->offset + device_section_header_length(rtc);
    guint64 low = little(cmos + CMOS_LOW, 2);
    sizes->low = low ? 16 * MIB + low * 64 * KIB : MIB + little(cmos + CMOS_EXTENDED, 2) * KIB;
    sizes->high = little(cmos + CMOS_HIGH, 3) * 64 * KIB;
    return sizes->low > MIB;
}

/* What a machine type does with @total bytes: the most below 4 GiB, and what it cuts to if more. */
static void sizes_from_type(const char *type, guint64 total, Sizes *sizes)
{
    guint64 most = 3 * GIB;
    guint64 cut = 3 * GIB; /* microvm, and the older PC with whole gigabytes */

    if (g_str_has_prefix(type, "pc-q35")) {
        most = 0xb0000000;
        cut = 2 * GIB;
    } else if (g_str_has_prefix(type, "pc-i440fx")) {
        most = 0xe0000000 - 1;
    }
    sizes->low = total > most ? cut : total;
    sizes->high = total - sizes->low;
}

static int compare_blocks(gconstpointer a, gconstpointer b, gpointer user)
{
    const GPtrArray *blocks = user;
    const ImageBlock *one = g_ptr_array_index(blocks, *(const guint *)a);
    const ImageBlock *two = g_ptr_array_index(blocks, *(const guint *)b);
    gsize one_length = strlen(one->name);
    gsize two_length = strlen(two->name);

    /* ram-node2 before ram-node10 */
    return one_length != two_length ? (one_length < two_length ? -1 : 1)
                                    : strcmp(one->name, two->name);
}

/* What -object memory-backend-* makes, and what machines call their RAM. */
static gboolean may_be_ram(const char *name)
{
    return g_str_has_prefix(name, "/objects/") || strchr(name, '/') == NULL;
}

/* The blocks that are @total bytes of RAM together, in order: one, or one for each NUMA node. */
static GArray *find_blocks(const ImageHead *head, guint64 total)
{
    GArray *found = g_array_new(FALSE, FALSE, sizeof(guint));
    guint64 sum = 0;

    for (guint i = 0; i < head->blocks->len; i++) {
        const ImageBlock *block = g_ptr_array_index(head->blocks, i);
        if (block->used_length == total && may_be_ram(block->name)) {
            g_array_set_size(found, 0);
            g_array_append_val(found, i);
            return found;
        }
        if (g_str_has_prefix(block->name, "/objects/")) {
            g_array_append_val(found, i);
            sum += block->used_length;
        }
    }
    g_array_sort_with_data(found, compare_blocks, head->blocks);
    if (sum != total) {
        g_array_set_size(found, 0);
    }
    return found;
}

/* Appends @length bytes of RAM from @skip on, at @address. */
static void add_ranges(GArray *ranges, const ImageHead *head, const GArray *blocks, guint64 skip,
                       guint64 address, guint64 length)
{
    for (guint i = 0; i < blocks->len && length; i++) {
        guint index = g_array_index(blocks, guint, i);
        guint64 size = ((const ImageBlock *)g_ptr_array_index(head->blocks, index))->used_length;
        if (skip >= size) {
            skip -= size;
            continue;
        }
        GuestRange range = { address, MIN(size - skip, length), index, skip };
        g_array_append_val(ranges, range);
        address += range.length;
        length -= range.length;
        skip = 0;
    }
}

static guint64 largest_block(const ImageHead *head)
{
    guint64 largest = 0;

    for (guint i = 0; i < head->blocks->len; i++) {
        const ImageBlock *block = g_ptr_array_index(head->blocks, i);
        largest = may_be_ram(block->name) ? MAX(largest, block->used_length) : largest;
    }
    return largest;
}

GArray *guest_layout_x86(const ImageHead *head, const guint8 *devices, gsize length, GError **errp)
{
    const char *type = head->machine_type ? head->machine_type : "";
    g_autoptr(GPtrArray) sections = device_state_list(devices, length, errp);
    Sizes sizes;

    if (!sections) {
        return NULL;
    }
    if (!g_str_has_prefix(type, "pc-") && strcmp(type, "microvm") != 0) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "where RAM lies is only known of x86 machines, and this is \"%s\"", type);
        return NULL;
    }
    g_autoptr(GArray) blocks = NULL;
    if (sizes_from_cmos(sections, devices, &sizes)) {
        blocks = find_blocks(head, sizes.low + sizes.high);
    }
    /* No clock, or more than the CMOS can tell. */
    if (!blocks || !blocks->len) {
        g_clear_pointer(&blocks, g_array_unref);
        sizes_from_type(type, largest_block(head), &sizes);
        blocks = find_blocks(head, sizes.low + sizes.high);
    }
    if (!blocks->len) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "the image has no RAM blocks of the %" G_GUINT64_FORMAT
                    " bytes of RAM that its machine has",
                    sizes.low + sizes.high);
        return NULL;
    }
    GArray *ranges = g_array_new(FALSE, FALSE, sizeof(GuestRange));
    add_ranges(ranges, head, blocks, 0, 0, sizes.low);
    add_ranges(ranges, head, blocks, sizes.low, 4 * GIB, sizes.high);
    return ranges;
}

const GuestRange *guest_layout_find(const GArray *ranges, guint64 address)
{
    for (guint i = 0; i < ranges->len; i++) {
        const GuestRange *range = &g_array_index(ranges, GuestRange, i);
        if (address >= range->address && address - range->address < range->length) {
            return range;
        }
    }
    return NULL;
}
