/*
 * The ELF core. In the file: header, program headers, notes, then RAM in the order of its
 * addresses, from a page boundary on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <elf.h>
#include <string.h>

#include "image/cpu-x86.h"
#include "image/elf-core.h"
#include "image/page-walk-x86.h"
#include "image/raw-memory.h"

#define PAGE 4096ULL
/* e_phnum has 16 bits, and its last value means that it stands elsewhere. */
#define SEGMENTS_MAX 60000U
#define REGISTERS 27 /* of struct user_regs_struct */
#define QEMU_NOTE_VERSION 1

/* The layout of struct elf_prstatus, x86-64 Linux: what a debugger reads of NT_PRSTATUS. */
typedef struct PrStatus {
    guint32 signal[3];
    guint16 current_signal;
    guint16 pad;
    guint64 pending[2];
    guint32 pid, parent, group, session;
    guint64 times[8];
    guint64 registers[REGISTERS];
    guint32 has_floats;
    guint32 pad2;
} PrStatus;
G_STATIC_ASSERT(sizeof(PrStatus) == 336);

/* What QEMU puts into its notes, and crash reads: 24 bytes a segment, all little-endian. */
typedef struct QemuSegment {
    guint32 selector;
    guint32 limit;
    guint32 flags;
    guint32 pad;
    guint64 base;
} QemuSegment;

typedef struct QemuCpuState {
    guint32 version;
    guint32 size;
    guint64 rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp;
    guint64 r8_to_r15[8];
    guint64 rip, rflags;
    QemuSegment cs, ds, es, fs, gs, ss;
    QemuSegment ldt, tr, gdt, idt;
    guint64 cr[5];
    guint64 kernel_gs_base;
} QemuCpuState;
G_STATIC_ASSERT(sizeof(QemuCpuState) == 440);

typedef struct Core {
    const GuestPages *pages;
    GArray *ranges;
    GArray *cpus;
    GArray *virtual;
    GByteArray *notes;
    guint64 ram_at; /* position of the first byte of RAM in the file */
} Core;

static void core_clear(Core *core)
{
    g_clear_pointer(&core->ranges, g_array_unref);
    g_clear_pointer(&core->cpus, g_array_unref);
    g_clear_pointer(&core->virtual, g_array_unref);
    g_clear_pointer(&core->notes, g_byte_array_unref);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Core, core_clear)

/* ---- Notes ---- */

static void put_note(GByteArray *out, const char *name, guint32 type, const void *data,
                     guint length)
{
    static const guint8 zeros[4];
    guint name_size = (guint)strlen(name) + 1;
    const Elf64_Nhdr header = { name_size, length, type };

    g_byte_array_append(out, (const guint8 *)&header, sizeof(header));
    g_byte_array_append(out, (const guint8 *)name, name_size);
    g_byte_array_append(out, zeros, -name_size % 4);
    g_byte_array_append(out, data, length);
    g_byte_array_append(out, zeros, -length % 4);
}

/* The order of struct user_regs_struct. */
static void put_prstatus(GByteArray *out, const X86Cpu *cpu, guint number)
{
    const guint64 *r = cpu->regs;
    const X86Segment *s = cpu->segs;
    const guint64 registers[REGISTERS] = {
        r[15],
        r[14],
        r[13],
        r[12],
        r[X86_RBP],
        r[X86_RBX],
        r[11],
        r[10],
        r[9],
        r[8],
        r[X86_RAX],
        r[X86_RCX],
        r[X86_RDX],
        r[X86_RSI],
        r[X86_RDI],
        G_MAXUINT64,
        cpu->rip,
        s[X86_CS].selector,
        cpu->rflags,
        r[X86_RSP],
        s[X86_SS].selector,
        s[X86_FS].base,
        s[X86_GS].base,
        s[X86_DS].selector,
        s[X86_ES].selector,
        s[X86_FS].selector,
        s[X86_GS].selector,
    };
    PrStatus status = { .pid = number + 1 };

    memcpy(status.registers, registers, sizeof(registers));
    put_note(out, "CORE", NT_PRSTATUS, &status, sizeof(status));
}

static QemuSegment note_segment(const X86Segment *segment)
{
    return (QemuSegment){ segment->selector, segment->limit, segment->flags, 0, segment->base };
}

static void put_qemu_note(GByteArray *out, const X86Cpu *cpu)
{
    const guint64 *r = cpu->regs;
    const X86Segment *s = cpu->segs;
    QemuCpuState state = {
        .version = QEMU_NOTE_VERSION,
        .size = sizeof(state),
        .rax = r[X86_RAX],
        .rbx = r[X86_RBX],
        .rcx = r[X86_RCX],
        .rdx = r[X86_RDX],
        .rsi = r[X86_RSI],
        .rdi = r[X86_RDI],
        .rsp = r[X86_RSP],
        .rbp = r[X86_RBP],
        .rip = cpu->rip,
        .rflags = cpu->rflags,
        .cs = note_segment(&s[X86_CS]),
        .ds = note_segment(&s[X86_DS]),
        .es = note_segment(&s[X86_ES]),
        .fs = note_segment(&s[X86_FS]),
        .gs = note_segment(&s[X86_GS]),
        .ss = note_segment(&s[X86_SS]),
        .ldt = note_segment(&cpu->ldt),
        .tr = note_segment(&cpu->tr),
        .gdt = note_segment(&cpu->gdt),
        .idt = note_segment(&cpu->idt),
        .kernel_gs_base = cpu->kernel_gs_base,
    };

    memcpy(state.r8_to_r15, r + X86_R8, sizeof(state.r8_to_r15));
    memcpy(state.cr, cpu->cr, sizeof(state.cr));
    put_note(out, "QEMU", 0, &state, sizeof(state));
}

static GByteArray *make_notes(const GArray *cpus)
{
    GByteArray *notes = g_byte_array_new();

    for (guint i = 0; i < cpus->len; i++) {
        put_prstatus(notes, &g_array_index(cpus, X86Cpu, i), i);
    }
    for (guint i = 0; i < cpus->len; i++) {
        put_qemu_note(notes, &g_array_index(cpus, X86Cpu, i));
    }
    return notes;
}

/* ---- Headers ---- */

/* The position in the file of guest-physical @address, which is RAM. */
static guint64 file_position(const Core *core, guint64 address)
{
    guint64 at = core->ram_at;

    for (guint i = 0; i < core->ranges->len; i++) {
        const GuestRange *range = &g_array_index(core->ranges, GuestRange, i);
        if (address >= range->address && address - range->address < range->length) {
            return at + (address - range->address);
        }
        at += range->length;
    }
    g_assert_not_reached();
}

static void put_load(GByteArray *out, const Core *core, guint64 virtual, guint64 physical,
                     guint64 length)
{
    const Elf64_Phdr header = {
        .p_type = PT_LOAD,
        .p_flags = PF_R | PF_W | PF_X,
        .p_offset = file_position(core, physical),
        .p_vaddr = virtual,
        .p_paddr = physical,
        .p_filesz = length,
        .p_memsz = length,
        .p_align = 0,
    };

    g_byte_array_append(out, (const guint8 *)&header, sizeof(header));
}

static GByteArray *make_headers(Core *core)
{
    GByteArray *out = g_byte_array_new();
    guint count = 1 + core->ranges->len + core->virtual->len;
    guint64 notes_at = sizeof(Elf64_Ehdr) + count * sizeof(Elf64_Phdr);
    const Elf64_Ehdr header = {
        .e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
        .e_type = ET_CORE,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_phoff = sizeof(Elf64_Ehdr),
        .e_ehsize = sizeof(Elf64_Ehdr),
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = (guint16)count,
    };
    const Elf64_Phdr notes = { .p_type = PT_NOTE,
                               .p_offset = notes_at,
                               .p_filesz = core->notes->len,
                               .p_memsz = core->notes->len };

    core->ram_at = (notes_at + core->notes->len + PAGE - 1) & ~(PAGE - 1);
    g_byte_array_append(out, (const guint8 *)&header, sizeof(header));
    g_byte_array_append(out, (const guint8 *)&notes, sizeof(notes));
    for (guint i = 0; i < core->ranges->len; i++) {
        const GuestRange *range = &g_array_index(core->ranges, GuestRange, i);
        put_load(out, core, range->address, range->address, range->length);
    }
    for (guint i = 0; i < core->virtual->len; i++) {
        const VirtualRange *range = &g_array_index(core->virtual, VirtualRange, i);
        put_load(out, core, range->address, range->physical, range->length);
    }
    return g_byte_array_append(out, core->notes->data, core->notes->len);
}

/* A mapping of a large page may go over two ranges of RAM that are not neighbours in the file. */
static gboolean prepare(Core *core, const ImageHead *head, const guint8 *devices, gsize length,
                        const VmDescription *description, GError **errp)
{
    core->ranges = guest_layout_x86(head, devices, length, errp);
    core->cpus = core->ranges ? x86_cpus_read(devices, length, description, errp) : NULL;
    if (!core->cpus) {
        return FALSE;
    }
    core->virtual = x86_walk_pages(core->pages, core->ranges, core->cpus, SEGMENTS_MAX);
    core->notes = make_notes(core->cpus);
    return TRUE;
}

gboolean elf_core_write(const GuestPages *pages, const ImageHead *head, const guint8 *devices,
                        gsize length, const VmDescription *description, SparseOutput *output,
                        const ImageProgress *progress, GError **errp)
{
    g_auto(Core) core = { .pages = pages };

    if (!prepare(&core, head, devices, length, description, errp)) {
        return FALSE;
    }
    g_autoptr(GByteArray) headers = make_headers(&core);
    return sparse_output_write(output, headers->data, headers->len, errp) &&
           sparse_output_skip(output, core.ram_at - headers->len, errp) &&
           guest_ranges_write(pages, core.ranges, output, progress, errp);
}
