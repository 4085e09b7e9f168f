/*
 * The smallest virtual machine: one vCPU of /dev/kvm that writes where it is told.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "check-memory.h"

typedef struct Vcpu Vcpu;

/* How a run of the vCPU ended. */
typedef enum {
    VCPU_DONE,   /* it has written everything */
    VCPU_EFAULT, /* KVM_RUN returned EFAULT: "kvm run failed Bad address" */
    VCPU_MMIO,   /* KVM took memory that it could not write for a device's */
    VCPU_FAILED, /* anything else; the error says what */
} VcpuResult;

/*
 * Makes a VM with @memory, which must outlive it, behind a memory slot of its own. SF_ERROR_FAILED
 * with the reason, SF_ERROR_PERMISSION where /dev/kvm may not be opened, SF_ERROR_UNSUPPORTED where
 * there is none.
 */
Vcpu *vcpu_new(CheckMemory *memory, GError **errp);
/*
 * Lets the guest write @value to the first word of each page that check_memory_word() names, one
 * after the other, @value + 1 to the second and so on, and returns when it has. It waits where a
 * page is protected. The calling thread is the vCPU.
 */
VcpuResult vcpu_write_all(Vcpu *vcpu, guint32 value, GError **errp);
/* NULL is allowed. */
void vcpu_free(Vcpu *vcpu);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Vcpu, vcpu_free)
