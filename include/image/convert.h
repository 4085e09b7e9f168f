/*
 * One kind of image into another.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "image/progress.h"

typedef enum {
    CONVERT_STREAM,     /* QEMU's migration stream */
    CONVERT_MAPPED_RAM, /* QEMU's mapped-ram file */
    CONVERT_ELF,        /* a core for gdb and crash */
    CONVERT_RAW,        /* guest memory, each byte at its guest-physical address */
    CONVERT_LIBVIRT,    /* libvirt's save file */
} ConvertFormat;

/* The format of that name ("stream", "mapped-ram", "elf", "raw", "libvirt"). SF_ERROR_USAGE. */
gboolean convert_format_parse(const char *name, ConvertFormat *format, GError **errp);

typedef struct ConvertOptions {
    const char *input;  /* "-": standard input */
    guint64 offset;     /* where the image begins in it */
    const char *output; /* a destination as in channel.h; "-": standard output */
    ConvertFormat format;
    const char *compress; /* "zstd", "zlib", or NULL; not of mapped-ram */
    int level;            /* of the compression; 0: the default */
    const char *xml;      /* CONVERT_LIBVIRT: a file with the domain's XML; NULL: the input's */
    const char *block;    /* CONVERT_RAW: this RAM block alone; NULL: all RAM */
    gboolean sync;
    ImageProgress progress;
} ConvertOptions;

typedef struct ConvertReport {
    guint64 bytes_in;  /* of the input file; 0 where unknown */
    guint64 bytes_out; /* written, holes included, before compression */
    double seconds;
} ConvertReport;

/*
 * Reads all of the input and writes the output, which gets its name only when it is complete.
 * SF_ERROR_USAGE, SF_ERROR_FORMAT, SF_ERROR_UNSUPPORTED, SF_ERROR_IO, SF_ERROR_CANCELLED.
 */
gboolean convert_image(const ConvertOptions *options, ConvertReport *report, GError **errp);
