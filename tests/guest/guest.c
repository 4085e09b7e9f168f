/*
 * A bare-metal guest whose memory can be judged: see layout.h. It writes as fast as it can, and
 * checks each page before it writes it again.
 *
 * Command line (-append): ranges=START+LENGTH[,START+LENGTH...] in bytes, the pages to write
 * (firmware leaves its tables near the top of low memory and below 1 MiB: choose others);
 * cpus=N, so many vCPUs write, by turns in the ranges (-smp N); disk=START+LENGTH, a
 * virtio-blk-pci is read into there; net=START+LENGTH, what the second of two virtio-net-pci sends
 * is received there by the first (all legacy: disable-legacy=off); spin=N, so many PAUSE
 * instructions between two numbers; rounds=N, then halt; every=N, a letter every N rounds;
 * order=linear, page after page instead of scattered.
 *
 * Serial port: "A" when it begins, "V" after each round of the first vCPU (from the second on every
 * page of it was checked), "C" when all memory was checked because a key was pressed, "H" when it
 * halts, "X" with what is wrong, and a halt.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "dma.h"
#include "smp.h"
#include "writer.h"

/* The start info of the x86/HVM direct boot ABI ("PVH"), as far as it is needed. */
struct start_info {
    uint32_t magic;
    uint32_t version;
    uint32_t flags;
    uint32_t module_count;
    uint64_t module_list;
    uint64_t command_line;
};

static struct options options;

__attribute__((noreturn)) void guest_main(const struct start_info *info);

__attribute__((noreturn)) void guest_secondary(uint64_t cpu)
{
    smp_arrived();
    if (cpu >= options.cpus) {
        halt();
    }
    writer_run(&options, cpu);
}

__attribute__((noreturn)) void guest_main(const struct start_info *info)
{
    put_char('A');
    options_parse(&options, (const char *)info->command_line);
    /* The first one's state page last: it says that all is set up. */
    for (uint64_t cpu = options.cpus; cpu-- > 0;) {
        writer_prepare(&options, cpu);
    }
    dma_start(&options);
    if (options.cpus > 1) {
        smp_start(options.cpus - 1);
    }
    writer_run(&options, 0);
}
