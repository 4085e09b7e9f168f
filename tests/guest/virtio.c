/*
 * Virtio devices on the PCI bus, by the legacy interface.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "virtio.h"

#define PCI_ADDRESS 0xcf8
#define PCI_DATA 0xcfc
#define PCI_ENABLE 0x80000000U
#define PCI_ID 0x00
#define PCI_COMMAND 0x04
#define PCI_COMMAND_IO_AND_MASTER 0x5
#define PCI_BAR0 0x10
#define PCI_SLOTS 32
#define VIRTIO_VENDOR 0x1af4

/* Offsets from the device's first port. */
#define REG_GUEST_FEATURES 4
#define REG_QUEUE_PAGE 8
#define REG_QUEUE_SIZE 12
#define REG_QUEUE_SELECT 14
#define REG_QUEUE_NOTIFY 16
#define REG_STATUS 18

#define STATUS_ACKNOWLEDGE 1
#define STATUS_DRIVER 2
#define STATUS_DRIVER_OK 4

#define NO_INTERRUPT 1
#define NO_NOTIFY 1

static uint32_t pci_read(uint32_t slot, uint32_t offset)
{
    outl(PCI_ADDRESS, PCI_ENABLE | slot << 11 | offset);
    return inl(PCI_DATA);
}

static void pci_write(uint32_t slot, uint32_t offset, uint32_t value)
{
    outl(PCI_ADDRESS, PCI_ENABLE | slot << 11 | offset);
    outl(PCI_DATA, value);
}

uint16_t virtio_find(uint16_t id, unsigned nth)
{
    for (uint32_t slot = 0; slot < PCI_SLOTS; slot++) {
        uint32_t bar;

        if (pci_read(slot, PCI_ID) != ((uint32_t)id << 16 | VIRTIO_VENDOR) || nth-- > 0) {
            continue;
        }
        bar = pci_read(slot, PCI_BAR0);
        if (!(bar & 1) || (bar & 0xfffc) == 0) {
            die("a virtio device without ports: disable-legacy=off is missing");
        }
        pci_write(slot, PCI_COMMAND, PCI_COMMAND_IO_AND_MASTER);
        return (uint16_t)(bar & 0xfffc);
    }
    die("no such virtio device");
}

void virtio_begin(uint16_t port)
{
    outb(port + REG_STATUS, 0);
    outb(port + REG_STATUS, STATUS_ACKNOWLEDGE);
    outb(port + REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    outl(port + REG_GUEST_FEATURES, 0);
}

void virtio_add_queue(struct virtio_queue *queue, uint16_t port, uint16_t index, uint64_t address)
{
    outw(port + REG_QUEUE_SELECT, index);
    *queue = (struct virtio_queue){ .port = port, .index = index, .address = address };
    queue->size = inw(port + REG_QUEUE_SIZE);
    if (queue->size == 0 || queue->size > 1024) {
        die("a virtio queue of a size that does not fit");
    }
    queue->descriptor = (volatile struct guest_vring_descriptor *)address;
    queue->available = (volatile struct guest_vring_available *)guest_vring_available_address(
        address, queue->size);
    queue->used =
        (volatile struct guest_vring_used *)guest_vring_used_address(address, queue->size);
    queue->available->flags = NO_INTERRUPT;
    outl(port + REG_QUEUE_PAGE, (uint32_t)(address / GUEST_PAGE_SIZE));
}

void virtio_ready(uint16_t port)
{
    outb(port + REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_DRIVER_OK);
}

void virtio_submit(struct virtio_queue *queue, uint16_t descriptor)
{
    queue->available->ring[queue->next_available++ % queue->size] = descriptor;
    compiler_barrier();
    queue->available->index = queue->next_available;
}

void virtio_notify(struct virtio_queue *queue)
{
    /* The index must be seen before the flag is read. */
    __asm__ volatile("mfence" : : : "memory");
    if (!(queue->used->flags & NO_NOTIFY)) {
        outw(queue->port + REG_QUEUE_NOTIFY, queue->index);
    }
}

bool virtio_take_used(struct virtio_queue *queue, uint16_t *descriptor, uint32_t *length)
{
    if (queue->used->index == queue->seen) {
        return false;
    }
    compiler_barrier();
    *descriptor = (uint16_t)queue->used->ring[queue->seen % queue->size].id;
    *length = queue->used->ring[queue->seen % queue->size].length;
    queue->seen++;
    return true;
}
