/*
 * Signals that cancel.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cancel.h"

#include <signal.h>
#include <stddef.h>

/* A signal handler has no context to be given: this flag is the one exception to "no globals". */
static volatile int cancelled;

static void on_signal(int signal_number)
{
    cancelled = signal_number;
}

const volatile int *cancel_on_signals(void)
{
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };

    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    return &cancelled;
}
