/*
 * The cases in which a snapshot must be one instant: kinds of memory, vCPUs, devices that write,
 * accelerators, QEMUs, fallbacks. Runs them: snapshots, the judge, restores.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "writer-guest.h"

typedef struct MemoryMap {
    guint64 address;
    guint64 length;
    const char *block;
} MemoryMap;

typedef struct MemoryKind {
    const char *name;
    const char *args[20];
    const char *ranges;     /* that the guest writes, with TCG; NULL: the usual ones */
    const char *ranges_kvm; /* the same with KVM, which may be slow */
    MemoryMap map[3];
    guint hugepages_mib;
    gboolean small_pages; /* no transparent huge pages */
    const char *dimm;     /* object_add arguments of a DIMM to plug while the machine stands */
    gboolean extra;       /* not a kind of its own: left out of the matrix */
    gboolean on_kvm;      /* the KVM run of "instant" has it too */
} MemoryKind;

extern const MemoryKind memory_kinds[];
extern const guint memory_kinds_count;
/* The kind with that name; asserts that there is one. */
const MemoryKind *memory_kind_find(const char *name);

typedef enum {
    INSTANT_NO_DEVICE,
    INSTANT_DISK,
    INSTANT_DISK_IOTHREAD, /* with a thread of its own */
    INSTANT_NET,
    INSTANT_DEVICES
} InstantDevice;

/* "none", "disk"... */
const char *instant_device_name(InstantDevice device);

typedef struct InstantCase {
    const MemoryKind *kind;
    gboolean kvm;
    guint cpus; /* 0: one */
    InstantDevice device;
    const char *ranges; /* NULL: the kind's */
    const char *faults; /* fault switches of the program under test, or NULL */
    const char *qemu;   /* another QEMU than the usual one, or NULL */
} InstantCase;

/*
 * FALSE, after g_test_skip(), where the case cannot be had here. Otherwise to be ended with
 * instant_case_end(): huge pages are reserved, and transparent ones switched.
 */
gboolean instant_case_begin(const InstantCase *c, TestReaper **hugepages);
void instant_case_end(TestReaper *hugepages);

/* Prepares its VM; a disk is made in @dir. @plugged: the DIMM is there from the beginning. */
TestVm *instant_case_new_vm(const InstantCase *c, TestDir *dir, gboolean plugged);
/* Starts it, plugs what is to be plugged, and waits until all pages were written twice. */
void instant_case_launch(const InstantCase *c, TestVm *vm);
/* Its memory, empty. */
InstantMemory *instant_case_new_memory(const InstantCase *c);
/* Every vCPU and device of it goes on, and no page was found wrong by the guest. */
void instant_case_assert_goes_on(const InstantCase *c, TestVm *vm);
/* Takes one snapshot. *report (may be NULL) gets it; the caller frees. */
void instant_case_snapshot(const InstantCase *c, TestVm *vm, const char *image, char **report);
/* The image is one instant of such a guest, and its devices have written; returns the instant. */
guint64 instant_case_check_image(const InstantCase *c, const char *image);
/* QEMU, or our restore, loads the image; the guest goes on, and finds all of its memory right. */
void instant_case_restore_by_qemu(const InstantCase *c, TestDir *dir, const char *image);
/* "restore OPTIONS IMAGE -- QEMU-COMMAND" for a VM that is not started; @options ends with NULL. */
GPtrArray *instant_case_restore_args(TestVm *vm, const char *image, const char *const *options);
/* Our restore with these options; the guest is judged as above. Returns it. */
TestVm *instant_case_restore_with(const InstantCase *c, TestDir *dir, const char *image,
                                  const char *const *options);
void instant_case_restore_by_stillframe(const InstantCase *c, TestDir *dir, const char *image);

/* All of it: so many snapshots of one guest, each judged; the last is restored in both ways. */
void instant_case_run(const InstantCase *c, guint snapshots);
