/*
 * Starting the other processors: INIT and start-up messages to all of them, by the local APIC.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "smp.h"

#define APIC_BASE 0xfee00000ULL
#define APIC_COMMAND 0x300
#define APIC_INIT_ALL_OTHERS 0x000c4500
#define APIC_STARTUP_ALL_OTHERS 0x000c4600 /* and the number of the page where they begin */
#define TRAMPOLINE_ADDRESS 0x8000
#define DELAY_PORT 0x80

extern const uint8_t trampoline[], trampoline_end[];

static volatile uint64_t arrived;

void smp_arrived(void)
{
    __asm__ volatile("lock incq %0" : "+m"(arrived) : : "memory");
}

static void apic_send(uint32_t command)
{
    *(volatile uint32_t *)(APIC_BASE + APIC_COMMAND) = command;
}

static void wait_a_little(void)
{
    for (int i = 0; i < 1000; i++) {
        outb(DELAY_PORT, 0);
    }
}

void smp_start(uint64_t count)
{
    volatile uint8_t *to = (volatile uint8_t *)TRAMPOLINE_ADDRESS;

    for (const uint8_t *from = trampoline; from < trampoline_end; from++) {
        *to++ = *from;
    }
    compiler_barrier();
    apic_send(APIC_INIT_ALL_OTHERS);
    /* A processor that has not got to its INIT yet ignores the start-up: say it again. */
    while (arrived < count) {
        wait_a_little();
        apic_send(APIC_STARTUP_ALL_OTHERS | TRAMPOLINE_ADDRESS / 4096);
        for (int i = 0; i < 100 && arrived < count; i++) {
            wait_a_little();
        }
    }
}
