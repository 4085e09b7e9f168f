/*
 * The stillframe command: picks the subcommand.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "util/error.h"

typedef struct Command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} Command;

static const Command commands[] = {
    { "snapshot", cmd_snapshot, "take a live snapshot of a running VM" },
    { "restore", cmd_restore, "start a QEMU with the state of an image" },
    { "monitor", cmd_monitor, "QEMU's human monitor, with migrate as a live snapshot" },
    { "run", cmd_run, "start a QEMU with its monitors served by stillframe" },
    { "list", cmd_list, "show the VMs of this host, and whether each can be snapshotted" },
    { "info", cmd_info, "tell what an image holds" },
    { "verify", cmd_verify, "check an image, every page against its hash" },
    { "diff", cmd_diff, "tell which pages differ between two images" },
    { "map", cmd_map, "draw a picture of the guest memory in an image" },
    { "screen", cmd_screen, "write the picture of the guest's screen in an image" },
    { "convert", cmd_convert, "make another kind of image: stream, ELF core, raw, libvirt" },
    { "check", cmd_check, "tell what this host can do, by trying it; run it first" },
    { "proxy", cmd_proxy, "answer QMP clients in front of a running VM" },
    { "engine", cmd_engine, NULL },
    { NULL },
};

static void print_help(FILE *to)
{
    fputs("Usage: stillframe COMMAND [ARGUMENTS]\n"
          "Live snapshots of running, unmodified QEMU virtual machines.\n\nCommands:\n",
          to);
    for (const Command *command = commands; command->name; command++) {
        if (command->summary) { /* else it is for our own processes */
            fprintf(to, "  %-10s %s\n", command->name, command->summary);
        }
    }
    fputs("\n\"stillframe COMMAND --help\" tells what each takes; stillframe(1) tells it all.\n",
          to);
}

gboolean command_usage_error(GError **errp, const char *text)
{
    g_set_error(errp, SF_ERROR, SF_ERROR_USAGE, "%s; see \"%s --help\"", text, g_get_prgname());
    return FALSE;
}

int command_fail(const GError *error)
{
    fprintf(stderr, "stillframe: %s\n", error->message);
    if (g_error_matches(error, SF_ERROR, SF_ERROR_USAGE)) {
        return EXIT_USAGE;
    }
    if (g_error_matches(error, SF_ERROR, SF_ERROR_CANCELLED)) {
        return EXIT_CANCELLED;
    }
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    setlocale(LC_ALL, "");
    /* A reader that closes its pipe is an error to report, not a death. */
    signal(SIGPIPE, SIG_IGN);
    /* So is a file that grows over the user's limit (ulimit -f). */
    signal(SIGXFSZ, SIG_IGN);

    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        print_help(stdout);
        return EXIT_SUCCESS;
    }
    if (!strcmp(argv[1], "--version")) {
        puts("stillframe " STILLFRAME_VERSION);
        return EXIT_SUCCESS;
    }
    for (const Command *command = commands; command->name; command++) {
        if (!strcmp(argv[1], command->name)) {
            g_autofree char *name = g_strconcat("stillframe ", command->name, NULL);
            g_set_prgname(name); /* what --help calls it */
            return command->run(argc - 1, argv + 1);
        }
    }
    fprintf(stderr, "stillframe: no command \"%s\"; see \"stillframe --help\"\n", argv[1]);
    return EXIT_USAGE;
}
