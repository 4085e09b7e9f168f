/*
 * The kinds of memory that a VM has.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "instant-case.h"

#define MIB (1024 * 1024ULL)
#define DIMM_ADDRESS 0x100000000ULL /* q35's first hot-plug address with little memory */

/* q35 keeps 16 MiB at the top of its memory for SMM, and SeaBIOS its tables below them. */
#define RANGES "ranges=0x1000000+0x3000000"
#define RANGES_DIMM "ranges=0x1000000+0x1000000,0x100000000+0x2000000"
#define RANGES_SPARSE "ranges=0x1000000+0x800000,0x40000000+0x800000"
#define RANGES_SPARSE_KVM "ranges=0x1000000+0x100000,0x40000000+0x100000"

const MemoryKind memory_kinds[] = {
    {
        .name = "anonymous-4k",
        .args = { "-machine", "q35", "-m", "96" },
        .map = { { 0, 96 * MIB, "pc.ram" } },
        .small_pages = TRUE,
        .on_kvm = TRUE,
    },
    {
        .name = "page-after-page",
        .extra = TRUE, /* the fault service saves ahead of such a guest */
        .args = { "-machine", "q35,memory-backend=mem0", "-m", "96", "-object",
                  "memory-backend-memfd,id=mem0,size=96M,share=on" },
        .ranges = RANGES " order=linear",
        .map = { { 0, 96 * MIB, "mem0" } },
    },
    {
        .name = "page-after-page-private",
        .extra = TRUE,
        .args = { "-machine", "q35", "-m", "96" },
        .ranges = RANGES " order=linear",
        .map = { { 0, 96 * MIB, "pc.ram" } },
        .small_pages = TRUE,
    },
    {
        .name = "transparent-huge",
        .args = { "-machine", "q35", "-m", "96" },
        .map = { { 0, 96 * MIB, "pc.ram" } },
        .on_kvm = TRUE,
    },
    {
        .name = "memfd-shared",
        .args = { "-machine", "q35,memory-backend=mem0", "-m", "96", "-object",
                  "memory-backend-memfd,id=mem0,size=96M,share=on" },
        .map = { { 0, 96 * MIB, "mem0" } },
        .on_kvm = TRUE,
    },
    {
        .name = "memfd-private",
        .args = { "-machine", "q35,memory-backend=mem0", "-m", "96", "-object",
                  "memory-backend-memfd,id=mem0,size=96M,share=off" },
        .map = { { 0, 96 * MIB, "mem0" } },
    },
    {
        .name = "hugetlb-shared",
        .args = { "-machine", "q35,memory-backend=mem0", "-m", "96", "-object",
                  "memory-backend-memfd,id=mem0,size=96M,share=on,hugetlb=on,hugetlbsize=2M" },
        .map = { { 0, 96 * MIB, "mem0" } },
        .hugepages_mib = 192, /* the one that is restored may overlap */
        .on_kvm = TRUE,
    },
    {
        .name = "hugetlb-private",
        .args = { "-machine", "q35,memory-backend=mem0", "-m", "96", "-object",
                  "memory-backend-memfd,id=mem0,size=96M,share=off,hugetlb=on,hugetlbsize=2M" },
        .map = { { 0, 96 * MIB, "mem0" } },
        .hugepages_mib = 192,
    },
    {
        .name = "two-numa-nodes",
        .args = { "-machine", "q35", "-m", "96", "-object",
                  "memory-backend-memfd,id=mem0,size=48M,share=on", "-object",
                  "memory-backend-ram,id=mem1,size=48M", "-numa", "node,memdev=mem0", "-numa",
                  "node,memdev=mem1" },
        .map = { { 0, 48 * MIB, "mem0" }, { 48 * MIB, 48 * MIB, "mem1" } },
    },
    {
        .name = "hot-plugged-dimm",
        .extra = TRUE,
        .args = { "-machine", "q35", "-m", "64,slots=2,maxmem=1G" },
        .ranges = RANGES_DIMM,
        .map = { { 0, 64 * MIB, "pc.ram" }, { DIMM_ADDRESS, 128 * MIB, "dimm0-mem" } },
        .dimm = "memory-backend-ram,id=dimm0-mem,size=128M",
    },
    {
        .name = "sparse",
        .args = { "-machine", "q35,memory-backend=mem0", "-m", "1536", "-object",
                  "memory-backend-ram,id=mem0,size=1536M" },
        .ranges = RANGES_SPARSE,
        .ranges_kvm = RANGES_SPARSE_KVM,
        .map = { { 0, 1536 * MIB, "mem0" } },
        .small_pages = TRUE,
    },
};

const guint memory_kinds_count = G_N_ELEMENTS(memory_kinds);

const MemoryKind *memory_kind_find(const char *name)
{
    for (guint i = 0; i < memory_kinds_count; i++) {
        if (g_str_equal(memory_kinds[i].name, name)) {
            return &memory_kinds[i];
        }
    }
    g_error("no kind of memory is called %s", name);
}
