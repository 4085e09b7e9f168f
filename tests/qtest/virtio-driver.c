/*
 * The virtio driver of the tests. Source of numbers: the virtio specification, version 1.2; the
 * places in the device's memory are QEMU's (capabilities of virtio-pci devices).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "virtio-driver.h"

#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_TIMEOUT_MS 60000

struct QtestSocket {
    int fd;
    GString *input;
};

char *qtest_socket_argument(TestDir *dir)
{
    return g_strdup_printf("unix:%s/qtest.sock,server=on,wait=off", dir->path);
}

QtestSocket *qtest_socket_open(TestDir *dir)
{
    QtestSocket *qtest = g_new0(QtestSocket, 1);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct timeval timeout = { .tv_sec = ANSWER_TIMEOUT_MS / 1000 };

    g_snprintf(address.sun_path, sizeof(address.sun_path), "%s/qtest.sock", dir->path);
    qtest->input = g_string_new(NULL);
    qtest->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_no_errno(qtest->fd);
    g_assert_no_errno(connect(qtest->fd, (struct sockaddr *)&address, sizeof(address)));
    g_assert_no_errno(setsockopt(qtest->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)));
    return qtest;
}

void qtest_socket_free(QtestSocket *qtest)
{
    if (qtest) {
        close(qtest->fd);
        g_string_free(qtest->input, TRUE);
        g_free(qtest);
    }
}

/* One line, without its end. */
static char *read_line(QtestSocket *qtest)
{
    char *end;

    while (!(end = strchr(qtest->input->str, '\n'))) {
        char buffer[512];
        ssize_t got = read(qtest->fd, buffer, sizeof(buffer));
        if (got <= 0) {
            g_error("QEMU does not answer on its qtest socket");
        }
        g_string_append_len(qtest->input, buffer, got);
    }
    char *line = g_strndup(qtest->input->str, (gsize)(end - qtest->input->str));
    g_string_erase(qtest->input, 0, end - qtest->input->str + 1);
    return line;
}

guint64 qtest_command(QtestSocket *qtest, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_autofree char *command = g_strdup_vprintf(format, args);
    va_end(args);
    g_autofree char *line = g_strconcat(command, "\n", NULL);
    g_assert_cmpint(write(qtest->fd, line, strlen(line)), ==, (gssize)strlen(line));
    g_autofree char *answer = read_line(qtest);
    if (!g_str_has_prefix(answer, "OK")) {
        g_error("qtest command \"%s\" failed: %s", command, answer);
    }
    return g_ascii_strtoull(answer + 2, NULL, 0);
}

/* ---- virtio over PCI ---- */

#define PCI_CONFIG_ADDRESS 0xcf8
#define PCI_CONFIG_DATA 0xcfc
#define PCI_COMMAND 0x04
#define PCI_COMMAND_ALL 0x07 /* ports, memory, bus master */
#define PCI_BAR4 0x20
#define VIRTIO_VENDOR 0x1af4
#define VIRTIO_MODERN 0x1040
#define VIRTIO_BALLOON_TRANSITIONAL 0x1002

/* Where QEMU puts the structures in BAR 4. */
#define COMMON 0x0000
#define CONFIG 0x2000
#define NOTIFY 0x3000
#define NOTIFY_STEP 4

/* struct virtio_pci_common_cfg */
#define COMMON_DRIVER_FEATURE_SELECT 0x08
#define COMMON_DRIVER_FEATURE 0x0c
#define COMMON_STATUS 0x14
#define COMMON_QUEUE_SELECT 0x16
#define COMMON_QUEUE_SIZE 0x18
#define COMMON_QUEUE_ENABLE 0x1c
#define COMMON_QUEUE_DESC 0x20
#define COMMON_QUEUE_DRIVER 0x28
#define COMMON_QUEUE_DEVICE 0x30

#define STATUS_DRIVER 3 /* and ACKNOWLEDGE */
#define STATUS_FEATURES_OK 8
#define STATUS_DRIVER_OK 4
#define F_VERSION_1 (1ULL << 32)

#define QUEUE_SIZE 32
#define RING_PAGE 4096
#define RING_DRIVER 0x400 /* in its page; the descriptors come first */
#define RING_DEVICE 0x800
#define DESC_SIZE 16
#define DESC_NEXT 1
#define DESC_WRITE 2

struct VirtioDevice {
    QtestSocket *qtest;
    guint64 bar;
    guint64 rings;
    guint queues;
    guint16 done[8]; /* requests of each queue */
};

static guint32 read_pci(QtestSocket *qtest, guint slot, guint offset)
{
    qtest_command(qtest, "outl 0x%x 0x%x", PCI_CONFIG_ADDRESS, 0x80000000U | slot << 11 | offset);
    return (guint32)qtest_command(qtest, "inl 0x%x", PCI_CONFIG_DATA);
}

static guint find_slot(QtestSocket *qtest, guint16 id)
{
    guint32 modern = (guint32)(VIRTIO_MODERN + id) << 16 | VIRTIO_VENDOR;
    guint32 transitional = VIRTIO_BALLOON_TRANSITIONAL << 16 | VIRTIO_VENDOR;

    for (guint slot = 0; slot < 32; slot++) {
        guint32 found = read_pci(qtest, slot, 0);
        if (found == modern || (id == VIRTIO_ID_BALLOON && found == transitional)) {
            return slot;
        }
    }
    g_error("the machine has no virtio device of kind %u", id);
}

static void set_common(VirtioDevice *device, const char *width, guint offset, guint64 value)
{
    qtest_command(device->qtest, "write%s 0x%" G_GINT64_MODIFIER "x 0x%" G_GINT64_MODIFIER "x",
                  width, device->bar + COMMON + offset, value);
}

static void set_features(VirtioDevice *device, guint64 features)
{
    set_common(device, "b", COMMON_STATUS, 0);
    set_common(device, "b", COMMON_STATUS, STATUS_DRIVER);
    set_common(device, "l", COMMON_DRIVER_FEATURE_SELECT, 0);
    set_common(device, "l", COMMON_DRIVER_FEATURE, features & G_MAXUINT32);
    set_common(device, "l", COMMON_DRIVER_FEATURE_SELECT, 1);
    set_common(device, "l", COMMON_DRIVER_FEATURE, features >> 32);
    set_common(device, "b", COMMON_STATUS, STATUS_DRIVER | STATUS_FEATURES_OK);
}

/* 64 bits in two halves, as the specification wants it. */
static void set_address(VirtioDevice *device, guint offset, guint64 address)
{
    set_common(device, "l", offset, address & G_MAXUINT32);
    set_common(device, "l", offset + 4, address >> 32);
}

static guint64 ring_of(VirtioDevice *device, guint queue)
{
    return device->rings + (guint64)queue * RING_PAGE;
}

VirtioDevice *virtio_device_open(QtestSocket *qtest, guint16 id, guint64 features, guint queues,
                                 guint64 rings)
{
    VirtioDevice *device = g_new0(VirtioDevice, 1);
    guint slot = find_slot(qtest, id);

    g_assert_cmpuint(queues, <=, G_N_ELEMENTS(device->done));
    device->qtest = qtest;
    device->rings = rings;
    device->queues = queues;
    device->bar = (read_pci(qtest, slot, PCI_BAR4) & ~0xfU) |
                  (guint64)read_pci(qtest, slot, PCI_BAR4 + 4) << 32;
    read_pci(qtest, slot, PCI_COMMAND); /* selects it */
    qtest_command(qtest, "outw 0x%x 0x%x", PCI_CONFIG_DATA, PCI_COMMAND_ALL);
    qtest_command(qtest, "memset 0x%" G_GINT64_MODIFIER "x 0x%x 0x0", rings,
                  (queues + 1) * RING_PAGE);
    set_features(device, features | F_VERSION_1);
    for (guint queue = 0; queue < queues; queue++) {
        set_common(device, "w", COMMON_QUEUE_SELECT, queue);
        set_common(device, "w", COMMON_QUEUE_SIZE, QUEUE_SIZE);
        set_address(device, COMMON_QUEUE_DESC, ring_of(device, queue));
        set_address(device, COMMON_QUEUE_DRIVER, ring_of(device, queue) + RING_DRIVER);
        set_address(device, COMMON_QUEUE_DEVICE, ring_of(device, queue) + RING_DEVICE);
        set_common(device, "w", COMMON_QUEUE_ENABLE, 1);
    }
    set_common(device, "b", COMMON_STATUS, STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK);
    return device;
}

void virtio_device_free(VirtioDevice *device)
{
    g_free(device);
}

guint64 virtio_device_config(VirtioDevice *device, guint offset, guint size)
{
    guint64 value = 0;

    for (guint i = 0; i < size; i++) {
        value |= qtest_command(device->qtest, "readb 0x%" G_GINT64_MODIFIER "x",
                               device->bar + CONFIG + offset + i)
                 << (8 * i);
    }
    return value;
}

guint64 virtio_device_scratch(VirtioDevice *device)
{
    return ring_of(device, device->queues);
}

static void put(VirtioDevice *device, const char *width, guint64 address, guint64 value)
{
    qtest_command(device->qtest, "write%s 0x%" G_GINT64_MODIFIER "x 0x%" G_GINT64_MODIFIER "x",
                  width, address, value);
}

void virtio_device_request(VirtioDevice *device, guint queue, const VirtioBuffer *buffers, guint n)
{
    guint64 ring = ring_of(device, queue);
    guint16 done = device->done[queue]++;
    gint64 end = g_get_monotonic_time() + (gint64)ANSWER_TIMEOUT_MS * 1000;

    g_assert_cmpuint(n, <=, QUEUE_SIZE);
    for (guint i = 0; i < n; i++) {
        guint64 desc = ring + (guint64)i * DESC_SIZE;
        guint flags = (i + 1 < n ? DESC_NEXT : 0) | (buffers[i].device_writes ? DESC_WRITE : 0);
        put(device, "q", desc, buffers[i].address);
        put(device, "l", desc + 8, buffers[i].length);
        put(device, "w", desc + 12, flags);
        put(device, "w", desc + 14, i + 1);
    }
    put(device, "w", ring + RING_DRIVER + 4 + 2 * (done % QUEUE_SIZE), 0);
    put(device, "w", ring + RING_DRIVER + 2, (guint16)(done + 1));
    put(device, "w", device->bar + NOTIFY + (guint64)queue * NOTIFY_STEP, queue);
    while (qtest_command(device->qtest, "readw 0x%" G_GINT64_MODIFIER "x",
                         ring + RING_DEVICE + 2) != (guint16)(done + 1)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
}

/* ---- The devices ---- */

#define PFN_SHIFT 12
#define PFNS_MAX 256
#define REPORT_QUEUE 3
#define REPORT_PIECE (2ULL << 20)

void balloon_inflate(VirtioDevice *device, guint64 at, guint64 length)
{
    for (guint64 done = 0; done < length;) {
        g_autoptr(GString) pfns = g_string_new("0x");
        guint n = 0;
        for (; n < PFNS_MAX && done < length; n++, done += 1 << PFN_SHIFT) {
            g_string_append_printf(pfns, "%08x",
                                   GUINT32_SWAP_LE_BE((guint32)((at + done) >> PFN_SHIFT)));
        }
        VirtioBuffer buffer = { .address = virtio_device_scratch(device), .length = 4 * n };
        qtest_command(device->qtest, "write 0x%" G_GINT64_MODIFIER "x 0x%x %s", buffer.address,
                      buffer.length, pfns->str);
        virtio_device_request(device, 0, &buffer, 1);
    }
}

void balloon_report(VirtioDevice *device, guint64 at, guint64 length)
{
    VirtioBuffer buffers[QUEUE_SIZE];
    guint n = 0;

    for (guint64 done = 0; done < length; done += REPORT_PIECE) {
        g_assert_cmpuint(n, <, QUEUE_SIZE);
        buffers[n++] = (VirtioBuffer){ .address = at + done,
                                       .length = (guint32)MIN(length - done, REPORT_PIECE),
                                       .device_writes = TRUE };
    }
    virtio_device_request(device, REPORT_QUEUE, buffers, n);
}

/* struct virtio_mem_config, struct virtio_mem_req */
#define MEM_CONFIG_BLOCK_SIZE 0
#define MEM_CONFIG_ADDRESS 16
#define MEM_REQUEST_LENGTH 24
#define MEM_RESPONSE_LENGTH 10
#define MEM_RESPONSE 64 /* behind the request, in the scratch page */

guint64 virtio_mem_address(VirtioDevice *device)
{
    return virtio_device_config(device, MEM_CONFIG_ADDRESS, 8);
}

guint virtio_mem_change(VirtioDevice *device, gboolean plug, guint64 offset, guint64 length)
{
    guint64 at = virtio_device_scratch(device);
    guint64 block_size = virtio_device_config(device, MEM_CONFIG_BLOCK_SIZE, 8);
    VirtioBuffer buffers[] = {
        { .address = at, .length = MEM_REQUEST_LENGTH },
        { .address = at + MEM_RESPONSE, .length = MEM_RESPONSE_LENGTH, .device_writes = TRUE },
    };

    put(device, "q", at, plug ? 0 : 1);
    put(device, "q", at + 8, virtio_mem_address(device) + offset);
    put(device, "q", at + 16, length / block_size);
    put(device, "w", at + MEM_RESPONSE, G_MAXUINT16);
    virtio_device_request(device, 0, buffers, G_N_ELEMENTS(buffers));
    return (guint)qtest_command(device->qtest, "readw 0x%" G_GINT64_MODIFIER "x",
                                at + MEM_RESPONSE);
}
