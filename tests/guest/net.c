/*
 * The network: numbered packets go out through one card and come in through another, in order, into
 * scattered pages. There is always room for all that are on their way, so none is lost.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "dma.h"

#define HEADER_SIZE 10       /* virtio's, without merged buffers */
#define ETHERNET_TYPE 0x88b5 /* for experiments */
#define PACKET_STRIDE 2048
#define PACKETS 32    /* on their way at most */
#define RX_POSTED 128 /* buffers that wait for packets, at most */
#define RX_QUEUE 0
#define TX_QUEUE 1

static struct dma dma;
static struct virtio_queue rx, tx;
static uint64_t sent;
static uint64_t receive_slot; /* of the next packet */
static uint64_t rx_posted;

static volatile uint8_t *packet_at(uint64_t number)
{
    return (volatile uint8_t *)(GUEST_PACKETS_ADDRESS + number % PACKETS * PACKET_STRIDE);
}

static void prepare_packet(uint64_t index)
{
    volatile uint8_t *at = packet_at(index) + HEADER_SIZE;
    volatile struct guest_vring_descriptor *d = &tx.descriptor[index];

    memset((void *)packet_at(index), 0, GUEST_PACKET_SIZE);
    for (int i = 0; i < 6; i++) {
        at[i] = 0xff;
    }
    at[6] = 0x52;
    at[12] = ETHERNET_TYPE >> 8;
    at[13] = ETHERNET_TYPE & 0xff;
    d->address = (uint64_t)packet_at(index);
    d->length = GUEST_PACKET_SIZE;
    d->flags = 0;
}

static void start_card(struct virtio_queue *queue, unsigned nth, uint16_t index, uint64_t address)
{
    uint16_t port = virtio_find(VIRTIO_PCI_NET, nth);

    virtio_begin(port);
    virtio_add_queue(queue, port, index, address);
    virtio_ready(port);
}

void net_start(const struct options *options)
{
    start_card(&rx, 0, RX_QUEUE, GUEST_QUEUE_ADDRESS(1));
    start_card(&tx, 1, TX_QUEUE, GUEST_QUEUE_ADDRESS(2));
    if (rx.size < RX_POSTED || tx.size < PACKETS) {
        die("the cards' queues are too small");
    }
    for (uint64_t i = 0; i < PACKETS; i++) {
        prepare_packet(i);
    }
    dma_prepare(&dma, GUEST_DMA_NET, &options->net, 1, &rx, RX_POSTED);
    dma_publish(&dma);
}

static void check_packet(uint64_t number, uint64_t slot)
{
    volatile uint64_t *words =
        (volatile uint64_t *)(dma_slot_address(&dma, slot) + GUEST_PACKET_NUMBERS);

    if (!words_are(words, GUEST_PACKET_WORDS, number)) {
        dma_fail(&dma, number, "a word is not the packet's");
    }
}

static void receive(void)
{
    uint16_t descriptor;
    uint32_t length;

    while (virtio_take_used(&rx, &descriptor, &length)) {
        if (length != GUEST_PACKET_SIZE) {
            dma_fail(&dma, dma.completed + 1, "another length than was sent");
        }
        check_packet(dma.completed + 1, receive_slot);
        receive_slot = guest_order_next(receive_slot, dma.slots, dma.mask);
        dma_completed(&dma);
        rx_posted--;
    }
}

static void post_buffers(void)
{
    uint64_t before = dma.submitted;

    while (rx_posted < RX_POSTED) {
        uint16_t d = (uint16_t)(dma.submitted % rx.size);

        rx.descriptor[d].address = dma_next_address(&dma);
        rx.descriptor[d].length = GUEST_PAGE_SIZE;
        rx.descriptor[d].flags = VRING_DEVICE_WRITES;
        compiler_barrier();
        virtio_submit(&rx, d);
        dma_submitted(&dma);
        rx_posted++;
    }
    if (dma.submitted != before) {
        virtio_notify(&rx);
    }
}

static void send(void)
{
    uint16_t descriptor;
    uint32_t length;
    uint64_t before = sent;

    while (virtio_take_used(&tx, &descriptor, &length)) {
    }
    /* What was received was sent: its buffer is free again. */
    while (sent - dma.completed < PACKETS && (uint16_t)(tx.next_available - tx.seen) < PACKETS) {
        uint64_t number = ++sent;
        volatile uint64_t *words = (volatile uint64_t *)(packet_at(number) + GUEST_PACKET_NUMBERS);

        fill_words(words, GUEST_PACKET_WORDS, number);
        virtio_submit(&tx, (uint16_t)(number % PACKETS));
    }
    if (sent != before) {
        virtio_notify(&tx);
    }
}

void net_run(void)
{
    receive();
    post_buffers();
    send();
}

void net_check_all(void)
{
    receive();
    for (uint64_t i = 1, slot = 0; i <= dma.slots && i <= dma.completed; i++) {
        uint64_t number = guest_expected_number(i, dma.submitted, dma.slots);

        /* What was posted and not filled yet has the number of before, or is being written. */
        if (number <= dma.completed) {
            check_packet(number, slot);
        }
        slot = guest_order_next(slot, dma.slots, dma.mask);
    }
}
