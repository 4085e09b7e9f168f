/*
 * The disk: it is read all the time, scattered, into scattered slots.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "dma.h"

#define SLOT_PAGES 4
#define SLOT_BYTES (SLOT_PAGES * GUEST_PAGE_SIZE)
#define SECTOR_SIZE 512
#define REG_CAPACITY 20

static struct dma dma;
static struct virtio_queue queue;
static uint64_t tags;
static uint64_t blocks;
static uint64_t tag_slot[GUEST_DISK_TAGS_MAX]; /* where its request goes */
static bool tag_busy[GUEST_DISK_TAGS_MAX];

static volatile struct guest_disk_tag *tag_at(uint64_t tag)
{
    return (volatile struct guest_disk_tag *)GUEST_DISK_TAGS_ADDRESS + tag;
}

static void prepare_tag(uint64_t tag)
{
    uint16_t first = (uint16_t)(tag * GUEST_DISK_TAG_DESCRIPTORS);
    volatile struct guest_vring_descriptor *d = queue.descriptor + first;

    d[0].address = (uint64_t)tag_at(tag);
    d[0].length = 16;
    d[0].flags = VRING_NEXT;
    d[0].next = first + 1;
    d[1].length = SLOT_BYTES;
    d[1].flags = VRING_NEXT | VRING_DEVICE_WRITES;
    d[1].next = first + 2;
    d[2].address = (uint64_t)&tag_at(tag)->status;
    d[2].length = 1;
    d[2].flags = VRING_DEVICE_WRITES;
}

void disk_start(const struct options *options)
{
    uint16_t port = virtio_find(VIRTIO_PCI_DISK, 0);

    virtio_begin(port);
    virtio_add_queue(&queue, port, 0, GUEST_QUEUE_ADDRESS(0));
    virtio_ready(port);
    tags = guest_disk_tags(queue.size);
    blocks = inl(port + REG_CAPACITY) * (uint64_t)SECTOR_SIZE / SLOT_BYTES;
    if (blocks == 0) {
        die("the disk is too small");
    }
    for (uint64_t tag = 0; tag < tags; tag++) {
        prepare_tag(tag);
    }
    dma_prepare(&dma, GUEST_DMA_DISK, &options->disk, SLOT_PAGES, &queue, tags);
    dma.shared->blocks = blocks;
    dma_publish(&dma);
}

/* The first and the last word of each page, or all. */
static void check_slot(uint64_t number, uint64_t slot, bool all)
{
    const uint64_t block = guest_disk_block(number, blocks);

    for (uint64_t page = 0; page < SLOT_PAGES; page++) {
        volatile uint64_t *words =
            (volatile uint64_t *)(dma_slot_address(&dma, slot) + page * GUEST_PAGE_SIZE);
        uint64_t expected = guest_disk_word(block, page);
        bool right = words[0] == expected && words[GUEST_WORDS - 1] == expected;

        if (!right || (all && !words_are(words, GUEST_WORDS, expected))) {
            dma_fail(&dma, number, "a word is not the disk's");
        }
    }
}

static void take_completed(void)
{
    uint16_t descriptor;
    uint32_t length;

    while (virtio_take_used(&queue, &descriptor, &length)) {
        uint64_t tag = descriptor / GUEST_DISK_TAG_DESCRIPTORS;

        if (descriptor % GUEST_DISK_TAG_DESCRIPTORS || tag >= tags || !tag_busy[tag]) {
            dma_fail(&dma, descriptor, "a used entry that was not asked for");
        }
        if (tag_at(tag)->status != 0) {
            dma_fail(&dma, tag_at(tag)->number, "it failed");
        }
        if (length != SLOT_BYTES + 1) {
            dma_fail(&dma, tag_at(tag)->number, "another length than asked for");
        }
        check_slot(tag_at(tag)->number, tag_slot[tag], false);
        tag_busy[tag] = false;
        dma_completed(&dma);
    }
}

static void submit(uint64_t tag, uint64_t counter)
{
    volatile struct guest_disk_tag *at = tag_at(tag);
    uint64_t number = dma.submitted + 1;

    at->sector = guest_disk_block(number, blocks) * (SLOT_BYTES / SECTOR_SIZE);
    at->counter = counter;
    at->number = number;
    at->status = GUEST_DISK_PENDING;
    queue.descriptor[tag * GUEST_DISK_TAG_DESCRIPTORS + 1].address = dma_next_address(&dma);
    tag_slot[tag] = dma.submit_slot;
    tag_busy[tag] = true;
    compiler_barrier();
    virtio_submit(&queue, (uint16_t)(tag * GUEST_DISK_TAG_DESCRIPTORS));
    dma_submitted(&dma);
}

void disk_run(uint64_t counter)
{
    uint64_t before = dma.submitted;

    take_completed();
    while (!tag_busy[(dma.submitted + 1) % tags]) {
        submit((dma.submitted + 1) % tags, counter);
    }
    if (dma.submitted != before) {
        virtio_notify(&queue);
    }
}

static bool is_under_way(uint64_t slot)
{
    for (uint64_t tag = 0; tag < tags; tag++) {
        if (tag_busy[tag] && tag_slot[tag] == slot) {
            return true;
        }
    }
    return false;
}

void disk_check_all(void)
{
    take_completed();
    for (uint64_t i = 1, slot = 0; i <= dma.slots && i <= dma.submitted; i++) {
        if (!is_under_way(slot)) {
            check_slot(guest_expected_number(i, dma.submitted, dma.slots), slot, true);
        }
        slot = guest_order_next(slot, dma.slots, dma.mask);
    }
}
