/*
 * Going on with a lazy restore whose page server died: QEMU kept the userfaultfd, and whoever
 * touches a missing page waits.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "attach/qemu-process.h"
#include "incoming-lazy.h"

#define UFFD_LINK "anon_inode:[userfaultfd]"

static gboolean take_uffd(LazyRestore *lazy, GError **errp)
{
    int remote = lazy->record->head->uffd;
    g_autofree char *path = g_strdup_printf("/proc/%d/fd/%d", (int)lazy->pid, remote);
    g_autofree char *target = g_file_read_link(path, NULL);

    lazy->pidfd = (int)syscall(SYS_pidfd_open, lazy->pid, 0);
    if (lazy->pidfd < 0) {
        return sf_error_set_errno(errp, SF_ERROR_NO_PROCESS, errno, "cannot watch process %d",
                                  (int)lazy->pid);
    }
    lazy->uffd = (int)syscall(SYS_pidfd_getfd, lazy->pidfd, remote, 0);
    if (lazy->uffd < 0) {
        int err = errno;
        return sf_error_set_errno(errp, err == EPERM ? SF_ERROR_PERMISSION : SF_ERROR_FAILED, err,
                                  "cannot take the userfaultfd of process %d", (int)lazy->pid);
    }
    if (!target || strcmp(target, UFFD_LINK) != 0) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FAILED,
                    "descriptor %d of process %d is no userfaultfd: its restore is over", remote,
                    (int)lazy->pid);
        return FALSE;
    }
    return TRUE;
}

/* A guest that was stopped because its memory could not be had. */
static void let_run(LazyRestore *lazy)
{
    g_autoptr(QemuProcess) process = qemu_process_inspect(lazy->pid, NULL);
    g_autoptr(QmpClient) qmp = NULL;

    if (!lazy->record->head->stopped) {
        return;
    }
    for (guint i = 0; process && i < process->qmp->len && !qmp; i++) {
        qmp = qmp_client_open(g_ptr_array_index(process->qmp, i), QMP_GREETING_TIMEOUT_MS, NULL);
    }
    g_autoptr(JsonNode) answer = qmp ? qmp_client_execute(qmp, "cont", NULL, NULL) : NULL;
    if (answer) {
        lazy->record->head->stopped = FALSE;
    } else {
        g_printerr(
            "stillframe: the guest of QEMU %d is still stopped: continue it with \"cont\" on "
            "its monitor\n",
            (int)lazy->pid);
    }
}

static gboolean start_helpers(LazyRestore *lazy, const IncomingOptions *options, GError **errp)
{
    lazy->guardian = guardian_start(-1, errp);
    if (lazy->guardian && options->resume_command) {
        lazy->supervisor = lazy_supervisor_start(lazy->pid, options->resume_command, errp);
    }
    return lazy->guardian && (lazy->supervisor || !options->resume_command);
}

static gboolean serve(LazyRestore *lazy, ImageReader *reader, const IncomingOptions *options,
                      const volatile int *cancel, IncomingReport *report, GError **errp)
{
    gboolean waiting;

    if (!lazy_restore_index(lazy, options, reader, cancel, errp) || !take_uffd(lazy, errp) ||
        !start_helpers(lazy, options, errp)) {
        return FALSE;
    }
    lazy->service = lazy_service_start(lazy->uffd, lazy->pidfd, lazy->places, lazy->record, errp);
    if (!lazy->service) {
        return FALSE;
    }
    let_run(lazy);
    return lazy_restore_serve(lazy, options, NULL, cancel, report, &waiting, errp);
}

gboolean incoming_resume(pid_t pid, const IncomingOptions *options, const volatile int *cancel,
                         IncomingReport *report, GError **errp)
{
    LazyRestore lazy;
    gboolean good = FALSE;

    *report = (IncomingReport){ .pid = pid };
    lazy_restore_init(&lazy);
    lazy.pid = pid;
    lazy.record = lazy_record_open(pid, errp);
    if (lazy.record) {
        const char *image = options->image ? options->image : lazy.record->head->image;
        g_autoptr(ImageReader) reader =
            image_reader_open(image, lazy.record->head->image_offset, errp);
        good = reader && serve(&lazy, reader, options, cancel, report, errp);
        lazy_restore_clear(&lazy); /* before the reader */
    }
    return good;
}
