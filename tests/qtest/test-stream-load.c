/*
 * Our stream against QEMU's: QEMU loads what we compose, and we read what QEMU writes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "migration/device-capture.h"
#include "migration/device-state.h"
#include "migration/image-reader.h"
#include "monitor/machine.h"
#include "vm.h"

#define PAGE 4096
#define RAM_BYTES (16ULL * 1024 * 1024)
/* Where the PC has holes and firmware in its first MiB. */
#define HOLE_START 0xa0000ULL
#define HOLE_END 0x100000ULL

static void check(gboolean good, GError *error)
{
    g_assert_no_error(error);
    g_assert_true(good);
}

/* ---- QEMU loads what we compose ---- */

/* A third of the pages is zero, the rest tells its address. */
static gboolean page_is_zero(guint64 offset)
{
    return offset / PAGE % 3 == 0;
}

static void fill_page(guint64 *words, guint64 offset)
{
    for (guint i = 0; i < PAGE / sizeof(*words); i++) {
        words[i] = page_is_zero(offset) ? 0 : (offset | i) * 0x9e3779b97f4a7c15ULL;
    }
}

static void compose(const char *path, const DeviceCapture *devices, const char *machine_type)
{
    g_autoptr(ImageHead) head = image_head_new();
    Destination destination = { .kind = DEST_FILE, .path = (char *)path };
    g_autofree guint8 *memory = g_malloc(RAM_BYTES);
    GError *error = NULL;
    g_autoptr(Channel) channel = channel_open_output(&destination, FALSE, &error);

    g_assert_no_error(error);
    head->machine_type = g_strdup(machine_type);
    image_head_add_block(head, "pc.ram", RAM_BYTES);
    g_autoptr(ImageWriter) writer = stream_writer_new(channel);
    check(writer->begin(writer, head, &error), error);
    /* From the end to the beginning: the order is free. */
    for (guint64 offset = RAM_BYTES; offset > 0;) {
        offset -= PAGE;
        fill_page((guint64 *)(memory + offset), offset);
        if (page_is_zero(offset)) {
            check(writer->zero(writer, 0, offset, PAGE, &error), error);
        } else {
            check(writer->page(writer, 0, offset, memory + offset, PAGE, &error), error);
        }
    }
    check(writer->flush(writer, &error), error);
    check(writer->device_state(writer, devices->data, devices->length, &error), error);
    check(writer->finish(writer, &error), error);
    check(channel_commit(channel, &error), error);
}

static void assert_memory(TestVm *vm)
{
    guint64 expected[PAGE / sizeof(guint64)];
    guint64 found[PAGE / sizeof(guint64)];

    for (guint64 offset = 0; offset < RAM_BYTES; offset += PAGE) {
        if (offset == HOLE_START) {
            offset = HOLE_END;
        }
        fill_page(expected, offset);
        test_vm_read_memory(vm, offset, found, PAGE);
        g_assert_cmpmem(found, PAGE, expected, PAGE);
    }
}

static void capture_devices(TestVm *vm, DeviceCapture *capture, const char *run_state)
{
    GError *error = NULL;

    *capture = (DeviceCapture){ .memfd = -1, .fdset = -1 };
    check(device_capture_prepare(capture, test_vm_get_qmp(vm), FALSE, &error), error);
    check(device_capture_save(capture, test_vm_get_qmp(vm), &error), error);
    check(device_capture_read(capture, run_state, &error), error);
}

static void test_composed(void)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");
    g_autofree char *uri = g_strdup_printf("exec:cat '%s'", path);
    static const char *const args[] = { "-M", "pc", "-m", "16", NULL };
    DeviceCapture devices;
    g_autoptr(GError) error = NULL;

    g_autoptr(TestVm) source = test_vm_start(TEST_VM_DEFAULT, "-M", "pc", "-m", "16", "-S", NULL);
    g_autofree char *type = machine_query_type(test_vm_get_qmp(source), &error);
    g_assert_no_error(error);
    capture_devices(source, &devices, "paused");
    compose(path, &devices, type);
    device_capture_clear(&devices, test_vm_get_qmp(source));

    g_autoptr(TestVm) vm = test_vm_new(TEST_VM_DEFAULT, args);
    test_vm_launch_incoming(vm, uri);
    test_vm_assert_status(vm, "paused");
    assert_memory(vm);
    g_autofree char *said = test_vm_read_stderr(vm);
    g_assert_cmpstr(said, ==, "");
}

/* ---- we read what QEMU writes ---- */

typedef struct MachineKind {
    const char *name;
    const char *args[16];
} MachineKind;

static const MachineKind machines[] = {
    { "q35",
      { "-M", "q35", "-m", "32", "-smp", "2", "-device", "virtio-net-pci", "-device",
        "virtio-balloon-pci", "-vga", "std" } },
    { "pc",
      { "-M", "pc", "-m", "32", "-device", "virtio-rng-pci", "-device", "piix3-usb-uhci", "-device",
        "usb-tablet" } },
    { "microvm", { "-M", "microvm", "-m", "32", "-device", "virtio-rng-device" } },
};

/* QEMU migrates into a file; it ends in "postmigrate" and is of no more use. */
static void migrate_to(TestVm *vm, const char *path)
{
    const char *status = "";

    test_vm_qmp_void(vm, "migrate", "{'uri': 'exec:cat > %s'}", path);
    while (strcmp(status, "completed") != 0) {
        g_autoptr(JsonNode) info = test_vm_qmp(vm, "query-migrate", NULL);
        status = json_object_get_string_member_with_default(json_node_get_object(info), "status",
                                                            "none");
        g_assert_cmpstr(status, !=, "failed");
        status = g_intern_string(status);
        g_usleep(5000);
    }
}

typedef struct Count {
    const ImageHead *head;
    GHashTable *seen; /* block index and page, in one number */
    guint64 again;
} Count;

static gboolean count_pages(guint block, guint64 offset, const void *data, guint64 length,
                            gpointer user, GError **errp)
{
    Count *count = user;

    for (guint64 at = offset; at < offset + length; at += PAGE) {
        guint64 key = (guint64)block << 48 | at / PAGE;
        count->again += !g_hash_table_add(count->seen, GSIZE_TO_POINTER(key));
    }
    return TRUE;
}

/* Reads the pages: every page of every block is there. Returns how many came more than once. */
static guint64 assert_all_pages(ImageReader *reader)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    Count count = { image_reader_get_head(reader), seen, 0 };
    guint64 total = 0;
    GError *error = NULL;

    check(image_reader_foreach_page(reader, count_pages, &count, &error), error);
    for (guint i = 0; i < count.head->blocks->len; i++) {
        total += ((const ImageBlock *)g_ptr_array_index(count.head->blocks, i))->used_length;
    }
    g_assert_cmpuint(g_hash_table_size(seen), ==, total / PAGE);
    return count.again;
}

/* QEMU's own description of the stream, which stands at its end. */
static JsonNode *read_description(const char *path, const ImageLayout *layout)
{
    g_autofree char *content = NULL;
    gsize size;
    g_autoptr(GError) error = NULL;

    g_assert_true(g_file_get_contents(path, &content, &size, NULL));
    g_assert_cmpuint(layout->end, ==, size);
    g_autofree char *text = g_strndup(content + layout->eof + 6, layout->end - layout->eof - 6);
    JsonNode *node = json_from_string(text, &error);
    g_assert_no_error(error);
    return node;
}

static void assert_same_section(const DeviceSection *found, const char *name, gint64 instance,
                                gint64 version)
{
    g_assert_cmpstr(found->name, ==, name);
    g_assert_cmpint(found->instance_id, ==, instance);
    g_assert_cmpint(found->version_id, ==, version);
}

static void assert_described(GPtrArray *sections, JsonNode *description)
{
    JsonArray *devices = json_object_get_array_member(json_node_get_object(description), "devices");

    g_assert_cmpuint(sections->len, ==, json_array_get_length(devices));
    for (guint i = 0; i < sections->len; i++) {
        JsonObject *device = json_array_get_object_element(devices, i);
        assert_same_section(g_ptr_array_index(sections, i),
                            json_object_get_string_member(device, "name"),
                            json_object_get_int_member(device, "instance_id"),
                            json_object_get_int_member(device, "version"));
    }
}

static void assert_same_sections(GPtrArray *a, GPtrArray *b)
{
    g_assert_cmpuint(a->len, ==, b->len);
    for (guint i = 0; i < a->len; i++) {
        const DeviceSection *other = g_ptr_array_index(b, i);
        assert_same_section(g_ptr_array_index(a, i), other->name, other->instance_id,
                            other->version_id);
    }
}

static void test_read(gconstpointer user)
{
    const MachineKind *machine = user;
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");
    g_autoptr(TestVm) vm = test_vm_new(TEST_VM_DEFAULT, machine->args);
    DeviceCapture capture;
    GError *error = NULL;
    const guint8 *data;
    gsize length;

    test_vm_launch(vm);
    test_vm_qmp_void(vm, "stop", NULL);
    capture_devices(vm, &capture, NULL);
    g_autoptr(GPtrArray) captured = device_state_list(capture.data, capture.length, &error);
    g_assert_no_error(error);
    g_autofree char *state = device_state_get_run_state(capture.data, capture.length);
    g_assert_cmpstr(state, ==, "running"); /* what QEMU notes there, whatever the VM does */
    device_capture_clear(&capture, test_vm_get_qmp(vm));
    g_autofree char *type = machine_query_type(test_vm_get_qmp(vm), &error);
    migrate_to(vm, path);

    g_autoptr(ImageReader) reader = image_reader_open(path, 0, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(image_reader_get_head(reader)->machine_type, ==, type);
    g_assert_cmpuint(assert_all_pages(reader), ==, 0);
    check(image_reader_get_device_state(reader, &data, &length, &error), error);
    g_autoptr(GPtrArray) sections = device_state_list(data, length, &error);
    g_assert_no_error(error);
    g_autoptr(JsonNode) description = read_description(path, image_reader_get_layout(reader));
    assert_described(sections, description);
    assert_same_sections(sections, captured);
    g_autofree char *migrated = device_state_get_run_state(data, length);
    g_assert_cmpstr(migrated, ==, "paused");
}

/* QEMU's background snapshots have no end of the RAM section (up to 11.1 at least). */
static void test_read_background(void)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");
    g_autoptr(TestVm) vm = test_vm_start(TEST_VM_DEFAULT, "-M", "pc", "-m", "32", NULL);
    g_autoptr(JsonNode) arguments = json_from_string(
        "{\"capabilities\": [{\"capability\": \"background-snapshot\", \"state\": true}]}", NULL);
    GError *error = NULL;
    g_autoptr(JsonNode) answer = qmp_client_execute(test_vm_get_qmp(vm), "migrate-set-capabilities",
                                                    json_node_dup_object(arguments), &error);

    if (!answer) {
        g_test_skip(error->message);
        g_clear_error(&error);
        return;
    }
    migrate_to(vm, path);
    g_autoptr(ImageReader) reader = image_reader_open(path, 0, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(assert_all_pages(reader), ==, 0);
    test_vm_assert_status(vm, "running");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/stream-load/composed", test_composed);
    for (guint i = 0; i < G_N_ELEMENTS(machines); i++) {
        g_autofree char *path = g_strdup_printf("/stream-load/read/%s", machines[i].name);
        g_test_add_data_func(path, &machines[i], test_read);
    }
    g_test_add_func("/stream-load/read/background-snapshot", test_read_background);
    return g_test_run();
}
