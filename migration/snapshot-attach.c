/*
 * Steps 1 and 2 of a snapshot: reaching the process, and learning what it holds.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "attach/qemu-process.h"
#include "attach/target-page.h"
#include "clock.h"
#include "migration/preflight.h"
#include "snapshot-impl.h"
#include "util/autofd.h"

/* What a 32-bit ARM page was before ARMv6: the size that a stream without the subsection means. */
#define ARM_PAGE_BITS_LEGACY 10

/* Tries each monitor that the process has; the last failure is the one reported. */
static gboolean open_own_monitor(Snapshot *snapshot, GError **errp)
{
    g_autoptr(QemuProcess) process = qemu_process_inspect(snapshot->options->pid, errp);

    if (!process) {
        return FALSE;
    }
    if (!process->qmp->len) {
        g_set_error(errp, SF_ERROR, SF_ERROR_NOT_QEMU,
                    "process %d (%s) has no QMP monitor that it listens on%s; start QEMU with "
                    "-qmp unix:PATH,server=on,wait=off",
                    (int)snapshot->options->pid, process->name,
                    process->hmp->len ? ", only HMP ones" : "");
        return FALSE;
    }
    for (guint i = 0; i < process->qmp->len && !snapshot->qmp; i++) {
        const char *address = g_ptr_array_index(process->qmp, i);
        g_clear_error(errp);
        snapshot->qmp = qmp_client_open(address, QMP_GREETING_TIMEOUT_MS, errp);
        snapshot->report->monitor = g_strdup(snapshot->qmp ? address : NULL);
    }
    snapshot->pid = snapshot->options->pid;
    return snapshot->qmp != NULL;
}

static gboolean open_given_monitor(Snapshot *snapshot, GError **errp)
{
    const char *address = snapshot->options->qmp;

    snapshot->qmp = qmp_client_open(address, QMP_GREETING_TIMEOUT_MS, errp);
    if (!snapshot->qmp) {
        return FALSE;
    }
    snapshot->report->monitor = g_strdup(address);
    snapshot->pid = qemu_process_of_socket(qmp_client_get_fd(snapshot->qmp), errp);
    if (snapshot->pid <= 0) {
        return FALSE;
    }
    if (snapshot->options->pid && snapshot->options->pid != snapshot->pid) {
        g_set_error(errp, SF_ERROR, SF_ERROR_USAGE,
                    "the monitor %s belongs to process %d, not to process %d", address,
                    (int)snapshot->pid, (int)snapshot->options->pid);
        return FALSE;
    }
    return TRUE;
}

/* Behind a proxy the socket's other end is the proxy, and only the caller knows QEMU. */
static gboolean open_proxied_monitor(Snapshot *snapshot, GError **errp)
{
    snapshot->pid = snapshot->options->pid;
    if (snapshot->pid <= 0) {
        close(snapshot->options->qmp_fd);
        g_set_error(errp, SF_ERROR, SF_ERROR_NO_PROCESS,
                    "the QEMU process behind this monitor is not known: it must run on this host");
        return FALSE;
    }
    snapshot->qmp =
        qmp_client_new_from_fd(snapshot->options->qmp_fd, QMP_GREETING_TIMEOUT_MS, errp);
    return snapshot->qmp != NULL;
}

static gboolean open_monitor(Snapshot *snapshot, GError **errp)
{
    if (snapshot->options->qmp_fd > 0) {
        return open_proxied_monitor(snapshot, errp);
    }
    return snapshot->options->qmp ? open_given_monitor(snapshot, errp)
                                  : open_own_monitor(snapshot, errp);
}

static gboolean open_pidfd(Snapshot *snapshot, GError **errp)
{
    snapshot->pidfd = (int)syscall(SYS_pidfd_open, snapshot->pid, 0);
    if (snapshot->pidfd < 0) {
        return sf_error_set_errno(errp, SF_ERROR_NO_PROCESS, errno, "cannot watch process %d",
                                  (int)snapshot->pid);
    }
    snapshot->report->pid = snapshot->pid;
    return TRUE;
}

gboolean snapshot_attach(Snapshot *snapshot, GError **errp)
{
    if (!open_monitor(snapshot, errp) || !open_pidfd(snapshot, errp)) {
        return FALSE;
    }
    snapshot->guardian =
        guardian_start_with_spare(qmp_client_get_fd(snapshot->qmp), snapshot->spare_fd, errp);
    return snapshot->guardian != NULL;
}

static gboolean refuse_if_blocked(Snapshot *snapshot, GPtrArray *blocks, GPtrArray *maps,
                                  GError **errp)
{
    g_autoptr(GPtrArray) blockers =
        preflight_blockers(snapshot->pid, snapshot->qmp, blocks, maps, errp);

    if (!blockers) {
        return FALSE;
    }
    if (blockers->len) {
        g_autoptr(GString) text = g_string_new(NULL);
        for (guint i = 0; i < blockers->len; i++) {
            g_string_append_printf(text, "%s%s", i ? "; " : "",
                                   (const char *)g_ptr_array_index(blockers, i));
        }
        g_set_error(errp, SF_ERROR, SF_ERROR_BLOCKED,
                    "a live snapshot of this VM is not possible: %s", text->str);
        return FALSE;
    }
    return TRUE;
}

/* Run states in which there is no whole machine to capture. */
gboolean snapshot_learn_state(Snapshot *snapshot, GError **errp)
{
    char *state = machine_query_status(snapshot->qmp, &snapshot->was_running, errp);

    if (!state) {
        return FALSE;
    }
    g_free(snapshot->report->run_state);
    snapshot->report->run_state = state;
    if (g_str_equal(state, "inmigrate") || g_str_equal(state, "finish-migrate") ||
        g_str_equal(state, "postmigrate") || g_str_equal(state, "restore-vm") ||
        g_str_equal(state, "save-vm") || g_str_equal(state, "colo")) {
        g_set_error(errp, SF_ERROR, SF_ERROR_BUSY,
                    "the VM is in run state \"%s\": a migration or another snapshot has it; try "
                    "again when that is over",
                    state);
        return FALSE;
    }
    return TRUE;
}

/*
 * The page size that the stream counts in. Most targets have one; the ARM ones choose between 1
 * KiB, their legacy minimum, and 4 KiB with the machine, and CONFIGURATION carries what is above
 * the minimum.
 */
static gboolean learn_page_bits(Snapshot *snapshot, const char *target, GError **errp)
{
    static const char *const four_kib[] = { "x86_64", "i386",   "riscv64",  "riscv32",
                                            "s390x",  "ppc64",  "ppc",      "mips",
                                            "mipsel", "mips64", "mips64el", NULL };
    ImageHead *head = snapshot->head;

    head->target_page_bits = 12;
    if (g_strv_contains(four_kib, target)) {
        return TRUE;
    }
    if (!g_str_equal(target, "aarch64") && !g_str_equal(target, "arm")) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "the page size of target %s is not known to this version", target);
        return FALSE;
    }
    g_autoptr(GPtrArray) maps = proc_read_maps(snapshot->pid, errp);
    if (!maps || !target_page_find_bits(snapshot->pid, maps, &head->target_page_bits, errp)) {
        return FALSE;
    }
    if (head->target_page_bits > 12) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "this machine's pages are larger than 4 KiB, which is not supported yet");
        return FALSE;
    }
    head->send_page_bits = head->target_page_bits > ARM_PAGE_BITS_LEGACY;
    return TRUE;
}

static gboolean learn_machine(Snapshot *snapshot, GError **errp)
{
    g_autofree char *target = machine_query_target(snapshot->qmp, errp);

    snapshot->head = image_head_new();
    if (!target || !learn_page_bits(snapshot, target, errp)) {
        return FALSE;
    }
    snapshot->head->machine_type = machine_query_type(snapshot->qmp, errp);
    snapshot->report->machine_type = g_strdup(snapshot->head->machine_type);
    return snapshot->head->machine_type != NULL;
}

/* What a DIMM that is plugged or unplugged changes: one line for each block. */
static char *list_ram(GPtrArray *blocks)
{
    g_autoptr(GString) text = g_string_new(NULL);

    for (guint i = 0; i < blocks->len; i++) {
        const RamBlock *block = g_ptr_array_index(blocks, i);
        g_string_append_printf(text,
                               "%s %" G_GUINT64_FORMAT " bytes at 0x%" G_GINT64_MODIFIER "x\n",
                               block->name, block->used_length, block->host_address);
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}

/* A line of @list that the other one has not, or NULL. */
static char *missing_line(const char *list, const char *other)
{
    g_auto(GStrv) lines = g_strsplit(list, "\n", -1);
    g_auto(GStrv) others = g_strsplit(other, "\n", -1);

    for (guint i = 0; lines[i]; i++) {
        if (!g_strv_contains((const char *const *)others, lines[i])) {
            return g_strdup(lines[i]);
        }
    }
    return NULL;
}

/*
 * A DIMM that was unplugged and another of the same name plugged in its place is told by its
 * address alone: QEMU lets go of the old memory later, in a thread of its own.
 */
gboolean snapshot_check_ram(Snapshot *snapshot, GError **errp)
{
    g_autoptr(GPtrArray) blocks = machine_query_ram_blocks(snapshot->qmp, errp);
    g_autoptr(GPtrArray) maps = blocks ? proc_read_maps(snapshot->pid, errp) : NULL;

    if (!maps || !ram_host_locate(snapshot->pid, snapshot->qmp, blocks, maps, errp)) {
        return FALSE;
    }
    g_autofree char *list = list_ram(blocks);
    if (g_str_equal(list, snapshot->ram_list)) {
        return TRUE;
    }
    g_autofree char *gone = missing_line(snapshot->ram_list, list);
    g_autofree char *come = missing_line(list, snapshot->ram_list);
    g_set_error(errp, SF_ERROR, SF_ERROR_FAILED,
                "the VM's memory was changed while its snapshot began (a DIMM or another device "
                "was plugged or unplugged, or the guest has just started): RAM block %s; try again",
                gone   ? gone
                : come ? come
                       : "plugged anew in its place");
    return FALSE;
}

/* Private memory may be merged by KSM; QEMU asks for it unless mem-merge=off is given. */
static gboolean hold_ksm(Snapshot *snapshot, GError **errp)
{
    for (guint i = 0; i < snapshot->ram->blocks->len && !snapshot->ksm; i++) {
        GuestBlock *block = g_ptr_array_index(snapshot->ram->blocks, i);
        if (!block->shared && !block->hugetlb &&
            !(snapshot->ksm = ksm_hold_new(snapshot->pid, errp))) {
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean learn_ram(Snapshot *snapshot, GError **errp)
{
    SnapshotReport *report = snapshot->report;
    g_autoptr(GPtrArray) blocks = machine_query_ram_blocks(snapshot->qmp, errp);
    g_autoptr(GPtrArray) maps = blocks ? proc_read_maps(snapshot->pid, errp) : NULL;

    if (!maps || !ram_host_locate(snapshot->pid, snapshot->qmp, blocks, maps, errp) ||
        !refuse_if_blocked(snapshot, blocks, maps, errp)) {
        return FALSE;
    }
    snapshot->ram = guest_ram_new(snapshot->pid, blocks, maps, &report->skipped_blocks, errp);
    if (!snapshot->ram || !hold_ksm(snapshot, errp)) {
        return FALSE;
    }
    snapshot->ram_list = list_ram(blocks);
    for (guint i = 0; i < snapshot->ram->blocks->len; i++) {
        GuestBlock *block = g_ptr_array_index(snapshot->ram->blocks, i);
        image_head_add_block(snapshot->head, block->name, block->length);
        ImageBlock *named = g_ptr_array_index(snapshot->head->blocks, i);
        named->page_size = block->page_size;
        named->flags =
            (block->shared ? INDEX_BLOCK_SHARED : 0) | (block->hugetlb ? INDEX_BLOCK_HUGETLB : 0);
    }
    report->ram_blocks = snapshot->ram->blocks->len;
    report->ram_bytes = snapshot->ram->bytes;
    return TRUE;
}

gboolean snapshot_learn(Snapshot *snapshot, GError **errp)
{
    return snapshot_learn_state(snapshot, errp) && learn_machine(snapshot, errp) &&
           learn_ram(snapshot, errp);
}
