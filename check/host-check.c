/*
 * All questions, in their order, and what their answers mean together.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "check/host-check.h"

#include "attach/userfaultfd.h"
#include "probes.h"
#include "userfaultfd-compat.h"

typedef struct Question {
    const char *group, *id, *name;
    CheckProbe probe;
    int argument;
} Question;

static const Question questions[] = {
    { "kernel", "uffd-wp", "write-protect, anonymous memory", probe_feature,
      UFFD_FEATURE_PAGEFAULT_FLAG_WP },
    { "kernel", "uffd-wp-shmem", "write-protect, shared and huge", probe_feature,
      UFFD_FEATURE_WP_HUGETLBFS_SHMEM },
    { "kernel", "uffd-wp-unpopulated", "WP_UNPOPULATED", probe_feature,
      UFFD_FEATURE_WP_UNPOPULATED },
    { "kernel", "uffd-event-remove", "EVENT_REMOVE", probe_feature, UFFD_FEATURE_EVENT_REMOVE },
    { "kernel", "uffd-wp-async", "WP_ASYNC", probe_feature, UFFD_FEATURE_WP_ASYNC },
    { "kernel", "uffd-move", "UFFDIO_MOVE", probe_feature, UFFD_FEATURE_MOVE },
    { "kernel", "pagemap-scan", "PAGEMAP_SCAN", probe_pagemap_scan, 0 },

    { "access", "ptrace", "1. ptrace", probe_ptrace, 0 },
    { "access", "uffd-syscall", "2. userfaultfd system call", probe_uffd_syscall, 0 },
    { "access", "uffd-device", "3. /dev/userfaultfd", probe_uffd_device, 0 },

    { "memory", "memory-anonymous", "anonymous, 4 KiB pages", probe_memory,
      CHECK_MEMORY_ANONYMOUS },
    { "memory", "memory-thp", "transparent huge pages", probe_memory, CHECK_MEMORY_THP },
    { "memory", "memory-memfd-shared", "memfd, shared", probe_memory, CHECK_MEMORY_MEMFD_SHARED },
    { "memory", "memory-memfd-private", "memfd, private", probe_memory,
      CHECK_MEMORY_MEMFD_PRIVATE },
    { "memory", "memory-hugetlb", "hugetlbfs, 2 MiB pages", probe_memory, CHECK_MEMORY_HUGETLB },

    { "kvm", "kvm", "/dev/kvm", probe_kvm, 0 },
    { "kvm", "kvm-anonymous", "anonymous, 4 KiB pages", probe_vcpu, CHECK_MEMORY_ANONYMOUS },
    { "kvm", "kvm-anonymous-hole", "anonymous, never written", probe_vcpu_hole,
      CHECK_MEMORY_ANONYMOUS },
    { "kvm", "kvm-thp", "transparent huge pages", probe_vcpu, CHECK_MEMORY_THP },
    { "kvm", "kvm-memfd-shared", "memfd, shared", probe_vcpu, CHECK_MEMORY_MEMFD_SHARED },
    { "kvm", "kvm-memfd-shared-hole", "memfd, never written", probe_vcpu_hole,
      CHECK_MEMORY_MEMFD_SHARED },
    { "kvm", "kvm-hugetlb", "hugetlbfs, 2 MiB pages", probe_vcpu, CHECK_MEMORY_HUGETLB },
};

static void row_free(gpointer data)
{
    CheckRow *row = data;

    g_free(row->note);
    g_free(row->remedy);
    g_free(row);
}

static CheckRow *ask(const Question *question, guint64 features)
{
    CheckRow *row = g_new0(CheckRow, 1);

    row->group = question->group;
    row->id = question->id;
    row->name = question->name;
    check_row_answer(row, CHECK_UNTRIED, NULL, "%s", "");
    check_process_run(row, question->probe, features, question->argument);
    return row;
}

const CheckRow *host_check_find(const HostCheck *check, const char *id)
{
    for (guint i = 0; i < check->rows->len; i++) {
        const CheckRow *row = check->rows->pdata[i];
        if (g_str_equal(row->id, id)) {
            return row;
        }
    }
    return NULL;
}

static gboolean yes(const HostCheck *check, const char *id)
{
    const CheckRow *row = host_check_find(check, id);

    return row && row->result == CHECK_YES;
}

static gboolean no(const HostCheck *check, const char *id)
{
    const CheckRow *row = host_check_find(check, id);

    return row && row->result == CHECK_NO;
}

/* A guest's memory has pages with content and holes: both must work. THP is not always there. */
static gboolean kvm_possible(const HostCheck *check)
{
    gboolean anonymous =
        yes(check, "kvm-anonymous") && yes(check, "kvm-anonymous-hole") && !no(check, "kvm-thp");
    gboolean shared = yes(check, "kvm-memfd-shared") && yes(check, "kvm-memfd-shared-hole");

    return anonymous || shared;
}

static void judge(HostCheck *check)
{
    gboolean access =
        yes(check, "ptrace") && (yes(check, "uffd-syscall") || yes(check, "uffd-device"));
    const char *text;

    check->tcg = yes(check, "uffd-wp") && access &&
                 (yes(check, "memory-anonymous") || yes(check, "memory-memfd-shared"));
    check->kvm = check->tcg && kvm_possible(check);
    if (check->kvm) {
        text = "A live snapshot of a KVM guest is possible on this host.";
    } else if (!check->tcg) {
        text = "No live snapshot is possible on this host, or not for this user.";
    } else if (!yes(check, "kvm")) {
        text = "There is no usable KVM here: guests under TCG can be snapshotted, and only those.";
    } else {
        text = "Guests under TCG can be snapshotted, KVM guests cannot, or not shown to be.";
    }
    check->verdict = g_strdup(text);
}

HostCheck *host_check_run(void (*row_done)(const CheckRow *row, gpointer data), gpointer data)
{
    HostCheck *check = g_new0(HostCheck, 1);
    guint64 features = 0;

    /* Where there is none, each question finds its own words for it. */
    userfaultfd_query_features(&features, NULL);
    check->rows = g_ptr_array_new_with_free_func(row_free);
    for (guint i = 0; i < G_N_ELEMENTS(questions); i++) {
        CheckRow *row = ask(&questions[i], features);
        g_ptr_array_add(check->rows, row);
        if (row_done) {
            row_done(row, data);
        }
    }
    judge(check);
    return check;
}

void host_check_free(HostCheck *check)
{
    g_ptr_array_unref(check->rows);
    g_free(check->verdict);
    g_free(check);
}
