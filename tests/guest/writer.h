/*
 * The writing vCPU.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "machine.h"
#include "options.h"

/* Sets up the state page of the vCPU @cpu, for all to see, once for each, before any runs. */
void writer_prepare(const struct options *options, uint64_t cpu);
/* Writes for ever. The first vCPU also runs the devices. */
__attribute__((noreturn)) void writer_run(const struct options *options, uint64_t cpu);
