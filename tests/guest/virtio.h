/*
 * Virtio devices on the PCI bus, by the legacy interface: ports, queues in one piece of memory.
 * Nothing interrupts: the used rings are looked at.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "layout.h"
#include "machine.h"

#define VIRTIO_PCI_NET 0x1000
#define VIRTIO_PCI_DISK 0x1001

#define VRING_NEXT 1
#define VRING_DEVICE_WRITES 2

struct virtio_queue {
    uint16_t port; /* of the device */
    uint16_t index;
    uint16_t size;
    uint64_t address;
    volatile struct guest_vring_descriptor *descriptor;
    volatile struct guest_vring_available *available;
    volatile struct guest_vring_used *used;
    uint16_t next_available; /* what available->index will be */
    uint16_t seen;           /* used entries that were taken */
};

/* Port of the device's registers, of the @nth device (from 0) with that PCI id; dies without one.
 */
uint16_t virtio_find(uint16_t id, unsigned nth);
/* Resets the device, and tells it that there is a driver that wants no features. */
void virtio_begin(uint16_t port);
/* Makes a queue at @address, in memory that is zero. Before virtio_ready(). */
void virtio_add_queue(struct virtio_queue *queue, uint16_t port, uint16_t index, uint64_t address);
void virtio_ready(uint16_t port);

/* Puts the chain that begins with @descriptor into the available ring: the device may take it. */
void virtio_submit(struct virtio_queue *queue, uint16_t descriptor);
/* Tells the device of what was submitted. */
void virtio_notify(struct virtio_queue *queue);
/* Takes the next used entry: its first descriptor, and how many bytes were written. */
bool virtio_take_used(struct virtio_queue *queue, uint16_t *descriptor, uint32_t *length);
