/*
 * What devices wrote. QEMU stops a machine only when its devices are done with all requests that
 * they have taken, so the device state says how many requests P are complete, and then the right
 * content of every slot, of both rings and of the requests' records follows (layout.h).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "instant-judge.h"

#define QUEUE_MAX 1024

typedef struct DmaJudge {
    Judge *judge;
    const char *name;
    struct guest_dma dma;
    guint64 available; /* requests that the available ring's index counts */
    guint64 taken;     /* that the device has taken */
    guint8 queue[64 * 1024];
} DmaJudge;

static const struct guest_vring_descriptor *descriptors(const DmaJudge *d)
{
    return (const void *)d->queue;
}

static const struct guest_vring_available *available_ring(const DmaJudge *d)
{
    return (const void *)(d->queue + guest_vring_available_address(0, d->dma.queue_size));
}

static const struct guest_vring_used *used_ring(const DmaJudge *d)
{
    return (const void *)(d->queue + guest_vring_used_address(0, d->dma.queue_size));
}

static void complain_effect(DmaJudge *d, const char *what, guint64 number, guint64 other)
{
    d->judge->result->effects++;
    judge_complain(d->judge, "%s: %s: %" G_GUINT64_FORMAT ", %" G_GUINT64_FORMAT, d->name, what,
                   number, other);
}

/* Whether what the guest says of itself can be. */
static gboolean dma_is_sane(const struct guest_dma *dma)
{
    return dma->queue_size >= 4 && dma->queue_size <= QUEUE_MAX &&
           (dma->queue_size & (dma->queue_size - 1)) == 0 && dma->slot_pages >= 1 &&
           dma->slot_pages <= 64 && dma->slots > 0 &&
           dma->slots <= GUEST_MAX_ADDRESS / GUEST_PAGE_SIZE &&
           (dma->kind != GUEST_DMA_DISK || dma->blocks > 0);
}

/*
 * How far the device has got, as a 16-bit number. In the state of a virtio device (QEMU's
 * virtio_save(), the same in all versions) each queue is its size and the address of its
 * descriptors, then this number, all big-endian.
 */
static gboolean read_device_index(DmaJudge *d, guint16 *index)
{
    const guint32 size = GUINT32_TO_BE((guint32)d->dma.queue_size);
    const guint64 address = GUINT64_TO_BE(d->dma.queue);
    guint8 pattern[12];
    const guint8 *behind = NULL;
    gsize left = 0;
    guint found;

    memcpy(pattern, &size, 4);
    memcpy(pattern + 4, &address, 8);
    found = instant_memory_find_device_state(d->judge->memory, pattern, sizeof(pattern), &behind,
                                             &left);
    if (found != 1 || left < 2) {
        judge_complain(d->judge, "%s: its queue is in the device state %u times", d->name, found);
        return FALSE;
    }
    *index = (guint16)(behind[0] << 8 | behind[1]);
    return TRUE;
}

/* The four places that count requests, against each other. */
static gboolean judge_indices(DmaJudge *d)
{
    const struct guest_dma *dma = &d->dma;
    const guint16 available = available_ring(d)->index, used = used_ring(d)->index;
    guint16 device;

    if (!read_device_index(d, &device)) {
        return FALSE;
    }
    /* The index is stored first, the guest's own count behind it. */
    d->available = dma->submitted + (guint16)(available - (guint16)dma->submitted);
    if (d->available > dma->submitted + 1) {
        complain_effect(d, "requests counted by the guest, and by the available ring",
                        dma->submitted & 0xffff, available);
        return FALSE;
    }
    if ((guint16)(available - device) > dma->queue_size) {
        complain_effect(d, "requests in the available ring, and taken by the device", available,
                        device);
        return FALSE;
    }
    d->taken = d->available - (guint16)(available - device);
    if (used != device) {
        complain_effect(d, "requests in the used ring, and taken by the device", used, device);
    }
    if (dma->completed > d->taken || d->taken - dma->completed > dma->queue_size) {
        complain_effect(d, "requests found complete by the guest, and taken by the device",
                        dma->completed, d->taken);
    }
    d->judge->result->requests += d->taken;
    return TRUE;
}

/* The first descriptor of request @number. */
static guint64 head_of(const DmaJudge *d, guint64 number)
{
    return d->dma.kind == GUEST_DMA_DISK
               ? number % guest_disk_tags(d->dma.queue_size) * GUEST_DISK_TAG_DESCRIPTORS
               : (number - 1) % d->dma.queue_size;
}

static void judge_rings(DmaJudge *d)
{
    const guint64 size = d->dma.queue_size;
    const guint32 length = d->dma.kind == GUEST_DMA_DISK
                               ? (guint32)d->dma.slot_pages * GUEST_PAGE_SIZE + 1
                               : GUEST_PACKET_SIZE;

    for (guint64 n = d->available >= size ? d->available - size + 1 : 1; n <= d->available; n++) {
        guint16 id = available_ring(d)->ring[(n - 1) % size];

        /* The entry behind the last may be stored already. */
        if (id != head_of(d, n) && n + size != d->available + 1) {
            complain_effect(d, "an entry of the available ring is of another time", n, id);
        }
    }
    for (guint64 n = d->taken >= size ? d->taken - size + 1 : 1; n <= d->taken; n++) {
        guint32 id = used_ring(d)->ring[(n - 1) % size].id;
        gboolean right = d->dma.kind == GUEST_DMA_DISK
                             ? id < size && id % GUEST_DISK_TAG_DESCRIPTORS == 0
                             : id == head_of(d, n);

        if (!right || used_ring(d)->ring[(n - 1) % size].length != length) {
            complain_effect(d, "an entry of the used ring is of another time", n, id);
        }
    }
}

/* ---- The disk's requests ---- */

static void judge_tag(DmaJudge *d, const struct guest_disk_tag *tag, guint64 number, guint64 slot)
{
    const guint64 address = d->dma.start + slot * d->dma.slot_pages * GUEST_PAGE_SIZE;
    const guint64 sector =
        guest_disk_block(number, d->dma.blocks) * d->dma.slot_pages * (GUEST_PAGE_SIZE / 512);
    const guint8 status = number <= d->taken ? 0 : GUEST_DISK_PENDING;

    if (tag->number != number || tag->sector != sector ||
        descriptors(d)[head_of(d, number) + 1].address != address) {
        complain_effect(d, "a request's record is of another time", number, tag->number);
    }
    if (tag->status != status) {
        complain_effect(d, "a request has the status of another time", number, tag->status);
    }
    if (tag->counter > d->judge->state[0].counter) {
        complain_effect(d, "made when the first vCPU's counter was, which is only", tag->counter,
                        d->judge->state[0].counter);
    }
}

/* @slot_of: the slot of each number of the last round, by number modulo slots. */
static void judge_tags(DmaJudge *d, const guint64 *slot_of)
{
    const guint64 count = guest_disk_tags(d->dma.queue_size);
    g_autofree struct guest_disk_tag *tags = g_new0(struct guest_disk_tag, count);

    if (!instant_memory_read(d->judge->memory, GUEST_DISK_TAGS_ADDRESS, tags,
                             count * sizeof(*tags))) {
        judge_complain(d->judge, "the disk's requests are missing");
        return;
    }
    for (guint64 n = d->available >= count ? d->available - count + 1 : 1; n <= d->available; n++) {
        /* The record of the next request may be half made. */
        if (n + count != d->available + 1) {
            judge_tag(d, &tags[n % count], n, slot_of[n % d->dma.slots]);
        }
    }
}

/* ---- The slots ---- */

/* Whether the page @page of a slot is as request @number left it (0: as it was at the beginning).
 */
static gboolean page_is_of(const DmaJudge *d, const guint64 *words, guint64 page, guint64 number)
{
    guint first = 0, end = GUEST_WORDS;
    guint64 value = 0;

    if (number > 0 && d->dma.kind == GUEST_DMA_DISK) {
        value = guest_disk_word(guest_disk_block(number, d->dma.blocks), page);
    } else if (number > 0) {
        first = GUEST_PACKET_NUMBERS / 8;
        end = first + GUEST_PACKET_WORDS;
        value = number;
    }
    for (guint i = first; i < GUEST_WORDS; i++) {
        if (words[i] != (i < end ? value : 0)) {
            return FALSE;
        }
    }
    return TRUE;
}

/* The number of another round whose content the page has, or 0. */
static guint64 find_number(const DmaJudge *d, const guint64 *words, guint64 page, guint64 first)
{
    for (guint64 n = first; n <= d->taken + 100 * d->dma.slots; n += d->dma.slots) {
        if (n + 100 * d->dma.slots > d->taken && page_is_of(d, words, page, n)) {
            return n;
        }
    }
    return 0;
}

static void judge_slot(DmaJudge *d, guint64 slot, guint64 first)
{
    const guint64 expected = guest_expected_number(first, d->taken, d->dma.slots);

    for (guint64 page = 0; page < d->dma.slot_pages; page++) {
        guint64 address = d->dma.start + (slot * d->dma.slot_pages + page) * GUEST_PAGE_SIZE;
        const guint64 *words = judge_get_page(d->judge, address);

        d->judge->result->pages++;
        if (words && !page_is_of(d, words, page, expected)) {
            guint64 found = find_number(d, words, page, first);

            judge_wrong_page(d->judge, address, expected, found,
                             found == 0 && !page_is_of(d, words, page, 0));
        }
    }
}

static void judge_slots(DmaJudge *d)
{
    const guint64 mask = guest_order_mask(d->dma.slots);
    g_autofree guint64 *slot_of = g_new0(guint64, d->dma.slots);

    for (guint64 i = 1, slot = 0; i <= d->dma.slots; i++) {
        slot_of[i % d->dma.slots] = slot;
        judge_slot(d, slot, i);
        slot = guest_order_next(slot, d->dma.slots, mask);
    }
    if (d->dma.kind == GUEST_DMA_DISK) {
        judge_tags(d, slot_of);
    }
}

void judge_dma(Judge *judge)
{
    static const char *const names[] = { [GUEST_DMA_DISK] = "disk", [GUEST_DMA_NET] = "network" };

    for (guint kind = 1; kind <= GUEST_DMA_KINDS; kind++) {
        g_autofree DmaJudge *d = g_new0(DmaJudge, 1);
        guint64 address = guest_dma_address(kind);

        d->judge = judge;
        d->name = names[kind];
        if (!instant_memory_read(judge->memory, address, &d->dma, sizeof(d->dma)) ||
            d->dma.magic != GUEST_DMA_MAGIC) {
            continue;
        }
        if (d->dma.kind != kind || !dma_is_sane(&d->dma) ||
            !instant_memory_read(judge->memory, d->dma.queue, d->queue, sizeof(d->queue))) {
            judge_complain(judge, "%s: its state page is not the guest's, or the queue is missing",
                           d->name);
            continue;
        }
        if (judge_indices(d)) {
            judge_rings(d);
            judge_slots(d);
        }
    }
}
