/*
 * Somebody who types at a terminal or a socket and reads what comes back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>
#include <sys/types.h>

typedef struct Typist {
    int fd;
    pid_t pid;      /* the program on the terminal; 0 for a socket */
    GString *heard; /* everything so far */
    gsize read_to;  /* how much of it has been waited for */
} Typist;

/* Starts @argv on a terminal of its own. It is killed with this process. */
Typist *typist_start(const char *const *argv);
/* The same with a socket instead of a terminal, as standard input and output. */
Typist *typist_start_without_terminal(const char *const *argv);
/* Connects to a unix socket as soon as somebody listens there. */
Typist *typist_connect(const char *path);
/* Connects to a port of 127.0.0.1 as soon as somebody listens there. */
Typist *typist_connect_tcp(guint16 port);
void typist_type(Typist *typist, const char *keys);
/* Waits until @text comes, behind what was waited for before; fails after 20 seconds. */
void typist_expect(Typist *typist, const char *text);
/* No more will be typed: the end of its standard input. Not on a terminal. */
void typist_type_end(Typist *typist);
/* Waits until the other side closes. */
void typist_expect_end(Typist *typist);
/* Closes, and returns the exit status (128 + signal) of the program, which has to end by itself. */
int typist_finish(Typist *typist);
