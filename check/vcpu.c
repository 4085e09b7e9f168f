/*
 * A VM of one vCPU and two memory slots: one with a few instructions, one with the memory that is
 * tested. The guest runs in 32-bit protected mode without paging: like this it needs no tables, and
 * hardware KVM runs it on the processor, where its writes fault in the tables that KVM keeps for
 * it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vcpu.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "util/autofd.h"
#include "util/fault-injection.h"

/* Guest-physical layout. The tested memory is aligned like a huge page, as it is here. */
#define CODE_ADDRESS 0x1000
#define ORDER_ADDRESS 0x2000
#define LOW_LENGTH 0x4000
#define MEMORY_ADDRESS 0x400000
/* Three pages that Intel's KVM wants for itself; anywhere outside of memory. */
#define TSS_ADDRESS 0xfffbd000

#define DONE_PORT 0x10
#define API_VERSION 12 /* the only one there is, since 2.6.22 */

/* What the guest is to do; it reads this at ORDER_ADDRESS. */
typedef struct Order {
    guint32 first; /* guest-physical address */
    guint32 count;
    guint32 stride;
    guint32 value;
} Order;

static const guint8 code[] = {
    0x8b, 0x1d,      0x00, 0x20, 0x00, 0x00, /* start: mov 0x2000, %ebx    first */
    0x8b, 0x0d,      0x04, 0x20, 0x00, 0x00, /*        mov 0x2004, %ecx    count */
    0x8b, 0x35,      0x08, 0x20, 0x00, 0x00, /*        mov 0x2008, %esi    stride */
    0xa1, 0x0c,      0x20, 0x00, 0x00,       /*        mov 0x200c, %eax    value */
    0x89, 0x03,                              /* next:  mov %eax, (%ebx) */
    0x01, 0xf3,                              /*        add %esi, %ebx */
    0x40,                                    /*        inc %eax */
    0x49,                                    /*        dec %ecx */
    0x75, 0xf8,                              /*        jnz next */
    0xe6, DONE_PORT,                         /*        out %al, DONE_PORT */
    0xeb, 0xdd,                              /*        jmp start */
};

struct Vcpu {
    CheckMemory *memory;
    int machine;
    int cpu;
    guint8 *low; /* the first LOW_LENGTH bytes of guest memory */
    struct kvm_run *run;
    gsize run_size;
};

static int open_kvm(GError **errp)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int err = errno;

    if (fault_injected("no-kvm")) {
        sf_clear_fd(&fd);
        err = ENOENT;
    }
    if (fd < 0) {
        gboolean refused = err == EACCES || err == EPERM;
        sf_error_set_errno(errp, refused ? SF_ERROR_PERMISSION : SF_ERROR_UNSUPPORTED, err,
                           "/dev/kvm does not open");
        return -1;
    }
    if (ioctl(fd, KVM_GET_API_VERSION, 0) != API_VERSION) {
        close(fd);
        g_set_error_literal(errp, SF_ERROR, SF_ERROR_UNSUPPORTED, "/dev/kvm is none of KVM's");
        return -1;
    }
    return fd;
}

static gboolean add_slot(Vcpu *vcpu, guint slot, guint64 address, gpointer data, gsize length,
                         GError **errp)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot,
        .guest_phys_addr = address,
        .memory_size = length,
        .userspace_addr = (guint64)(guintptr)data,
    };

    return ioctl(vcpu->machine, KVM_SET_USER_MEMORY_REGION, &region) == 0
               ? TRUE
               : sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "KVM takes no memory");
}

static gboolean add_memory(Vcpu *vcpu, GError **errp)
{
    gpointer low =
        mmap(NULL, LOW_LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (low == MAP_FAILED) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "no memory");
    }
    vcpu->low = low;
    memcpy(vcpu->low + CODE_ADDRESS, code, sizeof(code));
    return add_slot(vcpu, 0, 0, vcpu->low, LOW_LENGTH, errp) &&
           add_slot(vcpu, 1, MEMORY_ADDRESS, vcpu->memory->data, vcpu->memory->length, errp);
}

/* A flat segment of 4 GiB; @type as in the descriptor: 11 code, 3 data. */
static void set_segment(struct kvm_segment *segment, guint16 selector, guint8 type)
{
    *segment = (struct kvm_segment){
        .limit = G_MAXUINT32,
        .selector = selector,
        .type = type,
        .present = 1,
        .db = 1,
        .s = 1,
        .g = 1,
    };
}

static gboolean set_registers(Vcpu *vcpu, GError **errp)
{
    struct kvm_regs regs = { .rip = CODE_ADDRESS, .rflags = 2 };
    struct kvm_sregs sregs;

    if (ioctl(vcpu->cpu, KVM_GET_SREGS, &sregs) == 0) {
        sregs.cr0 |= 1; /* PE */
        set_segment(&sregs.cs, 8, 11);
        set_segment(&sregs.ds, 16, 3);
        sregs.es = sregs.fs = sregs.gs = sregs.ss = sregs.ds;
        if (ioctl(vcpu->cpu, KVM_SET_SREGS, &sregs) == 0 &&
            ioctl(vcpu->cpu, KVM_SET_REGS, &regs) == 0) {
            return TRUE;
        }
    }
    return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "KVM takes no registers");
}

static gboolean make_vcpu(Vcpu *vcpu, int kvm, GError **errp)
{
    int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

    vcpu->cpu = ioctl(vcpu->machine, KVM_CREATE_VCPU, 0);
    if (vcpu->cpu < 0 || size < (int)sizeof(*vcpu->run)) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "KVM makes no vCPU");
    }
    gpointer run = mmap(NULL, (gsize)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->cpu, 0);
    if (run == MAP_FAILED) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "KVM's page cannot be mapped");
    }
    vcpu->run = run;
    vcpu->run_size = (gsize)size;
    return set_registers(vcpu, errp);
}

Vcpu *vcpu_new(CheckMemory *memory, GError **errp)
{
    g_autoptr(Vcpu) vcpu = g_new0(Vcpu, 1);

    vcpu->memory = memory;
    vcpu->machine = vcpu->cpu = -1;
    sf_autofd kvm = open_kvm(errp);
    if (kvm < 0) {
        return NULL;
    }
    vcpu->machine = ioctl(kvm, KVM_CREATE_VM, 0);
    if (vcpu->machine < 0) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "KVM makes no VM");
        return NULL;
    }
    /* Processors of Intel's that cannot run unpaged code by themselves need it; others ignore it.
     */
    ioctl(vcpu->machine, KVM_SET_TSS_ADDR, TSS_ADDRESS);
    if (!add_memory(vcpu, errp) || !make_vcpu(vcpu, kvm, errp)) {
        return NULL;
    }
    return g_steal_pointer(&vcpu);
}

static VcpuResult judge_exit(const struct kvm_run *run, GError **errp)
{
    if (run->exit_reason == KVM_EXIT_IO && run->io.port == DONE_PORT) {
        return VCPU_DONE;
    }
    if (run->exit_reason == KVM_EXIT_MMIO) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, EFAULT,
                           "KVM cannot write at guest address 0x%" G_GINT64_MODIFIER
                           "x and takes it for a device's",
                           (guint64)run->mmio.phys_addr);
        return VCPU_MMIO;
    }
    g_set_error(errp, SF_ERROR, SF_ERROR_FAILED, "the vCPU stopped with exit reason %u",
                run->exit_reason);
    return VCPU_FAILED;
}

VcpuResult vcpu_write_all(Vcpu *vcpu, guint32 value, GError **errp)
{
    Order order = {
        .first = MEMORY_ADDRESS,
        .count = check_memory_count(vcpu->memory),
        .stride = (guint32)vcpu->memory->stride,
        .value = value,
    };

    memcpy(vcpu->low + ORDER_ADDRESS, &order, sizeof(order));
    while (ioctl(vcpu->cpu, KVM_RUN, 0) < 0 || fault_injected("kvm-efault")) {
        int err = fault_injected("kvm-efault") ? EFAULT : errno;
        if (err != EINTR && err != EAGAIN) {
            sf_error_set_errno(errp, SF_ERROR_FAILED, err, "KVM_RUN fails");
            return err == EFAULT ? VCPU_EFAULT : VCPU_FAILED;
        }
    }
    return judge_exit(vcpu->run, errp);
}

void vcpu_free(Vcpu *vcpu)
{
    if (!vcpu) {
        return;
    }
    if (vcpu->run) {
        munmap(vcpu->run, vcpu->run_size);
    }
    sf_clear_fd(&vcpu->cpu);
    sf_clear_fd(&vcpu->machine);
    if (vcpu->low) {
        munmap(vcpu->low, LOW_LENGTH);
    }
    g_free(vcpu);
}
