/*
 * The way from QEMU's -kernel (PVH: 32-bit protected mode, no paging, EBX = start info) to long mode
 * with the first 64 GiB mapped one to one by 2 MiB pages; and the way there of the other
 * processors, which begin in real mode in a copy of the trampoline (smp.c). Interrupts stay off for
 * ever.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define NOTE_PHYS32_ENTRY 18
#define DIRECTORIES 64 /* 1 GiB each: GUEST_MAX_ADDRESS in layout.h */

#define PAGE_PRESENT_WRITABLE 0x003
#define PAGE_LARGE 0x080
#define CR0_PAGING 0x80000000
#define CR4_PAE 0x20
#define MSR_EFER 0xc0000080
#define EFER_LONG_MODE 0x100
#define CODE64 0x08
#define DATA 0x10
#define CODE32 0x18
#define CR0_PROTECTED 0x1
#define STACK_SIZE 4096

    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, NOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad entry

    .section .text.entry, "ax"
    .code32
    .globl entry
entry:
    cld
    movl $stack_top, %esp

    /* Level 4: one entry. Level 3: one entry for each directory. */
    movl $(level3 + PAGE_PRESENT_WRITABLE), level4
    movl $(level2 + PAGE_PRESENT_WRITABLE), %eax
    movl $level3, %edi
    movl $DIRECTORIES, %ecx
1:  movl %eax, (%edi)
    addl $4096, %eax
    addl $8, %edi
    loop 1b

    /* Level 2: 2 MiB pages; the address is EDX:EAX. */
    movl $level2, %edi
    movl $(DIRECTORIES * 512), %ecx
    movl $(PAGE_LARGE + PAGE_PRESENT_WRITABLE), %eax
    xorl %edx, %edx
2:  movl %eax, (%edi)
    movl %edx, 4(%edi)
    addl $0x200000, %eax
    adcl $0, %edx
    addl $8, %edi
    loop 2b

    xorl %ebp, %ebp
    call to_long_mode_32
    lgdt gdt_pointer
    ljmp $CODE64, $start64

/* Page tables and paging on; what runs then is 32-bit code still. */
to_long_mode_32:
    movl %cr4, %eax
    orl $CR4_PAE, %eax
    movl %eax, %cr4
    movl $level4, %eax
    movl %eax, %cr3
    movl $MSR_EFER, %ecx
    rdmsr
    orl $EFER_LONG_MODE, %eax
    wrmsr
    movl %cr0, %eax
    orl $CR0_PAGING, %eax
    movl %eax, %cr0
    ret

/* Another processor, out of the trampoline: a number and a stack of its own. */
secondary32:
    movl $DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $1, %ebp
    lock xaddl %ebp, next_secondary
    movl %ebp, %eax
    imull $STACK_SIZE, %eax
    leal secondary_stacks(%eax), %esp
    call to_long_mode_32
    ljmp $CODE64, $start64

    .code64
start64:
    movl $DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    testl %ebp, %ebp
    jnz 4f
    movl %ebx, %edi
    call guest_main
3:  hlt
    jmp 3b
4:  movl %ebp, %edi
    call guest_secondary
    jmp 3b

/* Copied to a page below 1 MiB; CS is that page. */
    .section .rodata
    .code16
    .globl trampoline, trampoline_end
trampoline:
    cli
    cld
    lgdtl %cs:(trampoline_gdt_pointer - trampoline)
    movl %cr0, %eax
    orl $CR0_PROTECTED, %eax
    movl %eax, %cr0
    ljmpl $CODE32, $secondary32
    .balign 4
trampoline_gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
trampoline_end:

    .section .data
    .balign 4
next_secondary:
    .long 1

    .section .rodata
    .balign 8
gdt:
    .quad 0
    .quad 0x00af9a000000ffff
    .quad 0x00cf92000000ffff
    .quad 0x00cf9a000000ffff
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt

    .section .bss
    .balign 4096
level4:
    .skip 4096
level3:
    .skip 4096
level2:
    .skip 4096 * DIRECTORIES
    .skip STACK_SIZE
stack_top:
/* The first processor to come has number 1 and the stack that ends one STACK_SIZE behind this. */
secondary_stacks:
    .skip STACK_SIZE * 8

    .section .note.GNU-stack, "", @progbits
