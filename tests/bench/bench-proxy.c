/*
 * What the proxy costs: the time from a command to its answer, with QEMU directly and through the
 * proxy, by turns. Option: --commands N (2000 each way and round).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migration/clock.h"
#include "proxy-harness.h"

#define ROUNDS 5

static const char *const commands[] = { "query-status", "query-migrate", "query-block" };

static int compare(const void *a, const void *b)
{
    guint64 x = *(const guint64 *)a, y = *(const guint64 *)b;

    return (x > y) - (x < y);
}

/* The median in microseconds. */
static double measure(const char *path, const char *command, guint count)
{
    g_autoptr(RawQmp) raw = raw_qmp_open(path);
    g_autofree char *line = g_strdup_printf("{\"execute\": \"%s\"}\n", command);
    g_autofree guint64 *times = g_new(guint64, count);

    for (guint i = 0; i < count; i++) {
        gsize from = strlen(raw_qmp_text(raw));
        guint64 began = clock_now_ns();
        raw_qmp_say(raw, line);
        raw_qmp_wait(raw, from, "\"return\"");
        times[i] = clock_now_ns() - began;
        raw_qmp_forget(raw);
    }
    qsort(times, count, sizeof(times[0]), compare);
    return (double)times[count / 2] / 1000;
}

int main(int argc, char **argv)
{
    guint count = argc > 2 && !strcmp(argv[1], "--commands") ? (guint)atoi(argv[2]) : 2000;

    g_autoptr(ProxiedVm) proxied = proxied_vm_start_empty(NULL);
    const char *own = test_vm_get_socket(proxied->vm);
    g_autoptr(RawQmp) first = raw_qmp_open(proxied->socket);
    g_clear_pointer(&first, raw_qmp_free);
    printf("median of %u commands, microseconds: direct, through the proxy, difference\n", count);
    for (guint i = 0; i < G_N_ELEMENTS(commands); i++) {
        for (guint round = 0; round < ROUNDS; round++) {
            double direct = measure(own, commands[i], count);
            double through = measure(proxied->socket, commands[i], count);
            printf("%-15s %8.1f %8.1f %8.1f\n", commands[i], direct, through, through - direct);
        }
    }
    return 0;
}
