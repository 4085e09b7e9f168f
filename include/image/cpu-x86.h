/*
 * The registers of an x86-64 processor, out of its device section "cpu".
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "image/vmdesc.h"

/* The order of general registers in the section, which is that of x86 instructions. */
enum { X86_RAX, X86_RCX, X86_RDX, X86_RBX, X86_RSP, X86_RBP, X86_RSI, X86_RDI, X86_R8 };
/* The order of segments in the section. */
enum { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS, X86_SEGMENTS };

typedef struct X86Segment {
    guint32 selector;
    guint64 base;
    guint32 limit;
    guint32 flags; /* the descriptor's second word */
} X86Segment;

typedef struct X86Cpu {
    guint64 regs[16];
    guint64 rip;
    guint64 rflags;
    X86Segment segs[X86_SEGMENTS];
    X86Segment ldt, tr, gdt, idt;
    guint64 cr[5]; /* 1 is always 0 */
    guint64 efer;
    guint64 kernel_gs_base;
} X86Cpu;

/*
 * Reads @body, the @length bytes of a section "cpu" of version @version behind its header.
 * @description (may be NULL) tells where the fields are; without one, or where it does not describe
 * them, they are where version 12 has had them since QEMU 1.3. SF_ERROR_UNSUPPORTED where neither
 * fits: a 32-bit QEMU, another architecture.
 */
gboolean x86_cpu_read(const guint8 *body, gsize length, guint32 version, guint32 instance,
                      const VmDescription *description, X86Cpu *cpu, GError **errp);

/*
 * All processors in the device sections @data (include/migration/device-state.h), in order:
 * GArray of X86Cpu.
 */
GArray *x86_cpus_read(const guint8 *data, gsize length, const VmDescription *description,
                      GError **errp);
