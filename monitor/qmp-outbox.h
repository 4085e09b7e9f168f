/*
 * Bytes and descriptors on their way into a stream socket that does not always take them. For
 * monitor/ only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>

/* Descriptors that came by SCM_RIGHTS: an array of int that closes them. */
GArray *qmp_fds_new(void);

typedef struct QmpOutbox {
    GQueue chunks;
    gsize bytes; /* that wait */
} QmpOutbox;

/* Starts zeroed. Appends a copy of @data; the descriptors of @fds (taken, may be NULL) go with its
 * first byte, and are closed when they are sent or thrown away. */
void qmp_outbox_add(QmpOutbox *outbox, const void *data, gsize length, GArray *fds);

/* Sends what @fd takes without waiting. FALSE when nobody will read it any more. */
gboolean qmp_outbox_flush(QmpOutbox *outbox, int fd);

void qmp_outbox_clear(QmpOutbox *outbox);

/*
 * Reads what is there, at most @step bytes, behind @input; descriptors go to @fds. Returns bytes, 0
 * at the end or after an error, -1 when there is nothing now.
 */
gssize qmp_receive(int fd, GByteArray *input, guint step, GArray *fds);
