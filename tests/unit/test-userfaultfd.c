/*
 * A userfaultfd of another process really traps that process's writes, and a shut door is named
 * with its remedy.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>

#include "attach/userfaultfd.h"
#include "target.h"
#include "tests/faults.h"
#include "userfaultfd-compat.h"
#include "util/autofd.h"

#define NOBODY 65534

/* Runs only this process in a new copy of the program with the faults @faults switched on. */
static gboolean run_with_faults(const char *faults)
{
    if (!test_need_faults()) {
        return FALSE;
    }
    if (g_test_subprocess()) {
        return TRUE;
    }
    g_setenv("STILLFRAME_FAULTS", faults, TRUE);
    g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_INHERIT_STDERR);
    g_unsetenv("STILLFRAME_FAULTS");
    g_test_trap_assert_passed();
    return FALSE;
}

static gboolean skip_unless_root(void)
{
    if (geteuid() != 0) {
        g_test_skip("a userfaultfd for kernel faults needs root");
        return TRUE;
    }
    return FALSE;
}

/* Writes one word of a page of its own, whose address it tells. */
static void loop_write(Target *target)
{
    static volatile guint64 *page;
    struct timespec nap = { 0, 1000 * 1000 };

    if (!page) {
        page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        *page = 1;
        target->value = (guint64)(guintptr)page;
    }
    *page += 1;
    nanosleep(&nap, NULL);
}

static void protect(int fd, guint64 page, guint64 mode)
{
    struct uffdio_writeprotect protect = { .range = { page, 4096 }, .mode = mode };
    g_assert_cmpint(ioctl(fd, UFFDIO_WRITEPROTECT, &protect), ==, 0);
}

static void test_traps_writes_of_the_other_process(void)
{
    if (skip_unless_root()) {
        return;
    }
    g_autoptr(Target) target = target_start(loop_write);
    g_autoptr(GError) error = NULL;
    g_autoptr(Guardian) guardian = guardian_start(-1, &error);
    UffdDoor door;

    target_assert_progress(target, 1);
    guint before = count_descriptors(target->pid);
    sf_autofd fd = attach_userfaultfd(guardian, target->pid, NULL, &door, &error);
    g_assert_no_error(error);
    g_assert_cmpint(door, ==, UFFD_DOOR_SYSCALL);
    g_assert_cmpint(fcntl(fd, F_GETFD), ==, FD_CLOEXEC);
    g_assert_cmpint(fcntl(fd, F_GETFL) & O_NONBLOCK, ==, O_NONBLOCK);
    g_assert_cmpuint(count_descriptors(target->pid), ==, before);

    struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP };
    g_assert_cmpint(ioctl(fd, UFFDIO_API, &api), ==, 0);
    struct uffdio_register reg = { .range = { target->value, 4096 },
                                   .mode = UFFDIO_REGISTER_MODE_WP };
    g_assert_cmpint(ioctl(fd, UFFDIO_REGISTER, &reg), ==, 0);
    protect(fd, target->value, UFFDIO_WRITEPROTECT_MODE_WP);

    struct uffd_msg message;
    struct pollfd readable = { .fd = fd, .events = POLLIN };
    g_assert_cmpint(poll(&readable, 1, 5000), ==, 1);
    g_assert_cmpint(read(fd, &message, sizeof(message)), ==, sizeof(message));
    g_assert_cmpuint(message.arg.pagefault.address, ==, target->value);
    guint64 held_at = target->progress;
    g_usleep(30000);
    g_assert_cmpuint(target->progress, ==, held_at);
    protect(fd, target->value, 0);
    target_assert_progress(target, 2);

    /* And the last close of the descriptor, which is ours, lets a waiting writer go. */
    protect(fd, target->value, UFFDIO_WRITEPROTECT_MODE_WP);
    g_assert_cmpint(poll(&readable, 1, 5000), ==, 1);
    sf_clear_fd(&fd);
    target_assert_progress(target, 2);
}

static void test_shut_doors_are_named(void)
{
    g_autoptr(GError) error = NULL;
    UffdDoor door;

    if (!run_with_faults("no-uffd-syscall,no-uffd-device")) {
        return;
    }
    g_autoptr(Target) target = target_start(loop_write);
    g_autoptr(Guardian) guardian = guardian_start(-1, &error);
    g_assert_cmpint(attach_userfaultfd(guardian, target->pid, NULL, &door, &error), ==, -1);
    g_assert_error(error, SF_ERROR, SF_ERROR_PERMISSION);
    g_assert_nonnull(strstr(error->message, "1. ptrace access to QEMU: open"));
    g_assert_nonnull(strstr(error->message, "2. the userfaultfd system call inside QEMU: shut"));
    g_assert_nonnull(strstr(error->message, "vm.unprivileged_userfaultfd=1"));
    g_assert_nonnull(strstr(error->message, "3. /dev/userfaultfd, handed to QEMU: shut"));
    g_assert_nonnull(strstr(error->message, "setfacl"));
    g_assert_nonnull(strstr(error->message, "stillframe check"));
    g_clear_error(&error);

    g_assert_false(attach_check_doors(target->pid, TRUE, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_PERMISSION);
    target_assert_progress(target, 2);
}

/* A process that must not be traced: ours, as root, from the point of view of nobody. */
static void test_no_ptrace_access(void)
{
    if (skip_unless_root()) {
        return;
    }
    g_autoptr(Target) target = target_start(loop_write);
    pid_t nobody = fork();
    if (nobody == 0) {
        g_autoptr(GError) error = NULL;
        UffdDoor door;
        g_assert_cmpint(setresgid(NOBODY, NOBODY, NOBODY), ==, 0);
        g_assert_cmpint(setresuid(NOBODY, NOBODY, NOBODY), ==, 0);
        g_assert_false(attach_check_ptrace(target->pid, &error));
        g_assert_error(error, SF_ERROR, SF_ERROR_PERMISSION);
        g_clear_error(&error);
        g_assert_false(attach_check_doors(target->pid, TRUE, &error));
        g_assert_nonnull(strstr(error->message, "1. ptrace access to QEMU: shut"));
        g_clear_error(&error);
        Guardian *guardian = guardian_start(-1, &error);
        g_assert_cmpint(attach_userfaultfd(guardian, target->pid, NULL, &door, &error), ==, -1);
        g_assert_error(error, SF_ERROR, SF_ERROR_PERMISSION);
        g_assert_nonnull(strstr(error->message, "1. ptrace access to QEMU: shut"));
        g_assert_nonnull(strstr(error->message, "as root or as the user who runs QEMU"));
        guardian_stop(guardian);
        _exit(0);
    }
    int status;
    g_assert_cmpint(waitpid(nobody, &status, 0), ==, nobody);
    g_assert_cmpint(status, ==, 0);
}

static void test_check_of_an_open_and_of_no_process(void)
{
    g_autoptr(Target) target = target_start(loop_write);
    g_autoptr(GError) error = NULL;
    pid_t gone = target->pid;

    g_assert_true(attach_check_ptrace(target->pid, &error));
    g_assert_no_error(error);
    if (geteuid() == 0) {
        g_assert_true(attach_check_doors(target->pid, FALSE, &error));
        g_assert_no_error(error);
    }
    target_stop(g_steal_pointer(&target));
    g_assert_false(attach_check_ptrace(gone, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_NO_PROCESS);
    g_clear_error(&error);
    g_assert_false(attach_check_doors(gone, TRUE, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_NO_PROCESS);
}

static void test_features(void)
{
    g_autoptr(GError) error = NULL;
    guint64 features;

    g_assert_true(userfaultfd_query_features(&features, &error));
    g_assert_no_error(error);
    g_assert_cmphex(features & UFFD_FEATURE_PAGEFAULT_FLAG_WP, !=, 0);
}

static void test_features_can_be_hidden(void)
{
    guint64 features;

    if (!run_with_faults("no-wp-unpopulated,no-wp-shmem")) {
        return;
    }
    g_assert_true(userfaultfd_query_features(&features, NULL));
    g_assert_cmphex(features & UFFD_FEATURE_PAGEFAULT_FLAG_WP, !=, 0);
    g_assert_cmphex(features & (UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM), ==,
                    0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/userfaultfd/traps-writes-of-the-other-process",
                    test_traps_writes_of_the_other_process);
    g_test_add_func("/userfaultfd/shut-doors-are-named", test_shut_doors_are_named);
    g_test_add_func("/userfaultfd/no-ptrace-access", test_no_ptrace_access);
    g_test_add_func("/userfaultfd/check-of-an-open-and-of-no-process",
                    test_check_of_an_open_and_of_no_process);
    g_test_add_func("/userfaultfd/features", test_features);
    g_test_add_func("/userfaultfd/features-can-be-hidden", test_features_can_be_hidden);
    return g_test_run();
}
