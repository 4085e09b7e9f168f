/*
 * The index trailer of an image: what stands behind its end, where no loader looks. The hash of
 * every page and where its bytes are, and what is to be known about the machine and the snapshot.
 * docs/devel/image-format.md specifies every byte.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "util/error.h"
#include "util/hash.h"

#define IMAGE_UUID_BYTES 16

/* How the pages of an image are laid out. The numbers are the file's. */
typedef enum {
    IMAGE_FORMAT_STREAM = 1,      /* QEMU's migration stream, version 3 */
    IMAGE_FORMAT_MAPPED_RAM = 2,  /* QEMU's mapped-ram file */
    IMAGE_FORMAT_INCREMENTAL = 3, /* pages that the parent has not; no QEMU loads it */
} ImageFormat;

/* Where a page is. The numbers are the file's. */
typedef enum {
    INDEX_ZERO = 0,      /* nowhere: it holds zeros only */
    INDEX_HERE = 1,      /* in this image */
    INDEX_PARENT = 2,    /* in the parent, at the same place of the block of the same name */
    INDEX_ELSEWHERE = 3, /* in the parent, at another place */
} IndexKind;

/* Who saved a page. */
typedef enum { INDEX_BY_SWEEP = 0, INDEX_BY_FAULT = 1 } IndexSource;

/* Pages of one block that follow each other, saved in one go. */
typedef struct IndexRun {
    guint64 first; /* page of the block */
    guint64 count; /* at least 1 */
    union {
        /*
         * HERE: the first byte of the first page, counted from the beginning of the image. Each
         * further page begins IndexBlock.stride bytes behind the one before.
         */
        guint64 place;
        guint64 parent_first; /* PARENT, ELSEWHERE: the first page's number in the parent's block */
    };
    const guint8 *hashes; /* HERE: Hash128 of each page, unaligned; else NULL */
    guint32 when_ms;      /* when it went out, after T0 */
    guint16 parent_block; /* ELSEWHERE: index in the parent's blocks */
    guint8 kind;          /* IndexKind */
    guint8 source;        /* IndexSource */
} IndexRun;

/* IndexBlock.flags; the file's numbers. */
#define INDEX_BLOCK_SHARED 1U  /* the memory was a shared mapping */
#define INDEX_BLOCK_HUGETLB 2U /* its page_size is that of huge pages */

typedef struct IndexBlock {
    char *name;          /* as in the image's head */
    guint64 used_length; /* bytes */
    guint64 page_size;   /* of the host's memory behind it; 0 = not known */
    guint32 flags;       /* INDEX_BLOCK_* */
    guint64 pages;       /* used_length in ImageIndex.page_size */
    guint64 stride;      /* see IndexRun.place */
    IndexRun *runs;      /* by ascending first, none overlapping; a gap is not in the image */
    guint64 n_runs;      /* */
    guint64 heat_unit;   /* bytes that one entry of heat stands for; 0 = not known */
    guint32 *heat;       /* write faults from arming on until the end of the snapshot */
    guint64 n_heat;      /* used_length / heat_unit, rounded up; 0 = not known */
} IndexBlock;

/* A piece of RAM as the guest's processors see it. */
typedef struct IndexRange {
    guint64 address; /* guest-physical */
    guint64 length;
    guint block; /* index in blocks */
    guint64 offset;
} IndexRange;

/* Another image that this one is made from. */
typedef struct IndexParent {
    char *path; /* as it was called, absolute; a file name, so not always UTF-8 */
    guint8 uuid[IMAGE_UUID_BYTES];
    Hash128 identity;
    gboolean needed; /* pages of this image are only there */
} IndexParent;

/*
 * Texts are UTF-8 and NULL where the image does not tell. Everything is owned by the index, and
 * what is said to be borrowed stands in the data that it was read from.
 */
typedef struct ImageIndex {
    guint8 uuid[IMAGE_UUID_BYTES]; /* made up for this image alone */
    Hash128 identity;              /* of the trailer: another image has another */
    guint64 image_length;          /* bytes from the image's beginning to the trailer */
    guint64 trailer_length;        /* bytes */
    ImageFormat format;
    guint64 page_size;  /* of the pages that are counted and hashed: the target's */
    gint64 created_us;  /* T0, or where that is not known when it was made; since 1970, UTC */
    guint64 devices_at; /* the device sections, counted from the image's beginning */
    guint64 devices_length;
    Hash128 devices_hash;
    GPtrArray *blocks; /* IndexBlock, in the order of the image's head */
    GArray *memory;    /* IndexRange, by ascending address; empty where it is not known */
    char *machine_type;
    char *target; /* QEMU's target, such as "x86_64" */
    char *qemu_version;
    char *host_kernel;    /* uname -r of the host */
    char *writer;         /* program and version */
    char *label;          /* given by the user */
    char *statistics;     /* JSON, see stillframe(1), REPORT */
    char **command_line;  /* QEMU's; arguments are bytes, not always UTF-8 */
    const guint8 *screen; /* a PNG file, borrowed */
    gsize screen_length;
    IndexParent *parent; /* NULL for none */
} ImageIndex;

/*
 * Reads a trailer that begins at @data; *length (may be NULL) gets its length, @size may be more.
 * @data must stay as it is until the index is freed. Survives any content; a good index takes
 * less memory than its own length, a bad one up to eighty times as much. SF_ERROR_FORMAT,
 * SF_ERROR_UNSUPPORTED for a version or record that must be known and is not. Any thread.
 */
ImageIndex *image_index_parse(const guint8 *data, gsize size, gsize *length, GError **errp);

/*
 * Looks for the trailer at the end of a file of which @data is the whole, and reads it. The image
 * begins image_length bytes before it. SF_ERROR_FORMAT: there is none, or it is damaged; only
 * where there is none at all *found (may be NULL) is FALSE.
 */
ImageIndex *image_index_find(const guint8 *data, gsize size, gboolean *found, GError **errp);

void image_index_free(ImageIndex *index);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ImageIndex, image_index_free)

/* The run that holds @page, or NULL. Logarithmic. */
const IndexRun *index_block_find(const IndexBlock *block, guint64 page);
/* The block of that name, or NULL; *number (may be NULL) gets its index. */
const IndexBlock *image_index_find_block(const ImageIndex *index, const char *name, guint *number);
/* Where page @page of a run HERE begins, counted from the image's beginning. */
static inline guint64 index_run_place(const IndexBlock *block, const IndexRun *run, guint64 page)
{
    return run->place + (page - run->first) * block->stride;
}
/* The hash of page @page of a run HERE (Hash128, unaligned). */
static inline const guint8 *index_run_hash(const IndexRun *run, guint64 page)
{
    return run->hashes + (page - run->first) * HASH128_BYTES;
}

/* ---- writing ---- */

/*
 * Collects an index while an image is written and writes it at the end. One thread at a time. It
 * needs some 16.3 bytes of memory for each page that is not zero.
 */
typedef struct ImageIndexBuilder ImageIndexBuilder;

/* With a new uuid. @page_size: of the target, a power of two. */
ImageIndexBuilder *image_index_builder_new(ImageFormat format, guint64 page_size);
void image_index_builder_free(ImageIndexBuilder *builder);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ImageIndexBuilder, image_index_builder_free)

/*
 * A block, in the order of the head; before any of its runs. @base: G_MAXUINT64, or in an image
 * with fixed places that of the block's page 0; then the place of its runs is not asked.
 */
void image_index_builder_add_block(ImageIndexBuilder *builder, const char *name,
                                   guint64 used_length, guint64 page_size, guint32 flags,
                                   guint64 stride, guint64 base);

/*
 * A run of block @block; of @run, hashes, place, source, parent_block and parent_first are taken
 * where its kind has them. In the order of the file: of a page that comes twice the last one
 * counts.
 */
void image_index_builder_add_run(ImageIndexBuilder *builder, guint block, const IndexRun *run);

void image_index_builder_set_devices(ImageIndexBuilder *builder, guint64 at, const void *data,
                                     gsize length);
void image_index_builder_set_created(ImageIndexBuilder *builder, gint64 created_us);

/* Records of one text or bytes; the numbers are the file's. */
typedef enum {
    INDEX_MACHINE_TYPE = 0x10,
    INDEX_TARGET = 0x11,
    INDEX_QEMU_VERSION = 0x12,
    INDEX_COMMAND_LINE = 0x13, /* each argument with a NUL behind it */
    INDEX_HOST_KERNEL = 0x14,
    INDEX_WRITER = 0x15,
    INDEX_LABEL = 0x16,
    INDEX_STATISTICS = 0x17,
    INDEX_SCREEN = 0x18, /* PNG */
} IndexRecordType;

/* A text (without NUL). NULL is left out; of a type that is set twice the last one counts. */
void image_index_builder_set_text(ImageIndexBuilder *builder, IndexRecordType type,
                                  const char *text);
void image_index_builder_set_bytes(ImageIndexBuilder *builder, IndexRecordType type,
                                   const void *data, gsize length);
void image_index_builder_set_command_line(ImageIndexBuilder *builder, const char *const *arguments);
void image_index_builder_set_parent(ImageIndexBuilder *builder, const IndexParent *parent);
/* @heat: of each unit of the block, the last one perhaps shorter. */
void image_index_builder_set_heat(ImageIndexBuilder *builder, guint block, guint64 unit,
                                  const guint32 *heat, guint64 count);
void image_index_builder_add_memory(ImageIndexBuilder *builder, const IndexRange *range);

/*
 * All records but pages, heat, places and device sections as @index has them: for a program that
 * writes an image anew. The uuid is not taken: the new image is another file.
 */
void image_index_builder_copy_facts(ImageIndexBuilder *builder, const ImageIndex *index);

/* Takes the next piece of the trailer. */
typedef gboolean (*ImageIndexSink)(const void *data, gsize length, gpointer user, GError **errp);

/*
 * Hands the whole trailer to @sink, in pieces, in order; @image_length bytes of image stand before
 * it. *identity (may be NULL) gets what a child would know it by. Once.
 */
gboolean image_index_builder_write(ImageIndexBuilder *builder, guint64 image_length,
                                   ImageIndexSink sink, gpointer user, Hash128 *identity,
                                   GError **errp);
