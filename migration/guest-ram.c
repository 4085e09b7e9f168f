/*
 * The RAM blocks of a snapshot and the state of their pages.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "guest-ram.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "guest-read.h"
#include "util/autofd.h"

#define THP_SIZE (2ULL << 20)

static void guest_block_free(gpointer data)
{
    GuestBlock *block = data;
    sf_clear_fd(&block->file);
    g_free(block->name);
    g_free((gpointer)block->state);
    g_free((gpointer)block->touched);
    g_free((gpointer)block->given_back);
    g_free((gpointer)block->heat);
    g_free((gpointer)block->region_saved_ns);
    g_free(block->region_tracked);
    g_free(block->present);
    if (block->witness) {
        munmap(block->witness, block->pages * block->page_size);
    }
    g_free(block);
}

/*
 * Blocks that nothing writes to once the machine is built. The loader leaves blocks that a stream
 * does not name alone, and their content comes from the same files at the destination.
 */
static gboolean may_be_left_out(const RamBlock *block)
{
    return block->read_only || g_str_has_suffix(block->name, ".rom") ||
           g_str_has_suffix(block->name, ".bios");
}

/* Opens the file behind a mapping, for reading, by the mapping or by one of QEMU's descriptors. */
static int open_mapped_file(pid_t pid, const ProcMapping *mapping)
{
    g_autofree char *by_map =
        g_strdup_printf("/proc/%d/map_files/%" G_GINT64_MODIFIER "x-%" G_GINT64_MODIFIER "x",
                        (int)pid, mapping->start, mapping->end);
    int fd = open(by_map, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        return fd;
    }

    g_autofree char *folder = g_strdup_printf("/proc/%d/fd", (int)pid);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *entry;
    while (dir && (entry = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, entry, NULL);
        struct stat st;
        if (stat(path, &st) == 0 && st.st_ino == mapping->inode &&
            major(st.st_dev) == mapping->dev_major && minor(st.st_dev) == mapping->dev_minor) {
            return open(path, O_RDONLY | O_CLOEXEC);
        }
    }
    errno = ENOENT;
    return -1;
}

/* A block may lie in several mappings side by side: a NUMA policy or madvise() splits them. */
static gboolean is_mapped(GPtrArray *maps, guint64 address, guint64 length)
{
    guint64 end = address + length;
    while (address < end) {
        const ProcMapping *mapping = proc_maps_find(maps, address);
        if (!mapping) {
            return FALSE;
        }
        address = mapping->end;
    }
    return TRUE;
}

static gboolean attach_file(GuestBlock *block, pid_t pid, GPtrArray *maps, GError **errp)
{
    const ProcMapping *mapping = proc_maps_find(maps, block->host);
    if (!mapping || !is_mapped(maps, block->host, block->length)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FAILED,
                    "RAM block %s is not mapped where QEMU says it is (0x%" G_GINT64_MODIFIER
                    "x): its memory changed while the snapshot began; try again",
                    block->name, block->host);
        return FALSE;
    }
    block->file = -1;
    if (!mapping->inode) {
        return TRUE;
    }
    block->shared = mapping->shared;
    block->nameless = mapping->shared && g_str_has_prefix(mapping->path, "/dev/zero");
    block->file_offset = mapping->file_offset + (block->host - mapping->start);
    block->file = open_mapped_file(pid, mapping);
    if (block->file < 0) {
        return sf_error_set_errno(errp, SF_ERROR_PERMISSION, errno,
                                  "cannot open the memory file \"%s\" behind RAM block %s",
                                  mapping->path, block->name);
    }
    return TRUE;
}

static void lay_out_pages(GuestBlock *block)
{
    block->pages = (block->length + block->page_size - 1) / block->page_size;
    block->group_pages = block->hugetlb ? 1 : TOUCH_GROUP_PAGES;
    block->groups = (block->pages + block->group_pages - 1) / block->group_pages;
    /* Pieces of a transparent huge page: releasing less would make the kernel split it. */
    block->chunk_pages = block->hugetlb ? 1 : THP_SIZE / block->page_size;
    block->state = g_malloc0(block->pages);
    block->touched = g_malloc0_n((block->groups + 63) / 64, sizeof(guint64));
    block->given_back = g_malloc0_n((block->groups + 63) / 64, sizeof(guint64));
    block->region_pages = MAX(REGION_SIZE / block->page_size, 1ULL);
    block->regions = (block->pages + block->region_pages - 1) / block->region_pages;
    block->heat = g_malloc0_n(block->regions, sizeof(guint32));
    block->region_saved_ns = g_malloc0_n(block->regions, sizeof(guint64));
    block->region_tracked = g_new0(gboolean, block->regions);
}

static GuestBlock *guest_block_new(pid_t pid, const RamBlock *from, GPtrArray *maps, GError **errp)
{
    GuestBlock *block = g_new0(GuestBlock, 1);
    block->name = g_strdup(from->name);
    block->host = from->host_address;
    block->length = from->used_length;
    block->page_size = from->page_size;
    block->hugetlb = from->page_size > (guint64)sysconf(_SC_PAGESIZE);
    block->file = -1;
    if (!attach_file(block, pid, maps, errp)) {
        guest_block_free(block);
        return NULL;
    }
    lay_out_pages(block);
    if (!guest_block_prepare_present(block, errp)) {
        guest_block_free(block);
        return NULL;
    }
    return block;
}

static gint by_host(gconstpointer a, gconstpointer b)
{
    const GuestBlock *left = *(GuestBlock *const *)a;
    const GuestBlock *right = *(GuestBlock *const *)b;
    return left->host < right->host ? -1 : left->host > right->host;
}

static gboolean add_blocks(GuestRam *ram, GPtrArray *ram_blocks, GPtrArray *maps, guint *skipped,
                           GError **errp)
{
    for (guint i = 0; i < ram_blocks->len; i++) {
        const RamBlock *from = g_ptr_array_index(ram_blocks, i);
        if (!from->host_address) {
            if (!may_be_left_out(from)) {
                g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                            "the host address of RAM block %s could not be found in this QEMU: "
                            "please report the QEMU version and command line",
                            from->name);
                return FALSE;
            }
            (*skipped)++;
            continue;
        }
        GuestBlock *block = guest_block_new(ram->pid, from, maps, errp);
        if (!block) {
            return FALSE;
        }
        g_ptr_array_add(ram->blocks, block);
        ram->bytes += block->length;
        ram->pages += block->pages;
    }
    g_ptr_array_sort(ram->blocks, by_host);
    for (guint i = 0; i < ram->blocks->len; i++) {
        ((GuestBlock *)g_ptr_array_index(ram->blocks, i))->index = i;
    }
    return TRUE;
}

GuestRam *guest_ram_new(pid_t pid, GPtrArray *ram_blocks, GPtrArray *maps, guint *skipped,
                        GError **errp)
{
    g_autoptr(GuestRam) ram = g_new0(GuestRam, 1);
    ram->pid = pid;
    ram->pagemap = -1;
    ram->own_pagemap = -1;
    ram->blocks = g_ptr_array_new_with_free_func(guest_block_free);
    *skipped = 0;
    if (!guest_read_open(ram, errp) || !add_blocks(ram, ram_blocks, maps, skipped, errp)) {
        return NULL;
    }
    return g_steal_pointer(&ram);
}

void guest_ram_free(GuestRam *ram)
{
    if (!ram) {
        return;
    }
    g_ptr_array_unref(ram->blocks);
    sf_clear_fd(&ram->pagemap);
    sf_clear_fd(&ram->own_pagemap);
    g_free(ram);
}

GuestBlock *guest_ram_find(GuestRam *ram, guint64 address)
{
    guint low = 0, high = ram->blocks->len;
    while (low < high) {
        guint middle = (low + high) / 2;
        GuestBlock *block = g_ptr_array_index(ram->blocks, middle);
        if (address < block->host) {
            high = middle;
        } else if (address - block->host < block->pages * block->page_size) {
            return block;
        } else {
            low = middle + 1;
        }
    }
    return NULL;
}
