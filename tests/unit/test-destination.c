/*
 * Destinations and sizes: what is understood, and what is refused with which words.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/channel.h"

static Destination *parse(const char *text)
{
    g_autoptr(GError) error = NULL;
    Destination *destination = destination_parse(text, &error);

    g_assert_no_error(error);
    return destination;
}

static void assert_file(const char *text, const char *path, guint64 offset)
{
    g_autoptr(Destination) d = parse(text);

    g_assert_cmpint(d->kind, ==, DEST_FILE);
    g_assert_cmpstr(d->path, ==, path);
    g_assert_cmpuint(d->offset, ==, offset);
}

static void test_files(void)
{
    assert_file("image", "image", 0);
    assert_file("/a:b/c", "/a:b/c", 0);
    assert_file("./a:b", "./a:b", 0);
    assert_file("file:a:b", "a:b", 0);
    assert_file("file:/x,y", "/x,y", 0);
    assert_file("file:/x,offset=4096", "/x", 4096);
    assert_file("file:/x,offset=0x1000", "/x", 4096);
    assert_file("/x,offset=3M", "/x", 3 * 1024 * 1024);
}

static void test_others(void)
{
    g_autoptr(Destination) exec = parse("exec:zstd -q > /tmp/a:b,offset=1");
    g_assert_cmpint(exec->kind, ==, DEST_EXEC);
    g_assert_cmpstr(exec->path, ==, "zstd -q > /tmp/a:b,offset=1");

    g_autoptr(Destination) fd = parse("fd:17");
    g_assert_cmpint(fd->kind, ==, DEST_FD);
    g_assert_cmpint(fd->fd, ==, 17);

    g_autoptr(Destination) unix_socket = parse("unix:/run/x:y");
    g_assert_cmpint(unix_socket->kind, ==, DEST_UNIX);
    g_assert_cmpstr(unix_socket->path, ==, "/run/x:y");

    g_autoptr(Destination) tcp = parse("tcp:host.example:4444");
    g_assert_cmpint(tcp->kind, ==, DEST_TCP);
    g_assert_cmpstr(tcp->path, ==, "host.example");
    g_assert_cmpstr(tcp->port, ==, "4444");

    g_autoptr(Destination) v6 = parse("tcp:[::1]:4444");
    g_assert_cmpstr(v6->path, ==, "::1");
    g_assert_cmpstr(v6->port, ==, "4444");
}

static void test_refused(void)
{
    static const char *const wrong[] = {
        "",
        "file:",
        "file:,offset=1",
        "file:/x,offset=",
        "exec:",
        "file:/x,offset=-1",
        "file:/x,offset=1,offset=2",
        "unix:",
        "fd:",
        "fd:name",
        "fd:-1",
        "fd:99999999999",
        "fd:1x",
        "tcp:host",
        "tcp::1",
        "tcp:host:",
        "tcp:[::1]",
        "tcp:[::1",
        "tcp:[]:1",
        "tcp:::1:4444",
        "tcp:h:1,to=9",
        "rdma:host:1",
        "vsock:1:2",
        "a:b",
    };

    for (guint i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(Destination) d = destination_parse(wrong[i], &error);
        g_test_message("%s -> %s", wrong[i], error ? error->message : "taken");
        g_assert_null(d);
        g_assert_error(error, SF_ERROR, SF_ERROR_USAGE);
    }
}

static void test_sizes(void)
{
    static const struct {
        const char *text;
        guint64 size;
    } right[] = {
        { "0", 0 },
        { "512", 512 },
        { "1k", 1024 },
        { "1K", 1024 },
        { "2m", 2 << 20 },
        { "3G", 3ULL << 30 },
        { "4t", 4ULL << 40 },
        { "5P", 5ULL << 50 },
        { "7E", 7ULL << 60 },
        { "0X1e", 30 },
        { "9223372036854775807", G_MAXINT64 },
    };
    guint64 size;

    for (guint i = 0; i < G_N_ELEMENTS(right); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_true(destination_parse_size(right[i].text, &size, &error));
        g_assert_no_error(error);
        g_assert_cmpuint(size, ==, right[i].size);
    }
}

static void test_wrong_sizes(void)
{
    static const char *const wrong[] = {
        "",
        " 1",
        "+1",
        "-1",
        "k",
        "1kk",
        "1KiB",
        "1.5G",
        "0x",
        "0xg",
        "0x1k",
        "8E",
        "9223372036854775808",
        "99999999999999999999999",
        "0x8000000000000000",
    };
    guint64 size;

    for (guint i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_false(destination_parse_size(wrong[i], &size, &error));
        g_assert_error(error, SF_ERROR, SF_ERROR_USAGE);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/destination/files", test_files);
    g_test_add_func("/destination/others", test_others);
    g_test_add_func("/destination/refused", test_refused);
    g_test_add_func("/destination/sizes", test_sizes);
    g_test_add_func("/destination/wrong-sizes", test_wrong_sizes);
    return g_test_run();
}
