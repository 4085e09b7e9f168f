/*
 * Ctrl-C, SIGTERM and SIGHUP as a flag that the long-running calls look at.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

/*
 * Installs the handlers (without SA_RESTART, so that waits end early) and returns the flag: the
 * signal's number once one came, else 0. A second signal ends the process at once.
 */
const volatile int *cancel_on_signals(void);
