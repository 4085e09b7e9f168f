/*
 * The words of QEMU's migration stream, version 3, all big-endian. Facts of the format as QEMU's
 * docs/devel/migration/main.rst tells them and as streams of QEMU 7.2 and 10.0 show them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

/* The file begins with both as u32. Version 2 is rejected by every QEMU since 1.0. */
#define STREAM_MAGIC 0x5145564dU /* "QEVM" */
#define STREAM_VERSION 3U
/* An image that is not whole begins so, that no QEMU takes it for one. Ours. */
#define INCREMENTAL_MAGIC 0x53464943U /* "SFIC" */
#define INCREMENTAL_VERSION 1U

/* The type byte of what follows. */
enum {
    STREAM_EOF = 0x00,            /* end of the stream */
    STREAM_SECTION_START = 0x01,  /* id u32, name (u8 length), instance u32, version u32, body */
    STREAM_SECTION_PART = 0x02,   /* id u32, body */
    STREAM_SECTION_END = 0x03,    /* id u32, body */
    STREAM_SECTION_FULL = 0x04,   /* as START, for a device */
    STREAM_SUBSECTION = 0x05,     /* name (u8 length), version u32, body */
    STREAM_VMDESCRIPTION = 0x06,  /* behind EOF: length u32, JSON */
    STREAM_CONFIGURATION = 0x07,  /* behind the version: machine name (u32 length), subsections */
    STREAM_COMMAND = 0x08,        /* command u16, length u16, payload */
    STREAM_SECTION_FOOTER = 0x7e, /* id u32 of the section that ends */
};

#define STREAM_NAME_MAX 255 /* a name has one byte for its length */
#define STREAM_FOOTER_BYTES 5

/* Subsections of CONFIGURATION. */
#define STREAM_CONFIG_PAGE_BITS "configuration/target-page-bits" /* version 1: u32 */
#define STREAM_CONFIG_CAPABILITIES "configuration/capabilities"  /* version 1: see the reader */
#define STREAM_CONFIG_UUID "configuration/uuid"                  /* version 1: 16 bytes */
#define STREAM_CONFIG_SUBSECTION_VERSION 1U
#define STREAM_UUID_BYTES 16

/* Capabilities that QEMU notes in the stream, since both ends must agree on them. */
#define STREAM_CAPABILITY_MAPPED_RAM "mapped-ram" /* since 9.0 */
#define STREAM_CAPABILITY_IGNORE_SHARED "x-ignore-shared"

/* The header of each block with mapped-ram: version u32, page size u64, two positions u64. */
#define STREAM_MAPPED_VERSION 1U
#define STREAM_MAPPED_BYTES 28

/* The section of the RAM blocks. */
#define STREAM_RAM_NAME "ram"
#define STREAM_RAM_VERSION 4U

/*
 * Its body: u64 words, an offset in a block with flags in the low bits (those below the target page
 * size), ending in EOS. A word that names a block is followed by the name (u8 length) unless it has
 * CONTINUE, which means the block of the word before.
 */
enum {
    RAM_FLAG_ZERO = 0x02,     /* a page of zeros; one byte 0 follows */
    RAM_FLAG_MEM_SIZE = 0x04, /* sum of all blocks; then per block: name, length u64 */
    RAM_FLAG_PAGE = 0x08,     /* a page; its bytes follow */
    RAM_FLAG_EOS = 0x10,      /* the body ends */
    RAM_FLAG_CONTINUE = 0x20,
    RAM_FLAG_XBZRLE = 0x40,         /* a difference to what was sent before */
    RAM_FLAG_HOOK = 0x80,           /* RDMA */
    RAM_FLAG_COMPRESS_PAGE = 0x100, /* until QEMU 9.0 */
    RAM_FLAG_MULTIFD_FLUSH = 0x200, /* nothing follows */
};

/* The section of the run state; body: size u32, then a buffer of 100 bytes. */
#define STREAM_GLOBALSTATE_NAME "globalstate"
#define STREAM_GLOBALSTATE_BUFFER 100
/*
 * Newer QEMU (since 9.0) keeps the state in the first 32 bytes and other fields behind them, which
 * older ones leave zero. A name never needs more.
 */
#define STREAM_GLOBALSTATE_STATE 32
