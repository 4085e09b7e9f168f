/*
 * Starting the other processors.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "machine.h"

/* Starts all others and returns when @count of them run guest_secondary(). */
void smp_start(uint64_t count);

/* What each of them runs; called by entry.S with its number, from 1 on. */
__attribute__((noreturn)) void guest_secondary(uint64_t cpu);
/* Called by guest_secondary() first. */
void smp_arrived(void);
