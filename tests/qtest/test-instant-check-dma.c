/*
 * The judge of devices can fail: hand-made memory of a guest with a disk and a network card that is
 * right, and the same with one thing of another time each.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "instant-check.h"

#include <string.h>

#include "tests/guest/layout.h"

#define MEMORY_SIZE 0x800000
#define COUNTER 7 /* the vCPU's */
#define BLOCKS 1021

typedef struct Device {
    const char *name;
    guint64 kind, queue, queue_size, start, slots, slot_pages;
    guint64 taken;     /* by the device, and done */
    guint64 submitted; /* a few more, which it has not taken yet */
} Device;

static const Device disk = {
    "disk", GUEST_DMA_DISK, GUEST_QUEUE_ADDRESS(0), 64, 0x500000, 70, 2, 70000, 70003,
};
static const Device net = {
    "net", GUEST_DMA_NET, GUEST_QUEUE_ADDRESS(1), 64, 0x700000, 80, 1, 70000, 70040,
};

/* The memory as plain bytes, to be changed before it is judged. */
typedef struct Machine {
    guint8 *bytes;
    guint16 device_index[2];
} Machine;

static gpointer at(Machine *machine, guint64 address)
{
    return machine->bytes + address;
}

static void fill_page(const Device *d, guint64 *words, guint64 page, guint64 number)
{
    memset(words, 0, GUEST_PAGE_SIZE);
    if (d->kind == GUEST_DMA_DISK) {
        for (guint i = 0; i < GUEST_WORDS; i++) {
            words[i] = guest_disk_word(guest_disk_block(number, BLOCKS), page);
        }
    } else {
        for (guint i = 0; i < GUEST_PACKET_WORDS; i++) {
            words[GUEST_PACKET_NUMBERS / 8 + i] = number;
        }
    }
}

/* The slot of request @number. */
static guint64 slot_of(const Device *d, guint64 number)
{
    guint64 slot = 0;

    for (guint64 i = 1; i < (number - 1) % d->slots + 1; i++) {
        slot = guest_order_next(slot, d->slots, guest_order_mask(d->slots));
    }
    return slot;
}

static guint64 *slot_page(Machine *machine, const Device *d, guint64 number, guint64 page)
{
    return at(machine, d->start + (slot_of(d, number) * d->slot_pages + page) * GUEST_PAGE_SIZE);
}

static struct guest_disk_tag *tag_of(Machine *machine, guint64 number)
{
    return (struct guest_disk_tag *)at(machine, GUEST_DISK_TAGS_ADDRESS) +
           number % guest_disk_tags(disk.queue_size);
}

static struct guest_vring_available *available_of(Machine *machine, const Device *d)
{
    return at(machine, guest_vring_available_address(d->queue, d->queue_size));
}

static struct guest_vring_used *used_of(Machine *machine, const Device *d)
{
    return at(machine, guest_vring_used_address(d->queue, d->queue_size));
}

static guint16 head_of(const Device *d, guint64 number)
{
    return (guint16)(d->kind == GUEST_DMA_DISK ? number % guest_disk_tags(d->queue_size) * 3
                                               : (number - 1) % d->queue_size);
}

static void submit(Machine *machine, const Device *d, guint64 number)
{
    available_of(machine, d)->ring[(number - 1) % d->queue_size] = head_of(d, number);
    available_of(machine, d)->index = (guint16)number;
    if (d->kind == GUEST_DMA_DISK) {
        struct guest_vring_descriptor *descriptor = at(machine, d->queue);

        descriptor[head_of(d, number) + 1].address =
            d->start + slot_of(d, number) * d->slot_pages * GUEST_PAGE_SIZE;
        *tag_of(machine, number) = (struct guest_disk_tag){
            .sector = guest_disk_block(number, BLOCKS) * d->slot_pages * 8,
            .number = number,
            .counter = COUNTER,
            .status = number <= d->taken ? 0 : GUEST_DISK_PENDING,
        };
    }
}

static void play_device(Machine *machine, const Device *d)
{
    struct guest_dma *dma = at(machine, guest_dma_address(d->kind));
    guint32 length =
        d->kind == GUEST_DMA_DISK ? (guint32)d->slot_pages * 4096 + 1 : GUEST_PACKET_SIZE;

    *dma = (struct guest_dma){
        .magic = GUEST_DMA_MAGIC,
        .kind = d->kind,
        .queue = d->queue,
        .queue_size = d->queue_size,
        .start = d->start,
        .slots = d->slots,
        .slot_pages = d->slot_pages,
        .blocks = BLOCKS,
        .submitted = d->submitted,
        .completed = d->taken - 1,
    };
    for (guint64 n = d->submitted - d->queue_size; n <= d->submitted; n++) {
        submit(machine, d, n);
    }
    for (guint64 n = d->taken - d->slots + 1; n <= d->taken; n++) {
        for (guint64 page = 0; page < d->slot_pages; page++) {
            fill_page(d, slot_page(machine, d, n, page), page, n);
        }
        used_of(machine, d)->ring[(n - 1) % d->queue_size].id = head_of(d, n);
        used_of(machine, d)->ring[(n - 1) % d->queue_size].length = length;
    }
    used_of(machine, d)->index = (guint16)d->taken;
    machine->device_index[d->kind - 1] = (guint16)d->taken;
}

static void play(Machine *machine)
{
    machine->bytes = g_malloc0(MEMORY_SIZE);
    struct guest_state *state = at(machine, GUEST_STATE_ADDRESS);
    guint64 *page = at(machine, GUEST_RANGES_ADDRESS);

    *state = (struct guest_state){
        .magic = GUEST_MAGIC,
        .counter = COUNTER,
        .page_count = 1,
        .range_count = 1,
        .range = { { GUEST_RANGES_ADDRESS, 1 } },
        .cpus = 1,
    };
    page[GUEST_WORD_FIRST] = page[GUEST_WORD_MIDDLE] = page[GUEST_WORD_LAST] = COUNTER;
    play_device(machine, &disk);
    play_device(machine, &net);
}

static void put_device_state(InstantMemory *memory, const Device *d, guint16 index)
{
    guint32 size = GUINT32_TO_BE((guint32)d->queue_size);
    guint64 queue = GUINT64_TO_BE(d->queue);

    index = GUINT16_TO_BE(index);
    instant_memory_put_device_state(memory, "some", 4);
    instant_memory_put_device_state(memory, &size, 4);
    instant_memory_put_device_state(memory, &queue, 8);
    instant_memory_put_device_state(memory, &index, 2);
}

static gboolean judge(Machine *machine, InstantResult *result)
{
    g_autoptr(InstantMemory) memory = instant_memory_new();
    gboolean good;

    instant_memory_map(memory, 0, MEMORY_SIZE, "ram", 0);
    for (guint64 page = 0; page < MEMORY_SIZE; page += GUEST_PAGE_SIZE) {
        instant_memory_put(memory, page, machine->bytes + page, GUEST_PAGE_SIZE);
    }
    put_device_state(memory, &disk, machine->device_index[0]);
    put_device_state(memory, &net, machine->device_index[1]);
    good = instant_check(memory, result);
    g_test_message("%s", result->text->str);
    g_free(machine->bytes);
    return good;
}

static void test_good(void)
{
    Machine machine;
    InstantResult result;

    play(&machine);
    g_assert_true(judge(&machine, &result));
    g_assert_cmpuint(result.requests, ==, disk.taken + net.taken);
    g_assert_cmpuint(result.pages, ==, 1 + disk.slots * disk.slot_pages + net.slots);
    instant_result_clear(&result);
}

/* The requests after and before those that the device has taken. */
static void test_slots(void)
{
    const Device *const devices[] = { &disk, &net };

    for (guint i = 0; i < G_N_ELEMENTS(devices); i++) {
        const Device *d = devices[i];
        guint64 last = d->slot_pages - 1;
        Machine machine;
        InstantResult result;

        play(&machine);
        fill_page(d, slot_page(&machine, d, d->taken + 1, last), last, d->taken + 1);
        fill_page(d, slot_page(&machine, d, d->taken, 0), 0, d->taken - d->slots);
        slot_page(&machine, d, d->taken - 5, last)[40] = 99;
        g_autofree char *late = g_strdup_printf(
            "page 0x%" G_GINT64_MODIFIER "x is late",
            d->start + (slot_of(d, d->taken + 1) * d->slot_pages + last) * GUEST_PAGE_SIZE);
        g_assert_false(judge(&machine, &result));
        g_assert_cmpuint(result.late, ==, 1);
        g_assert_cmpuint(result.early, ==, 1);
        g_assert_cmpuint(result.torn, ==, 1);
        g_assert_nonnull(strstr(result.text->str, late));
        instant_result_clear(&result);
    }
}

/* Each of them alone: a page of the queue, the records or the device's state of another time. */
static void older_used_index(Machine *machine)
{
    used_of(machine, &net)->index--;
}
static void newer_used_index(Machine *machine)
{
    used_of(machine, &disk)->index++;
}
static void older_used_entry(Machine *machine)
{
    used_of(machine, &net)->ring[(net.taken - 1) % net.queue_size].id++;
}
static void older_available_index(Machine *machine)
{
    available_of(machine, &disk)->index--;
}
static void newer_available_index(Machine *machine)
{
    available_of(machine, &net)->index += 2;
}
static void older_available_entry(Machine *machine)
{
    available_of(machine, &disk)->ring[(disk.submitted - 1) % disk.queue_size] =
        head_of(&disk, disk.submitted - disk.queue_size);
}
static void newer_status(Machine *machine)
{
    tag_of(machine, disk.taken + 1)->status = 0;
}
static void older_status(Machine *machine)
{
    tag_of(machine, disk.taken)->status = GUEST_DISK_PENDING;
}
static void older_record(Machine *machine)
{
    tag_of(machine, disk.submitted)->number -= guest_disk_tags(disk.queue_size);
}
static void record_of_the_future(Machine *machine)
{
    tag_of(machine, disk.taken)->counter++;
}
static void completed_too_early(Machine *machine)
{
    struct guest_dma *dma = at(machine, guest_dma_address(GUEST_DMA_DISK));

    dma->completed = disk.taken + 1;
}
static void newer_device_state(Machine *machine)
{
    machine->device_index[0]++;
}
static void older_device_state(Machine *machine)
{
    machine->device_index[1]--;
}

static void test_doctored(gconstpointer data)
{
    void (*const doctor)(Machine * machine) = *(void (*const *)(Machine *))data;
    Machine machine;
    InstantResult result;

    play(&machine);
    doctor(&machine);
    g_assert_false(judge(&machine, &result));
    g_assert_cmpuint(result.effects, >, 0);
    instant_result_clear(&result);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*doctor)(Machine *machine);
    } doctored[] = {
        { "older-used-index", older_used_index },
        { "newer-used-index", newer_used_index },
        { "older-used-entry", older_used_entry },
        { "older-available-index", older_available_index },
        { "newer-available-index", newer_available_index },
        { "older-available-entry", older_available_entry },
        { "newer-status", newer_status },
        { "older-status", older_status },
        { "older-record", older_record },
        { "record-of-the-future", record_of_the_future },
        { "completed-too-early", completed_too_early },
        { "newer-device-state", newer_device_state },
        { "older-device-state", older_device_state },
    };

    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/instant-check-dma/good", test_good);
    g_test_add_func("/instant-check-dma/slots", test_slots);
    for (guint i = 0; i < G_N_ELEMENTS(doctored); i++) {
        g_autofree char *path = g_strdup_printf("/instant-check-dma/%s", doctored[i].name);
        g_test_add_data_func(path, &doctored[i].doctor, test_doctored);
    }
    return g_test_run();
}
