/*
 * Guest-physical memory as an image has it, and the device sections beside it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "instant-memory.h"

#include <string.h>
#include <sys/mman.h>

#include "migration/image-reader.h"
#include "tests/guest/layout.h"

typedef struct Range {
    guint64 address;
    guint64 length;
    char *block;
    guint64 offset;
    guint8 *data;    /* @length bytes, mapped: what is not touched costs nothing */
    guint8 *present; /* how often each page was put, up to 255 */
} Range;

struct InstantMemory {
    GPtrArray *ranges;
    GByteArray *devices; /* the device sections */
};

static void range_free(gpointer data)
{
    Range *range = data;

    munmap(range->data, range->length);
    g_free(range->present);
    g_free(range->block);
    g_free(range);
}

InstantMemory *instant_memory_new(void)
{
    InstantMemory *memory = g_new0(InstantMemory, 1);

    memory->ranges = g_ptr_array_new_with_free_func(range_free);
    memory->devices = g_byte_array_new();
    return memory;
}

void instant_memory_free(InstantMemory *memory)
{
    if (memory) {
        g_ptr_array_unref(memory->ranges);
        g_byte_array_unref(memory->devices);
        g_free(memory);
    }
}

void instant_memory_map(InstantMemory *memory, guint64 address, guint64 length, const char *block,
                        guint64 offset)
{
    Range *range = g_new0(Range, 1);

    g_assert_cmpuint(length % GUEST_PAGE_SIZE, ==, 0);
    range->address = address;
    range->length = length;
    range->block = g_strdup(block);
    range->offset = offset;
    range->data = mmap(NULL, length, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    g_assert_true(range->data != MAP_FAILED);
    range->present = g_malloc0(length / GUEST_PAGE_SIZE);
    g_ptr_array_add(memory->ranges, range);
}

static Range *find_range(InstantMemory *memory, guint64 address)
{
    for (guint i = 0; i < memory->ranges->len; i++) {
        Range *range = g_ptr_array_index(memory->ranges, i);

        if (address >= range->address && address - range->address < range->length) {
            return range;
        }
    }
    return NULL;
}

/* @data NULL: zeros. */
static void range_put(Range *range, guint64 at, const guint8 *data, gsize length)
{
    guint8 *present = &range->present[at / GUEST_PAGE_SIZE];

    if (data) {
        memcpy(range->data + at, data, length);
    } else if (*present) {
        memset(range->data + at, 0, length);
    }
    *present = (guint8)MIN(*present + 1, 255);
}

void instant_memory_put(InstantMemory *memory, guint64 address, gconstpointer data, gsize length)
{
    Range *range = find_range(memory, address);

    g_assert_nonnull(range);
    g_assert_cmpuint(address % GUEST_PAGE_SIZE + length, <=, GUEST_PAGE_SIZE);
    range_put(range, address - range->address, data, length);
}

const guint64 *instant_memory_get_page(InstantMemory *memory, guint64 address, guint *times)
{
    const Range *range = find_range(memory, address);

    *times = range ? range->present[(address - range->address) / GUEST_PAGE_SIZE] : 0;
    return *times ? (const guint64 *)(const void *)(range->data + (address - range->address))
                  : NULL;
}

void instant_memory_replace(InstantMemory *memory, guint64 address, gconstpointer data,
                            gsize length)
{
    Range *range = find_range(memory, address);

    g_assert_nonnull(range);
    memcpy(range->data + (address - range->address), data, length);
}

guint64 instant_memory_count(InstantMemory *memory, guint64 address, guint64 length, guint8 byte)
{
    guint64 count = 0;

    for (guint64 at = address; at < address + length; at += GUEST_PAGE_SIZE) {
        guint times = 0;
        const guint8 *page = (const guint8 *)instant_memory_get_page(memory, at, &times);
        gsize i = 0;
        while (page && i < GUEST_PAGE_SIZE && page[i] == byte) {
            i++;
        }
        count += i == GUEST_PAGE_SIZE;
    }
    return count;
}

gboolean instant_memory_read(InstantMemory *memory, guint64 address, gpointer to, gsize length)
{
    for (gsize done = 0; done < length;) {
        guint64 at = address + done, page = at / GUEST_PAGE_SIZE * GUEST_PAGE_SIZE;
        gsize part = MIN(length - done, page + GUEST_PAGE_SIZE - at);
        guint times;
        const guint64 *words = instant_memory_get_page(memory, page, &times);

        if (!words) {
            return FALSE;
        }
        memcpy((guint8 *)to + done, (const guint8 *)words + (at - page), part);
        done += part;
    }
    return TRUE;
}

void instant_memory_put_device_state(InstantMemory *memory, gconstpointer data, gsize length)
{
    g_byte_array_append(memory->devices, data, (guint)length);
}

guint instant_memory_find_device_state(InstantMemory *memory, gconstpointer pattern, gsize length,
                                       const guint8 **behind, gsize *left)
{
    const guint8 *at = memory->devices->data, *end = at + memory->devices->len;
    guint found = 0;

    while (at && (at = memmem(at, (gsize)(end - at), pattern, length))) {
        found++;
        at += length;
        *behind = at;
        *left = (gsize)(end - at);
    }
    return found;
}

/* ---- Filling it ---- */

typedef struct LoadContext {
    InstantMemory *memory;
    const ImageHead *head;
} LoadContext;

static gboolean block_has_name(const char *block, const char *name)
{
    const char *slash = strrchr(block, '/');

    return g_str_equal(block, name) || (slash && g_str_equal(slash + 1, name));
}

static gboolean load_run(guint block, guint64 offset, const void *data, guint64 length,
                         gpointer user, GError **errp)
{
    const LoadContext *context = user;
    const ImageBlock *image_block = g_ptr_array_index(context->head->blocks, block);

    for (guint64 at = 0; at < length; at += GUEST_PAGE_SIZE) {
        for (guint i = 0; i < context->memory->ranges->len; i++) {
            Range *range = g_ptr_array_index(context->memory->ranges, i);

            if (offset + at >= range->offset && offset + at - range->offset < range->length &&
                block_has_name(image_block->name, range->block)) {
                range_put(range, offset + at - range->offset,
                          data ? (const guint8 *)data + at : NULL, GUEST_PAGE_SIZE);
            }
        }
    }
    return TRUE;
}

gboolean instant_memory_load_image(InstantMemory *memory, const char *path, guint64 offset,
                                   GError **errp)
{
    g_autoptr(ImageReader) reader = image_reader_open(path, offset, errp);
    LoadContext context = { .memory = memory };
    const guint8 *devices;
    gsize length;

    if (!reader) {
        return FALSE;
    }
    context.head = image_reader_get_head(reader);
    if (!image_reader_foreach_page(reader, load_run, &context, errp) ||
        !image_reader_get_device_state(reader, &devices, &length, errp)) {
        return FALSE;
    }
    instant_memory_put_device_state(memory, devices, length);
    return TRUE;
}

void instant_memory_load_live(InstantMemory *memory, TestVm *vm)
{
    for (guint i = 0; i < memory->ranges->len; i++) {
        Range *range = g_ptr_array_index(memory->ranges, i);

        test_vm_read_memory(vm, range->address, range->data, range->length);
        memset(range->present, 1, range->length / GUEST_PAGE_SIZE);
    }
}
