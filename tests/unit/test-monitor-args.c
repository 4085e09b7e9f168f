/*
 * Which monitors among QEMU's arguments are taken over, and which are left to QEMU.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "monitor/monitor-args.h"

#include <string.h>

typedef struct Case {
    const char *given;    /* behind "qemu" */
    const char *expected; /* behind "qemu"; "=" where nothing changes */
    const char *places;   /* one word a place */
    gboolean has_terminal;
} Case;

#define OURS(number) "unix:/d/monitor-" number ",server=on,wait=off"

static const Case cases[] = {
    { "-m 32", "=", "" },
    { "-monitor stdio", "-qmp " OURS("0"), "hmp:stdio" },
    { "--monitor stdio -m 1", "-qmp " OURS("0") " -m 1", "hmp:stdio" },
    { "-monitor stdio", "-qmp " OURS("0") " -chardev stdio,id=stillframe-terminal", "hmp:stdio",
      TRUE },
    { "-qmp stdio", "-qmp " OURS("0"), "qmp:stdio", TRUE },
    { "-qmp unix:/a,server=on,wait=off", "-qmp " OURS("0"), "qmp:/a" },
    { "-qmp unix:/a,server,nowait", "-qmp " OURS("0"), "qmp:/a" },
    { "-qmp unix:/a,server=on", "-qmp " OURS("0"), "qmp:/a:wait" },
    { "-qmp-pretty tcp:localhost:44,server=on,wait=off", "-qmp-pretty " OURS("0"),
      "qmp:localhost/44" },
    { "-qmp tcp:[::1]:44,server=on,wait=on", "-qmp " OURS("0"), "qmp:::1/44:wait" },
    { "-monitor tcp::44,server=on,wait=off", "-qmp " OURS("0"), "hmp:/44" },
    { "-monitor unix:/a,server=on,wait=off -qmp unix:/b,server=on,wait=off",
      "-qmp " OURS("0") " -qmp " OURS("1"), "hmp:/a qmp:/b" },
    { "-chardev socket,id=c,path=/a,server=on,wait=off -m 1 -mon chardev=c,mode=control",
      "-m 1 -qmp " OURS("0"), "qmp:/a" },
    { "-mon c,mode=control,pretty=on -chardev socket,id=c,path=/a,server=on,wait=off",
      "-qmp-pretty " OURS("0"), "qmp:/a" },
    { "-mon chardev=c -chardev stdio,id=c", "-qmp " OURS("0"), "hmp:stdio" },
    { "-monitor chardev:c -chardev stdio,id=c", "-qmp " OURS("0"), "hmp:stdio" },
    { "-chardev {\"backend\":\"x\",\"id\":\"c\"} -mon chardev=c", "=", "" },
    /* What is shared, or more than a listening socket, stays QEMU's. */
    { "-chardev stdio,id=c,mux=on -mon chardev=c -serial chardev:c", "=", "" },
    { "-chardev stdio,id=c -mon chardev=c -serial chardev:c", "=", "" },
    { "-chardev stdio,id=c -mon chardev=c -chardev hub,id=h,chardevs.0=c", "=", "" },
    { "-chardev stdio,id=c,signal=off -mon chardev=c", "=", "" },
    { "-serial mon:stdio -monitor none", "=", "" },
    { "-monitor mon:stdio -monitor pty -monitor vc -monitor pipe:/p -monitor null", "=", "" },
    { "-monitor telnet::44,server=on,wait=off -qmp unix:/a -qmp tcp:h:44", "=", "" },
    { "-qmp unix:/a,server=on,wait=off,reconnect=1", "=", "" },
    { "-qmp unix:/a,server=on,wait=off,abstract=on", "=", "" },
    { "-chardev socket,id=c,fd=3,server=on,wait=off -mon chardev=c,mode=control", "=", "" },
    { "-chardev socket,id=c,port=1,server=on,wait=off,tls-creds=t -mon chardev=c", "=", "" },
    { "-chardev socket,id=c,port=1,server=on,wait=off,telnet=on -mon chardev=c", "=", "" },
    { "-mon chardev=nobody,mode=control -nographic", "=", "" },
    { "-append -monitor stdio", "=", "" },
    { "-monitor", "=", "" },
    { "-mon chardev=c,mode=control,pretty=on,unheard=of -chardev stdio,id=c", "=", "" },
};

static char *describe_places(MonitorArgs *args)
{
    g_autoptr(GString) text = g_string_new(NULL);
    for (guint i = 0; i < args->places->len; i++) {
        const MonitorPlace *place = args->places->pdata[i];
        g_autofree char *backend = g_strdup_printf("/d/monitor-%u", i);
        g_assert_cmpstr(place->backend, ==, backend);
        g_string_append_printf(text, "%s%s:", i ? " " : "", place->is_qmp ? "qmp" : "hmp");
        if (place->is_stdio) {
            g_string_append(text, "stdio");
        } else if (place->path) {
            g_string_append(text, place->path);
        } else {
            g_string_append_printf(text, "%s/%s", place->host ? place->host : "", place->port);
        }
        g_string_append(text, place->wait ? ":wait" : "");
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}

static void test_table(void)
{
    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        const Case *each = &cases[i];
        g_autofree char *given = g_strconcat("qemu ", each->given, NULL);
        g_auto(GStrv) argv = g_strsplit(given, " ", -1);
        g_test_message("%s", given);
        g_autoptr(MonitorArgs) args = monitor_args_new(argv, "/d", each->has_terminal);
        g_autofree char *after = g_strjoinv(" ", (char **)args->argv->pdata);
        g_autofree char *places = describe_places(args);
        g_assert_true(g_str_has_prefix(after, "qemu "));
        g_assert_cmpstr(after + 5, ==,
                        g_str_equal(each->expected, "=") ? each->given : each->expected);
        g_assert_cmpstr(places, ==, each->places);
    }
}

static void test_daemon(void)
{
    char *with[] = { (char *)"qemu", (char *)"-daemonize", NULL };
    char *without[] = { (char *)"qemu", (char *)"-name", (char *)"-daemonize", NULL };
    g_autoptr(MonitorArgs) first = monitor_args_new(with, "/d", FALSE);
    g_autoptr(MonitorArgs) second = monitor_args_new(without, "/d", FALSE);
    g_assert_true(first->is_daemonized);
    g_assert_false(second->is_daemonized);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/monitor-args/table", test_table);
    g_test_add_func("/monitor-args/daemon", test_daemon);
    return g_test_run();
}
