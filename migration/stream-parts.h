/*
 * The parts of a stream that every format has, as bytes: what comes before the pages and what comes
 * behind the device sections. Private to the writers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "migration/image-writer.h"

/* Only needs to differ from the devices' ids, which QEMU counts up from 0. */
#define STREAM_RAM_ID 0x53460000U

void stream_put_u8(GByteArray *out, guint8 value);
/* Big-endian. */
void stream_put_u32(GByteArray *out, guint32 value);
void stream_put_u64(GByteArray *out, guint64 value);
/* One byte for the length. */
void stream_put_name(GByteArray *out, const char *name);

/* Whether a stream can hold it. SF_ERROR_UNSUPPORTED. */
gboolean stream_check_head(const ImageHead *head, GError **errp);
/* Whether a range lies in its block and on target pages. SF_ERROR_FAILED. */
gboolean stream_check_range(const ImageHead *head, guint block, guint64 offset, guint64 length,
                            GError **errp);
/* From behind magic and version to the word before the list of blocks; @capability may be NULL. */
void stream_put_head(GByteArray *out, const ImageHead *head, const char *capability);
/* EOS and footer of a section "ram". */
void stream_put_ram_footer(GByteArray *out);
/* The section that ends "ram". */
void stream_put_ram_end(GByteArray *out);
/* EOF and the description. */
void stream_put_end(GByteArray *out, const ImageHead *head);
