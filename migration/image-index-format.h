/*
 * The numbers of the index trailer, all little-endian; docs/devel/image-format.md explains them.
 * Only image-index*.c, the
 * reader and its fuzzer may include this.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#define INDEX_MAGIC "SFINDEX\n"
#define INDEX_END_MAGIC "SFIXEND\n"
#define INDEX_MAGIC_BYTES 8
#define INDEX_VERSION 1U

/* magic, version u32, length of this header u32, uuid. A longer header is read past. */
#define INDEX_HEADER_BYTES (INDEX_MAGIC_BYTES + 4 + 4 + 16)

/* Before each record: type u32, flags u32, length of the body u64. */
#define INDEX_RECORD_HEAD_BYTES (4 + 4 + 8)
/* A body is filled up with zeros to this; behind it stands the checksum, XXH3-64 as u64. */
#define INDEX_RECORD_ALIGN 8
#define INDEX_CHECKSUM_BYTES 8
/* Flag: who does not know this type of record must not use the index. */
#define INDEX_RECORD_REQUIRED 1U

/* Types beside those of IndexRecordType. */
enum {
    INDEX_END = 0x00,    /* the last record; no checksum behind it */
    INDEX_IMAGE = 0x01,  /* what kind of image, and how long */
    INDEX_BLOCKS = 0x02, /* the RAM blocks */
    INDEX_PAGES = 0x03,  /* runs of pages of one block; any number of records */
    INDEX_PARENT_IMAGE = 0x04,
    INDEX_HEAT = 0x05,   /* of one block */
    INDEX_MEMORY = 0x06, /* the guest-physical map */
};

/* INDEX_END: number of records u64, length of the trailer u64, identity 16 bytes, end magic. */
#define INDEX_END_BODY_BYTES (8 + 8 + 16 + INDEX_MAGIC_BYTES)
#define INDEX_END_BYTES (INDEX_RECORD_HEAD_BYTES + INDEX_END_BODY_BYTES)
/* What of the trailer's end the identity does not cover: itself and the magic. */
#define INDEX_END_UNCOVERED (16 + INDEX_MAGIC_BYTES)

#define INDEX_HASH_XXH3_128 1U
#define INDEX_PARENT_NEEDED 1U

/* A run's first byte. What is not told in its bits is as after the run before. */
enum {
    RUN_KIND_MASK = 0x03, /* IndexKind */
    RUN_BY_FAULT = 0x04,  /* else by the sweep */
    RUN_HAS_TIME = 0x08,  /* time less that of the run before, signed; a run may be older */
    RUN_HAS_COUNT = 0x10, /* pages less 1; else one page */
    RUN_HAS_FIRST = 0x20, /* first page less that behind the run before, signed */
    RUN_HAS_PLACE = 0x40, /* place less that behind the run before, signed */
    RUN_UNKNOWN = 0x80,
};

/* The base of a block without fixed places. */
#define INDEX_NO_BASE G_MAXUINT64
