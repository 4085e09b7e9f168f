/*
 * Channels against real files, pipes, sockets and shell commands: what arrives, what appears under
 * which name and when, and that a wait can be interrupted.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "migration/channel.h"
#include "tests/faults.h"
#include "util/autofd.h"

typedef struct Fixture {
    char *dir;
} Fixture;

static void setup(Fixture *f, gconstpointer data)
{
    f->dir = g_dir_make_tmp("stillframe-channel-XXXXXX", NULL);
    g_assert_nonnull(f->dir);
}

/* Also the check that nothing unexpected was left: only what the test names is removed. */
static void remove_files(Fixture *f, ...)
{
    va_list args;
    const char *name;

    va_start(args, f);
    while ((name = va_arg(args, const char *))) {
        g_autofree char *path = g_build_filename(f->dir, name, NULL);
        g_assert_cmpint(g_unlink(path), ==, 0);
    }
    va_end(args);
}

static void teardown(Fixture *f, gconstpointer data)
{
    g_assert_cmpint(g_rmdir(f->dir), ==, 0);
    g_free(f->dir);
}

static char *in_dir(Fixture *f, const char *name)
{
    return g_build_filename(f->dir, name, NULL);
}

static void assert_content(Fixture *f, const char *name, const char *expected, gsize length)
{
    g_autofree char *path = in_dir(f, name);
    g_autofree char *content = NULL;
    gsize got;

    g_assert_true(g_file_get_contents(path, &content, &got, NULL));
    g_assert_cmpmem(content, got, expected, length);
}

static void assert_absent(Fixture *f, const char *name)
{
    g_autofree char *path = in_dir(f, name);

    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
}

static Channel *open_text(GError **errp, const char *format, ...) G_GNUC_PRINTF(2, 3);
static Channel *open_text(GError **errp, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    g_autoptr(GError) error = NULL;
    g_autoptr(Destination) destination = destination_parse(text, &error);

    g_assert_no_error(error);
    return channel_open_output(destination, TRUE, errp);
}

/* In two pieces with an empty one between them. */
static gboolean try_write(Channel *channel, const char *a, const char *b, GError **errp)
{
    struct iovec iov[] = { { (void *)a, strlen(a) }, { NULL, 0 }, { (void *)b, strlen(b) } };

    return channel_writev(channel, iov, G_N_ELEMENTS(iov), errp);
}

static void write_ok(Channel *channel, const char *a, const char *b)
{
    g_autoptr(GError) error = NULL;

    try_write(channel, a, b, &error);
    g_assert_no_error(error);
}

static void commit_ok(Channel *channel)
{
    g_autoptr(GError) error = NULL;

    channel_commit(channel, &error);
    g_assert_no_error(error);
}

static Channel *open_ok(const char *format, ...) G_GNUC_PRINTF(1, 2);
static Channel *open_ok(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    g_autoptr(GError) error = NULL;
    Channel *channel = open_text(&error, "%s", text);

    g_assert_no_error(error);
    return channel;
}

/* ---- files ---- */

static void test_appears_at_commit(Fixture *f, gconstpointer data)
{
    g_autoptr(Channel) channel = open_ok("file:%s/image", f->dir);
    g_autofree char *path = in_dir(f, "image");
    struct stat st;

    write_ok(channel, "ab", "cd");
    assert_absent(f, "image");
    g_assert_cmpuint(channel_get_bytes(channel), ==, 4);
    commit_ok(channel);
    assert_content(f, "image", "abcd", 4);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpuint(st.st_mode & 0077, ==, 0);
    remove_files(f, "image", NULL);
}

static void test_uncommitted_leaves_nothing(Fixture *f, gconstpointer data)
{
    Channel *channel = open_ok("file:%s/image", f->dir);

    write_ok(channel, "ab", "cd");
    channel_free(channel);
    /* teardown finds the directory empty */
}

static void test_replaces_file_keeps_mode(Fixture *f, gconstpointer data)
{
    g_autofree char *path = in_dir(f, "image");
    struct stat st;

    g_assert_true(g_file_set_contents(path, "old content", -1, NULL));
    g_assert_cmpint(chmod(path, 0640), ==, 0);
    Channel *abandoned = open_ok("%s", path);
    write_ok(abandoned, "new", "");
    channel_free(abandoned);
    assert_content(f, "image", "old content", 11);

    g_autoptr(Channel) channel = open_ok("%s", path);
    write_ok(channel, "new", "");
    assert_content(f, "image", "old content", 11);
    commit_ok(channel);
    assert_content(f, "image", "new", 3);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpuint(st.st_mode & 0777, ==, 0640);
    remove_files(f, "image", NULL);
}

static void test_link_stays(Fixture *f, gconstpointer data)
{
    g_autofree char *path = in_dir(f, "target");
    g_autofree char *link = in_dir(f, "link");

    g_assert_true(g_file_set_contents(path, "old", -1, NULL));
    g_assert_cmpint(symlink("target", link), ==, 0);
    g_autoptr(Channel) channel = open_ok("%s", link);
    write_ok(channel, "new", "");
    commit_ok(channel);
    g_assert_true(g_file_test(link, G_FILE_TEST_IS_SYMLINK));
    assert_content(f, "target", "new", 3);
    remove_files(f, "target", "link", NULL);
}

static void test_offset(Fixture *f, gconstpointer data)
{
    g_autofree char *path = in_dir(f, "image");

    g_assert_true(g_file_set_contents(path, "0123456789", -1, NULL));
    g_autoptr(Channel) inside = open_ok("file:%s,offset=4", path);
    write_ok(inside, "ab", "");
    commit_ok(inside);
    assert_content(f, "image", "0123ab", 6);

    g_autoptr(Channel) beyond = open_ok("file:%s,offset=8", path);
    write_ok(beyond, "cd", "");
    g_assert_cmpuint(channel_get_bytes(beyond), ==, 2);
    commit_ok(beyond);
    assert_content(f, "image", "0123ab\0\0cd", 10);

    g_autoptr(Channel) fresh = open_ok("file:%s/other,offset=3", f->dir);
    write_ok(fresh, "x", "");
    commit_ok(fresh);
    assert_content(f, "other", "\0\0\0x", 4);
    remove_files(f, "image", "other", NULL);
}

static void test_long_name(Fixture *f, gconstpointer data)
{
    g_autofree char *name = g_strnfill(255, 'n');

    for (int i = 0; i < 2; i++) {
        g_autoptr(Channel) channel = open_ok("%s/%s", f->dir, name);
        write_ok(channel, "x", "");
        commit_ok(channel);
    }
    assert_content(f, name, "x", 1);
    remove_files(f, name, NULL);
}

static void assert_open_fails(Fixture *f, const char *name, const char *words)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Channel) channel = open_text(&error, "%s/%s", f->dir, name);

    g_assert_null(channel);
    g_assert_error(error, SF_ERROR, SF_ERROR_IO);
    if (!strstr(error->message, words)) {
        g_error("\"%s\" lacks \"%s\"", error->message, words);
    }
}

static void test_wrong_places(Fixture *f, gconstpointer data)
{
    g_autofree char *link = in_dir(f, "dangling");

    g_assert_cmpint(symlink("nowhere", link), ==, 0);
    assert_open_fails(f, "", "is a directory");
    assert_open_fails(f, "missing/image", "create the directory first");
    assert_open_fails(f, "dangling", "symbolic link to nothing");
    remove_files(f, "dangling", NULL);
}

static void test_fifo(Fixture *f, gconstpointer data)
{
    g_autofree char *path = in_dir(f, "fifo");
    char buffer[8];

    g_assert_cmpint(mkfifo(path, 0600), ==, 0);
    sf_autofd reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    g_autoptr(Channel) channel = open_ok("%s", path);
    write_ok(channel, "ab", "cd");
    commit_ok(channel);
    g_assert_cmpint(read(reader, buffer, sizeof(buffer)), ==, 4);
    g_assert_cmpint(read(reader, buffer, sizeof(buffer)), ==, 0);
    remove_files(f, "fifo", NULL);
}

/* A full device is the real ENOSPC that needs no disk. */
static void test_no_space(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Channel) channel = open_ok("/dev/full");

    g_assert_false(try_write(channel, "x", "", &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_IO);
    g_assert_nonnull(strstr(error->message, "choose another destination"));
}

/* ---- faults that are switched on by the environment, so each in a process of its own ---- */

static void run_with_faults(const char *path, const char *faults)
{
    g_setenv("STILLFRAME_FAULTS", faults, TRUE);
    g_test_trap_subprocess(path, 0, G_TEST_SUBPROCESS_DEFAULT);
    g_unsetenv("STILLFRAME_FAULTS");
    g_test_trap_assert_passed();
}

static guint count_entries(Fixture *f)
{
    g_autoptr(GDir) dir = g_dir_open(f->dir, 0, NULL);
    guint count = 0;

    while (g_dir_read_name(dir)) {
        count++;
    }
    return count;
}

static void test_named_temporary_inner(Fixture *f, gconstpointer data)
{
    Channel *abandoned = open_ok("%s/image", f->dir);
    write_ok(abandoned, "a", "");
    g_assert_cmpuint(count_entries(f), ==, 1);
    assert_absent(f, "image");
    channel_free(abandoned);
    g_assert_cmpuint(count_entries(f), ==, 0);

    for (int i = 0; i < 2; i++) {
        g_autoptr(Channel) channel = open_ok("%s/image", f->dir);
        write_ok(channel, "ab", "");
        commit_ok(channel);
        assert_content(f, "image", "ab", 2);
    }
    remove_files(f, "image", NULL);
}

static void test_write_fault_inner(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Channel) channel = open_ok("%s/image", f->dir);

    write_ok(channel, "a", "");
    g_assert_false(try_write(channel, "b", "", &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_IO);
    /* teardown: the directory is empty */
}

static void test_faults(void)
{
    if (!test_need_faults()) {
        return;
    }
    run_with_faults("/channel/file/named-temporary/subprocess", "no-o-tmpfile");
    run_with_faults("/channel/file/write-fault/subprocess", "write-enospc=2");
    run_with_faults("/channel/file/write-fault/subprocess", "write-eio=2");
}

/* ---- exec ---- */

static void test_exec(Fixture *f, gconstpointer data)
{
    g_autoptr(Channel) channel =
        open_ok("exec:cat > '%s/out'; cut -d' ' -f6 /proc/$$/stat > '%s/sid'; echo $$ >> '%s/sid'",
                f->dir, f->dir, f->dir);
    g_autofree char *big = g_strnfill(3 * 1024 * 1024, 'x');
    g_autofree char *path = in_dir(f, "sid");
    g_autofree char *sid = NULL;
    int leader;
    int shell;

    write_ok(channel, big, big);
    commit_ok(channel);
    g_autofree char *both = g_strconcat(big, big, NULL);
    assert_content(f, "out", both, strlen(both));
    g_assert_true(g_file_get_contents(path, &sid, NULL, NULL));
    g_assert_cmpint(sscanf(sid, "%d %d", &leader, &shell), ==, 2);
    g_assert_cmpint(leader, ==, shell);
    remove_files(f, "out", "sid", NULL);
}

static void assert_exec_commit_fails(const char *command, const char *words)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Channel) channel = open_ok("exec:%s", command);

    write_ok(channel, "x", "");
    g_assert_false(channel_commit(channel, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_IO);
    g_test_message("%s", error->message);
    g_assert_nonnull(strstr(error->message, command));
    g_assert_nonnull(strstr(error->message, words));
}

static void test_exec_status(void)
{
    assert_exec_commit_fails("cat > /dev/null; exit 3", "status 3");
    assert_exec_commit_fails("read x; kill -KILL $$", "signal 9");
}

/* Writes until it fails. */
static void write_until_error(Channel *channel, GError **errp)
{
    g_autofree char *block = g_strnfill(1024 * 1024, 'x');

    for (int i = 0; i < 64 && try_write(channel, block, "", errp); i++) {
    }
}

static void assert_exec_breaks(const char *command, const char *words)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Channel) channel = open_ok("exec:%s", command);

    write_until_error(channel, &error);
    g_assert_error(error, SF_ERROR, SF_ERROR_IO);
    g_test_message("%s", error->message);
    g_assert_nonnull(strstr(error->message, words));
}

static void test_exec_broken_pipe(void)
{
    assert_exec_breaks("exit 4", "status 4");
    assert_exec_breaks("exit 0", "ended with status 0 before");
    assert_exec_breaks("kill -TERM $$", "signal 15");
    assert_exec_breaks("exec </dev/null; sleep 100", "closed its standard input before");
}

/* What the command started in the background is ended as well. */
static void test_exec_free_ends_group(Fixture *f, gconstpointer data)
{
    Channel *channel = open_ok("exec:sleep 100 & echo $! > '%s/pid'; cat > /dev/null", f->dir);
    g_autofree char *path = in_dir(f, "pid");
    g_autofree char *text = NULL;

    for (int i = 0; i < 500; i++) {
        g_clear_pointer(&text, g_free);
        if (g_file_get_contents(path, &text, NULL, NULL) && strchr(text, '\n')) {
            break;
        }
        g_usleep(10000);
    }
    pid_t pid = atoi(text);
    g_assert_cmpint(pid, >, 0);
    g_assert_cmpint(kill(pid, 0), ==, 0);
    channel_free(channel);
    /* Its new parent may take a moment to reap it. */
    g_autofree char *stat_path = g_strdup_printf("/proc/%d/stat", pid);
    for (int i = 0; i < 500 && kill(pid, 0) == 0; i++) {
        g_autofree char *stat = NULL;
        if (!g_file_get_contents(stat_path, &stat, NULL, NULL) || strstr(stat, ") Z ")) {
            break;
        }
        g_assert_cmpint(i, <, 499);
        g_usleep(10000);
    }
    remove_files(f, "pid", NULL);
}

/* ---- descriptors ---- */

static void test_fd_file(Fixture *f, gconstpointer data)
{
    g_autofree char *path = in_dir(f, "out");
    sf_autofd fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);

    g_assert_cmpint(write(fd, "01", 2), ==, 2);
    g_autoptr(Channel) channel = open_ok("fd:%d", fd);
    write_ok(channel, "ab", "c");
    commit_ok(channel);
    /* It is still ours. */
    g_assert_cmpint(write(fd, "2", 1), ==, 1);
    assert_content(f, "out", "01abc2", 6);
    remove_files(f, "out", NULL);
}

static void test_fd_refused(void)
{
    g_autoptr(GError) closed = NULL;
    g_autoptr(GError) reading = NULL;
    sf_autofd fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    g_assert_null(open_text(&closed, "fd:%d", 987));
    g_assert_error(closed, SF_ERROR, SF_ERROR_IO);
    g_assert_null(open_text(&reading, "fd:%d", fd));
    g_assert_error(reading, SF_ERROR, SF_ERROR_IO);
}

typedef struct Drain {
    int fd;
    guint delay_us;
    guint64 total;
    guint64 sum;
} Drain;

static gpointer drain_thread(gpointer data)
{
    Drain *drain = data;
    static const gsize size = 65536;
    g_autofree guint8 *buffer = g_malloc(size);
    ssize_t n;

    while ((n = read(drain->fd, buffer, size)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            drain->sum += buffer[i] * (drain->total + (guint64)i + 1);
        }
        drain->total += (guint64)n;
        g_usleep(drain->delay_us);
    }
    return NULL;
}

/* Numbered bytes through a slow reader: all arrive, in order, though each write is a short one. */
static void push_through(Channel *channel, Drain *drain, int *keep)
{
    const gsize size = 2 * 1024 * 1024 + 123;
    g_autofree char *block = g_malloc(size);
    GThread *thread = g_thread_new("drain", drain_thread, drain);
    guint64 sum = 0;
    g_autoptr(GError) error = NULL;

    for (gsize i = 0; i < size; i++) {
        block[i] = (char)(i * 31 + i / 4096);
        sum += (guint8)block[i] * (i + 1);
    }
    struct iovec iov[3000];
    for (int i = 0; i < 3000; i++) {
        gsize from = size * (gsize)i / 3000;
        gsize to = size * ((gsize)i + 1) / 3000;
        iov[i] = (struct iovec){ block + from, to - from };
    }
    g_assert_true(channel_writev(channel, iov, G_N_ELEMENTS(iov), &error));
    g_assert_no_error(error);
    commit_ok(channel);
    if (keep) {
        sf_clear_fd(keep);
    }
    g_thread_join(thread);
    g_assert_cmpuint(drain->total, ==, size);
    g_assert_cmpuint(drain->sum, ==, sum);
    g_assert_cmpuint(channel_get_bytes(channel), ==, size);
}

static void test_fd_pipe(void)
{
    int ends[2];

    g_assert_cmpint(pipe2(ends, O_CLOEXEC), ==, 0);
    sf_autofd reader = ends[0];
    sf_autofd writer = ends[1];
    Drain drain = { .fd = reader, .delay_us = 100 };
    g_autoptr(Channel) channel = open_ok("fd:%d", writer);
    push_through(channel, &drain, &writer);
}

static void test_fd_flags_untouched(void)
{
    int ends[2];
    int pair[2];

    g_assert_cmpint(pipe2(ends, O_CLOEXEC), ==, 0);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    g_autoptr(Channel) pipe_channel = open_ok("fd:%d", ends[1]);
    g_autoptr(Channel) socket_channel = open_ok("fd:%d", pair[1]);
    write_ok(pipe_channel, "x", "");
    write_ok(socket_channel, "x", "");
    g_assert_cmpint(fcntl(ends[1], F_GETFL) & O_NONBLOCK, ==, 0);
    g_assert_cmpint(fcntl(pair[1], F_GETFL) & O_NONBLOCK, ==, 0);
    for (int i = 0; i < 2; i++) {
        close(ends[i]);
        close(pair[i]);
    }
}

static void test_fd_reader_gone(void)
{
    int ends[2];
    g_autoptr(GError) error = NULL;

    g_assert_cmpint(pipe2(ends, O_CLOEXEC), ==, 0);
    sf_autofd writer = ends[1];
    g_autoptr(Channel) channel = open_ok("fd:%d", writer);
    close(ends[0]);
    g_assert_false(try_write(channel, "x", "", &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_IO);
    g_assert_nonnull(strstr(error->message, "reader went away"));
}

/* ---- sockets ---- */

static int listen_on(const struct sockaddr *address, socklen_t length)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(bind(fd, address, length), ==, 0);
    g_assert_cmpint(listen(fd, 1), ==, 0);
    return fd;
}

static int listen_on_path(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    g_assert_cmpuint(strlen(path), <, sizeof(address.sun_path));
    strcpy(address.sun_path, path);
    return listen_on((struct sockaddr *)&address, sizeof(address));
}

static void test_unix(Fixture *f, gconstpointer data)
{
    g_autofree char *path = in_dir(f, "socket");
    g_autoptr(GError) error = NULL;
    sf_autofd listener = listen_on_path(path);
    g_autoptr(Channel) channel = open_ok("unix:%s", path);
    sf_autofd peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    Drain drain = { .fd = peer, .delay_us = 100 };
    push_through(channel, &drain, NULL);

    sf_clear_fd(&listener);
    g_assert_null(open_text(&error, "unix:%s", path));
    g_assert_error(error, SF_ERROR, SF_ERROR_IO);
    g_assert_nonnull(strstr(error->message, "start its reader first"));
    remove_files(f, "socket", NULL);
}

static void test_tcp(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    socklen_t length = sizeof(address);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sf_autofd listener = listen_on((struct sockaddr *)&address, length);
    g_assert_cmpint(getsockname(listener, (struct sockaddr *)&address, &length), ==, 0);
    g_autoptr(Channel) channel = open_ok("tcp:127.0.0.1:%d", ntohs(address.sin_port));
    sf_autofd peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    /* Words from the reader are no reason to lose the stream by a reset. */
    g_assert_cmpint(write(peer, "hello", 5), ==, 5);
    Drain drain = { .fd = peer, .delay_us = 100 };
    push_through(channel, &drain, NULL);
}

/* A reader that dies with the end of the stream unread: commit must not call that an image. */
static void test_socket_unread(Fixture *f, gconstpointer data)
{
    g_autofree char *path = in_dir(f, "socket");
    g_autoptr(GError) error = NULL;
    sf_autofd listener = listen_on_path(path);
    g_autoptr(Channel) channel = open_ok("unix:%s", path);
    sf_autofd peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    write_ok(channel, "never read", "");
    sf_clear_fd(&peer);
    g_assert_false(channel_commit(channel, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_IO);
    remove_files(f, "socket", NULL);
}

/* ---- interruption ---- */

static gpointer interrupt_thread(gpointer data)
{
    g_usleep(50000);
    channel_interrupt(data);
    return NULL;
}

static void assert_interruptible(Channel *channel)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GError) again = NULL;
    GThread *thread = g_thread_new("interrupt", interrupt_thread, channel);

    write_until_error(channel, &error);
    g_thread_join(thread);
    g_assert_error(error, SF_ERROR, SF_ERROR_CANCELLED);
    g_assert_false(try_write(channel, "x", "", &again));
    g_assert_error(again, SF_ERROR, SF_ERROR_CANCELLED);
}

static void test_interrupt(void)
{
    int ends[2];
    int pair[2];

    g_assert_cmpint(pipe2(ends, O_CLOEXEC), ==, 0);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    g_autoptr(Channel) pipe_channel = open_ok("fd:%d", ends[1]);
    assert_interruptible(pipe_channel);
    g_autoptr(Channel) socket_channel = open_ok("fd:%d", pair[1]);
    assert_interruptible(socket_channel);
    g_autoptr(Channel) exec_channel = open_ok("exec:sleep 100");
    assert_interruptible(exec_channel);
    for (int i = 0; i < 2; i++) {
        close(ends[i]);
        close(pair[i]);
    }
}

static void test_interrupt_commit(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Channel) channel = open_ok("exec:cat > /dev/null; sleep 100");
    GThread *thread = g_thread_new("interrupt", interrupt_thread, channel);

    g_assert_false(channel_commit(channel, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_CANCELLED);
    g_thread_join(thread);
}

/* An image that was given up gets no name, however complete it is. */
static void test_interrupted_file(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Channel) channel = open_ok("%s/image", f->dir);

    write_ok(channel, "x", "");
    channel_interrupt(channel);
    g_assert_false(channel_commit(channel, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_CANCELLED);
}

#define ADD(path, func) g_test_add(path, Fixture, NULL, setup, func, teardown)

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    g_test_init(&argc, &argv, NULL);
    ADD("/channel/file/appears-at-commit", test_appears_at_commit);
    ADD("/channel/file/uncommitted-leaves-nothing", test_uncommitted_leaves_nothing);
    ADD("/channel/file/replaces-keeping-mode", test_replaces_file_keeps_mode);
    ADD("/channel/file/link-stays", test_link_stays);
    ADD("/channel/file/offset", test_offset);
    ADD("/channel/file/long-name", test_long_name);
    ADD("/channel/file/wrong-places", test_wrong_places);
    ADD("/channel/file/fifo", test_fifo);
    ADD("/channel/file/no-space", test_no_space);
    ADD("/channel/file/named-temporary/subprocess", test_named_temporary_inner);
    ADD("/channel/file/write-fault/subprocess", test_write_fault_inner);
    g_test_add_func("/channel/file/faults", test_faults);
    ADD("/channel/exec/stream", test_exec);
    g_test_add_func("/channel/exec/status", test_exec_status);
    g_test_add_func("/channel/exec/broken-pipe", test_exec_broken_pipe);
    ADD("/channel/exec/free-ends-group", test_exec_free_ends_group);
    ADD("/channel/fd/file", test_fd_file);
    g_test_add_func("/channel/fd/refused", test_fd_refused);
    g_test_add_func("/channel/fd/pipe", test_fd_pipe);
    g_test_add_func("/channel/fd/flags-untouched", test_fd_flags_untouched);
    g_test_add_func("/channel/fd/reader-gone", test_fd_reader_gone);
    ADD("/channel/socket/unix", test_unix);
    g_test_add_func("/channel/socket/tcp", test_tcp);
    ADD("/channel/socket/unread", test_socket_unread);
    g_test_add_func("/channel/interrupt/write", test_interrupt);
    g_test_add_func("/channel/interrupt/commit", test_interrupt_commit);
    ADD("/channel/interrupt/file", test_interrupted_file);
    return g_test_run();
}
