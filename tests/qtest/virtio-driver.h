/*
 * A virtio driver outside of the guest: the test drives a real device of QEMU through the qtest
 * socket (ports, device memory, guest memory), as a guest's driver would. For what a bare-metal
 * guest has no drivers for: balloon, virtio-mem. Everything asserts.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "vm.h"

typedef struct QtestSocket QtestSocket;

/* QEMU's argument for -qtest, with the socket in @dir; the caller frees. */
char *qtest_socket_argument(TestDir *dir);
QtestSocket *qtest_socket_open(TestDir *dir);
void qtest_socket_free(QtestSocket *qtest);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(QtestSocket, qtest_socket_free)

/* Sends one command of QEMU's qtest protocol and returns the number that it answers, or 0. */
guint64 qtest_command(QtestSocket *qtest, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* The virtio device IDs (virtio specification, section 5). */
#define VIRTIO_ID_BALLOON 5
#define VIRTIO_ID_MEM 24

typedef struct VirtioDevice VirtioDevice;

/*
 * Sets up the PCI device of kind @id with the features @features (VERSION_1 is added) and @queues
 * queues, whose rings lie from guest address @rings on, a page each and one more for requests. The
 * firmware has given the device its addresses.
 */
VirtioDevice *virtio_device_open(QtestSocket *qtest, guint16 id, guint64 features, guint queues,
                                 guint64 rings);
void virtio_device_free(VirtioDevice *device);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VirtioDevice, virtio_device_free)

/* A number of @size (1 to 8) bytes from its configuration. */
guint64 virtio_device_config(VirtioDevice *device, guint offset, guint size);

/* A part of a request, in guest memory. */
typedef struct VirtioBuffer {
    guint64 address;
    guint32 length;
    gboolean device_writes;
} VirtioBuffer;

/* Hands a request over and waits until the device has done it. */
void virtio_device_request(VirtioDevice *device, guint queue, const VirtioBuffer *buffers, guint n);
/* The page for requests. */
guint64 virtio_device_scratch(VirtioDevice *device);

/* The balloon takes @length bytes from guest address @at on, one page after the other. */
void balloon_inflate(VirtioDevice *device, guint64 at, guint64 length);
/* Free page reporting of the same: queue 3 of a device with VIRTIO_BALLOON_F_REPORTING. */
#define BALLOON_F_REPORTING (1ULL << 5)
void balloon_report(VirtioDevice *device, guint64 at, guint64 length);

/* Where the memory of a virtio-mem device begins in the guest. */
guint64 virtio_mem_address(VirtioDevice *device);
/* Plugs or unplugs @length bytes at @offset. Returns the device's answer, 0 = done. */
guint virtio_mem_change(VirtioDevice *device, gboolean plug, guint64 offset, guint64 length);
