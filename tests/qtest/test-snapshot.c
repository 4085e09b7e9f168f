/*
 * What "stillframe snapshot" promises to a person: every form of destination, finding the VM,
 * VMs that do not run, giving up, a full buffer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <gio/gio.h>
#include <gio/gunixsocketaddress.h>

#include "tests/process.h"
#include "util/autofd.h"
#include "writer-guest.h"

/* A reader that begins late: the buffer and the pipe fill up, the snapshot stands in the middle. */
#define SLOW_READER "exec:sleep %d; cat > '%s'"

static void snapshot_to(TestVm *vm, const char *destination)
{
    g_autofree char *said = NULL;
    int status = test_tool_run(NULL, &said, "snapshot", "--qmp", test_vm_get_socket(vm),
                               "--no-sync", destination, NULL);

    g_assert_cmpstr(said, ==, "");
    g_assert_cmpint(status, ==, 0);
}

static void test_file(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *plain = test_dir_file(dir, "plain");
    g_autofree char *named = test_dir_file(dir, "named");
    g_autofree char *uri = g_strdup_printf("file:%s", named);

    g_assert_true(g_file_set_contents(plain, "an old image", -1, NULL));
    g_assert_cmpint(
        test_tool_run(NULL, NULL, "snapshot", "--qmp", test_vm_get_socket(vm), plain, NULL), ==, 0);
    snapshot_to(vm, uri);
    g_assert_cmpuint(writer_guest_check_image(named, 0), >, writer_guest_check_image(plain, 0));
    test_dir_assert_holds(dir, "plain", "named", NULL);
    writer_guest_assert_loads(named, "running");
}

/* What stands before the offset is kept: a management program's header. */
static void test_file_with_offset(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");
    g_autofree char *uri = g_strdup_printf("file:%s,offset=66580", path);
    g_autofree char *header = g_strnfill(66580, 'h');
    g_autofree char *text = NULL;

    g_assert_true(g_file_set_contents(path, header, -1, NULL));
    snapshot_to(vm, uri);
    writer_guest_check_image(path, 66580);
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpmem(text, 66580, header, 66580);
}

static void test_exec(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");
    g_autofree char *uri = g_strdup_printf("exec:gzip -1 | gzip -d > '%s'", path);

    snapshot_to(vm, uri);
    writer_guest_check_image(path, 0);
}

static void test_fd(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");
    g_autofree char *line =
        g_strdup_printf("\"$STILLFRAME_BIN\" snapshot --qmp '%s' fd:7 7> '%s' && "
                        "\"$STILLFRAME_BIN\" snapshot --qmp '%s' fd:7 7>&1 | cat > '%s.piped'",
                        test_vm_get_socket(vm), path, test_vm_get_socket(vm), path);
    const char *const argv[] = { "/bin/sh", "-c", line, NULL };
    g_autofree char *said = NULL;

    g_assert_cmpint(test_tool_finish(test_tool_start_command(argv), 60000, NULL, &said), ==, 0);
    g_assert_cmpstr(said, ==, "");
    writer_guest_check_image(path, 0);
    /* The report went the same way behind the image: every loader stops at the image's end. */
    g_autofree char *piped = g_strdup_printf("%s.piped", path);
    writer_guest_assert_loads(piped, "running");
}

/* Accepts one connection and stores what comes. */
typedef struct Receiver {
    GSocketListener *listener;
    const char *path;
} Receiver;

static gpointer receive(gpointer data)
{
    Receiver *receiver = data;
    g_autoptr(GSocketConnection) connection =
        g_socket_listener_accept(receiver->listener, NULL, NULL, NULL);
    g_autoptr(GFile) file = g_file_new_for_path(receiver->path);
    g_autoptr(GFileOutputStream) out = g_file_replace(file, NULL, FALSE, 0, NULL, NULL);

    g_output_stream_splice(G_OUTPUT_STREAM(out),
                           g_io_stream_get_input_stream(G_IO_STREAM(connection)),
                           G_OUTPUT_STREAM_SPLICE_CLOSE_TARGET, NULL, NULL);
    return NULL;
}

static void receive_and_check(GSocketListener *listener, const char *uri, TestDir *dir)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    g_autofree char *path = test_dir_file(dir, "image");
    Receiver receiver = { .listener = listener, .path = path };
    GThread *thread = g_thread_new("receiver", receive, &receiver);

    snapshot_to(vm, uri);
    g_thread_join(thread);
    writer_guest_check_image(path, 0);
}

static void test_tcp(void)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autoptr(GSocketListener) listener = g_socket_listener_new();
    guint16 port = g_socket_listener_add_any_inet_port(listener, NULL, NULL);
    g_autofree char *uri = g_strdup_printf("tcp:127.0.0.1:%u", port);

    receive_and_check(listener, uri, dir);
}

static void test_unix(void)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autoptr(GSocketListener) listener = g_socket_listener_new();
    g_autofree char *path = test_dir_file(dir, "socket");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    g_autoptr(GSocketAddress) address = g_unix_socket_address_new(path);

    g_assert_true(g_socket_listener_add_address(listener, address, G_SOCKET_TYPE_STREAM,
                                                G_SOCKET_PROTOCOL_DEFAULT, NULL, NULL, NULL));
    receive_and_check(listener, uri, dir);
}

/* The monitor is found from the process itself. */
static void test_by_pid_alone(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");
    g_autofree char *pid = g_strdup_printf("%d", (int)test_vm_get_pid(vm));
    g_autofree char *out = NULL, *said = NULL;

    g_assert_cmpint(test_tool_run(&out, &said, "snapshot", "--pid", pid, path, NULL), ==, 0);
    g_assert_cmpstr(said, ==, "");
    g_assert_nonnull(strstr(out, "Downtime"));
    g_assert_nonnull(strstr(out, "p99"));
    writer_guest_check_image(path, 0);
    writer_guest_assert_goes_on(vm);
}

static void test_paused_stays_paused(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");

    test_vm_qmp_void(vm, "stop", NULL);
    guint64 counter = writer_guest_read_counter(vm);
    snapshot_to(vm, path);
    test_vm_assert_status(vm, "paused");
    g_assert_cmpuint(writer_guest_check_image(path, 0), ==, counter);
    writer_guest_assert_loads(path, "paused");
    test_vm_qmp_void(vm, "cont", NULL);
    writer_guest_assert_goes_on(vm);
}

/* Sends @command while memory is being armed; the VM is then in @state and must stay in it. */
static void assert_state_kept(TestVm *vm, const char *command, const char *state)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");
    /* Populating the holes of a GiB first takes a second. */
    TestTool *tool = test_tool_start_faulty(
        "no-wp-unpopulated",
        (const char *const[]){ "snapshot", "--qmp", test_vm_get_socket(vm), path, NULL });
    g_autofree char *said = NULL;

    g_usleep(300000);
    test_vm_qmp_void(vm, command, NULL);
    int status = test_tool_finish(tool, 60000, NULL, &said);
    g_assert_cmpstr(said, ==, "");
    g_assert_cmpint(status, ==, 0);
    test_vm_assert_status(vm, state);
    writer_guest_check_image(path, 0);
}

/* With small pages, which are populated one by one. */
static TestVm *start_sparse(const char *option)
{
    TestVm *vm = writer_guest_new("-m", "1536", option, NULL);

    g_assert_no_errno(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
    test_vm_launch(vm);
    g_assert_no_errno(prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0));
    return vm;
}

static void test_paused_while_arming(void)
{
    if (!test_need_faults()) {
        return;
    }
    g_autoptr(TestVm) vm = start_sparse(NULL);

    test_vm_serial_wait(vm, "VV", WRITER_TIMEOUT_MS);
    assert_state_kept(vm, "stop", "paused");
    test_vm_qmp_void(vm, "cont", NULL);
    writer_guest_assert_goes_on(vm);
}

static void test_resumed_while_arming(void)
{
    if (!test_need_faults()) {
        return;
    }
    g_autoptr(TestVm) vm = start_sparse("-S");

    /* The guest starts, and is there at the instant. */
    assert_state_kept(vm, "cont", "running");
    writer_guest_assert_goes_on(vm);
}

/* QEMU's own background-snapshot aborts in this state. */
static void test_prelaunch(void)
{
    g_autoptr(TestVm) vm = writer_guest_new("-S", NULL);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");

    test_vm_launch(vm);
    test_vm_assert_status(vm, "prelaunch");
    snapshot_to(vm, path);
    test_vm_assert_status(vm, "prelaunch");
    writer_guest_assert_loads(path, "prelaunch");
    test_vm_qmp_void(vm, "cont", NULL);
    test_vm_serial_wait(vm, "VV", WRITER_TIMEOUT_MS);
}

/* Begins a snapshot whose reader sleeps, and waits until it is in the sweep. */
static TestTool *start_slow(TestVm *vm, TestDir *dir, const char *on_full)
{
    g_autofree char *path = test_dir_file(dir, "image");
    g_autofree char *uri = g_strdup_printf(SLOW_READER, 3, path);
    const char *const args[] = { "snapshot", "--json", "--max-buffer",         "8M", "--on-full",
                                 on_full,    "--qmp",  test_vm_get_socket(vm), uri,  NULL };
    TestTool *tool = test_tool_start(args);

    g_usleep(1000000);
    return tool;
}

static void assert_cancelled_by(int signal_number)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *said = NULL;
    TestTool *tool = start_slow(vm, dir, "stall");

    g_assert_cmpint(kill(test_tool_get_pid(tool), signal_number), ==, 0);
    g_assert_cmpint(test_tool_finish(tool, 2000, NULL, &said), ==, 130);
    g_assert_nonnull(strstr(said, "cancelled"));
    writer_guest_assert_goes_on(vm);
    test_vm_assert_status(vm, "running");
}

static void test_cancel(void)
{
    assert_cancelled_by(SIGINT);
    assert_cancelled_by(SIGTERM);
}

/* The same into a file, at any moment: nothing stays, under no name. */
static void test_cancel_leaves_no_file(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");
    const char *const args[] = { "snapshot", "--qmp", test_vm_get_socket(vm), path, NULL };

    for (guint i = 0; i < 12; i++) {
        TestTool *tool = test_tool_start(args);
        g_usleep((gulong)g_random_int_range(0, 150000));
        kill(test_tool_get_pid(tool), SIGINT);
        int status = test_tool_finish(tool, 5000, NULL, NULL);
        /* It may have been faster than the signal, or not yet ready to hear it. */
        g_assert_true(status == 0 || status == 130 || status == 128 + SIGINT);
        test_dir_assert_holds(dir, status == 0 ? "image" : NULL, NULL);
        unlink(path);
    }
    writer_guest_assert_goes_on(vm);
}

static gint64 buffer_member(const char *report, const char *name)
{
    g_autoptr(JsonNode) node = json_from_string(report, NULL);
    JsonObject *buffer = json_object_get_object_member(json_node_get_object(node), "buffer");

    return json_object_get_int_member(buffer, name);
}

static void test_full_buffer_stalls(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");
    g_autofree char *out = NULL, *said = NULL;
    TestTool *tool = start_slow(vm, dir, "stall");

    g_assert_cmpint(test_tool_finish(tool, 60000, &out, &said), ==, 0);
    g_assert_cmpstr(said, ==, "");
    g_assert_cmpint(buffer_member(out, "stalls"), >, 0);
    g_assert_cmpint(buffer_member(out, "peak"), <=, 8 << 20);
    g_assert_cmpint(buffer_member(out, "limit"), ==, 8 << 20);
    writer_guest_check_image(path, 0);
    writer_guest_assert_goes_on(vm);
}

static void test_full_buffer_cancels(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *said = NULL;
    TestTool *tool = start_slow(vm, dir, "cancel");

    g_assert_cmpint(test_tool_finish(tool, 60000, NULL, &said), ==, 1);
    g_assert_nonnull(strstr(said, "--max-buffer"));
    test_dir_assert_holds(dir, "image", NULL); /* the reader's own, if it came that far */
    writer_guest_assert_goes_on(vm);
}

/*
 * The progress bar is for a terminal: util-linux's script gives the tool one. The destination is
 * slow, so that there is time to show it.
 */
static void test_progress_on_a_terminal(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");
    g_autofree char *line =
        g_strdup_printf("TERM=xterm \"$STILLFRAME_BIN\" snapshot --max-buffer 8M --qmp '%s' "
                        "\"exec:sleep 1; cat > '%s'\"",
                        test_vm_get_socket(vm), path);
    const char *const argv[] = { "script", "-qec", line, "/dev/null", NULL };
    g_autofree char *out = NULL;

    g_assert_cmpint(test_tool_finish(test_tool_start_command(argv), 60000, &out, NULL), ==, 0);
    g_assert_nonnull(strstr(out, "saving"));
    g_assert_nonnull(strstr(out, "%"));
    g_assert_nonnull(strstr(out, "Downtime"));
}

/* QEMU is left as it was: no descriptor of ours stays in it, whether it runs or not. */
static void test_leaves_nothing_in_qemu(void)
{
    g_autoptr(TestVm) vm = writer_guest_start(NULL);
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *path = test_dir_file(dir, "image");

    for (guint paused = 0; paused < 2; paused++) {
        guint before = count_descriptors(test_vm_get_pid(vm));
        snapshot_to(vm, path);
        test_vm_assert_descriptors(vm, before);
        test_vm_qmp_void(vm, paused ? "cont" : "stop", NULL);
    }
    writer_guest_assert_goes_on(vm);
}

/* Into how many mappings the guest's RAM is cut, by the name of its file. */
static guint count_ram_mappings(pid_t pid, const char *name)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/maps", (int)pid);
    g_autofree char *maps = NULL;
    guint count = 0;

    g_assert_true(g_file_get_contents(path, &maps, NULL, NULL));
    for (const char *at = maps; (at = strstr(at, name)); at++) {
        count++;
    }
    return count;
}

/*
 * Regions are tracked and let go one by one. The kernel joins what was cut, but not huge pages; and
 * on Linux 6.1 a memory that was cut could not be protected a second time.
 */
static void assert_mappings_stay_whole(const char *object)
{
    g_autoptr(TestDir) dir = test_dir_new();
    g_autofree char *image = test_dir_file(dir, "image");
    g_autoptr(TestVm) vm =
        writer_guest_start("-object", object, "-machine", "memory-backend=mem0", NULL);

    for (guint i = 0; i < 2; i++) {
        snapshot_to(vm, image);
        g_assert_cmpuint(count_ram_mappings(test_vm_get_pid(vm), "/memfd:"), ==, 1);
    }
    writer_guest_assert_goes_on(vm);
}

static void test_mappings_stay_whole(void)
{
    assert_mappings_stay_whole("memory-backend-memfd,id=mem0,size=96M,share=on");
}

static void test_mappings_stay_whole_hugetlb(void)
{
    TestReaper *hugepages = NULL;

    if (test_hugepages_reserve(96, &hugepages)) {
        assert_mappings_stay_whole(
            "memory-backend-memfd,id=mem0,size=96M,share=on,hugetlb=on,hugetlbsize=2M");
        test_reaper_finish(hugepages);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/snapshot/to-file", test_file);
    g_test_add_func("/snapshot/to-file-with-offset", test_file_with_offset);
    g_test_add_func("/snapshot/to-exec", test_exec);
    g_test_add_func("/snapshot/to-fd", test_fd);
    g_test_add_func("/snapshot/to-tcp", test_tcp);
    g_test_add_func("/snapshot/to-unix", test_unix);
    g_test_add_func("/snapshot/by-pid-alone", test_by_pid_alone);
    g_test_add_func("/snapshot/paused-stays-paused", test_paused_stays_paused);
    g_test_add_func("/snapshot/paused-while-arming", test_paused_while_arming);
    g_test_add_func("/snapshot/resumed-while-arming", test_resumed_while_arming);
    g_test_add_func("/snapshot/prelaunch", test_prelaunch);
    g_test_add_func("/snapshot/leaves-nothing-in-qemu", test_leaves_nothing_in_qemu);
    g_test_add_func("/snapshot/mappings-stay-whole", test_mappings_stay_whole);
    g_test_add_func("/snapshot/mappings-stay-whole-hugetlb", test_mappings_stay_whole_hugetlb);
    g_test_add_func("/snapshot/cancel", test_cancel);
    g_test_add_func("/snapshot/cancel-leaves-no-file", test_cancel_leaves_no_file);
    g_test_add_func("/snapshot/full-buffer-stalls", test_full_buffer_stalls);
    g_test_add_func("/snapshot/full-buffer-cancels", test_full_buffer_cancels);
    g_test_add_func("/snapshot/progress-on-a-terminal", test_progress_on_a_terminal);
    return g_test_run();
}
