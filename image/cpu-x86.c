/*
 * x86-64 processors out of device state.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "image/cpu-x86.h"
#include "migration/device-state.h"

#define CPU_SECTION "cpu"
#define CPU_VERSION 12U
/* Selector u32, base u64, limit u32, flags u32. */
#define SEGMENT_BYTES 20
/* A section of a 32-bit QEMU has 4 bytes where this one has 8, and is shorter. */
#define BODY_MIN 1817

/* Where version 12 has the field, and where it goes in an X86Cpu. */
typedef struct Field {
    const char *name;
    gsize offset;
    gsize size;
    gsize count;
    gsize to;
} Field;

#define WORDS(name, offset, count, member)                                                         \
    {                                                                                              \
        name, offset, 8, count, offsetof(X86Cpu, member)                                           \
    }
#define SEGMENTS(name, offset, count, member)                                                      \
    {                                                                                              \
        name, offset, SEGMENT_BYTES, count, offsetof(X86Cpu, member)                               \
    }

static const Field fields[] = {
    WORDS("env.regs", 0, 16, regs),      WORDS("env.eip", 128, 1, rip),
    WORDS("env.eflags", 136, 1, rflags), SEGMENTS("env.segs", 236, X86_SEGMENTS, segs),
    SEGMENTS("env.ldt", 356, 1, ldt),    SEGMENTS("env.tr", 376, 1, tr),
    SEGMENTS("env.gdt", 396, 1, gdt),    SEGMENTS("env.idt", 416, 1, idt),
    WORDS("env.cr[0]", 456, 1, cr[0]),   WORDS("env.cr[2]", 464, 1, cr[2]),
    WORDS("env.cr[3]", 472, 1, cr[3]),   WORDS("env.cr[4]", 480, 1, cr[4]),
    WORDS("env.efer", 816, 1, efer),     WORDS("env.kernelgsbase", 856, 1, kernel_gs_base),
};

static guint32 read_u32(const guint8 *at)
{
    guint32 value;

    memcpy(&value, at, sizeof(value));
    return GUINT32_FROM_BE(value);
}

static guint64 read_u64(const guint8 *at)
{
    return (guint64)read_u32(at) << 32 | read_u32(at + 4);
}

static void read_element(const guint8 *at, gsize size, void *to)
{
    if (size == SEGMENT_BYTES) {
        *(X86Segment *)to = (X86Segment){ .selector = read_u32(at),
                                          .base = read_u64(at + 4),
                                          .limit = read_u32(at + 12),
                                          .flags = read_u32(at + 16) };
    } else {
        *(guint64 *)to = read_u64(at);
    }
}

/* FALSE where the field has another form than ours. */
static gboolean find_place(const Field *field, guint32 instance, const VmDescription *description,
                           gsize *offset)
{
    VmField found;

    *offset = field->offset;
    if (!description || !vm_description_count(description)) {
        return TRUE;
    }
    if (!vm_description_find(description, CPU_SECTION, instance, field->name, &found)) {
        return FALSE;
    }
    *offset = found.offset;
    return found.size == field->size && found.count == field->count;
}

gboolean x86_cpu_read(const guint8 *body, gsize length, guint32 version, guint32 instance,
                      const VmDescription *description, X86Cpu *cpu, GError **errp)
{
    gboolean good = version == CPU_VERSION && length >= BODY_MIN;

    *cpu = (X86Cpu){ 0 };
    for (guint i = 0; i < G_N_ELEMENTS(fields) && good; i++) {
        const Field *field = &fields[i];
        gsize step = field->size == SEGMENT_BYTES ? sizeof(X86Segment) : sizeof(guint64);
        gsize at;
        good = find_place(field, instance, description, &at) && at <= length &&
               field->size * field->count <= length - at;
        for (gsize n = 0; n < field->count && good; n++) {
            read_element(body + at + n * field->size, field->size,
                         (guint8 *)cpu + field->to + n * step);
        }
    }
    if (!good) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "the registers of processor %u cannot be read: its section is not that of an "
                    "x86-64 processor of QEMU",
                    instance);
    }
    return good;
}

GArray *x86_cpus_read(const guint8 *data, gsize length, const VmDescription *description,
                      GError **errp)
{
    g_autoptr(GPtrArray) sections = device_state_list(data, length, errp);
    g_autoptr(GArray) cpus = g_array_new(FALSE, TRUE, sizeof(X86Cpu));

    for (guint i = 0; sections && i < sections->len; i++) {
        const DeviceSection *section = g_ptr_array_index(sections, i);
        gsize header = device_section_header_length(section);
        X86Cpu cpu;
        if (strcmp(section->name, CPU_SECTION) != 0) {
            continue;
        }
        if (!x86_cpu_read(data + section->offset + header, device_section_body_length(section),
                          section->version_id, section->instance_id, description, &cpu, errp)) {
            return NULL;
        }
        g_array_append_val(cpus, cpu);
    }
    if (sections && !cpus->len) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "the image has no processor of a kind that is known");
        return NULL;
    }
    return sections ? g_steal_pointer(&cpus) : NULL;
}
