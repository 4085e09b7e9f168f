/*
 * Images that need other images: a chain of parents, each known by its index. Every page of the
 * youngest one is found in one of them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "migration/image-index.h"

/* One image of a chain, mapped, with the ones that it needs. */
typedef struct ImageChain ImageChain;

/*
 * Opens the image at @path, an uncompressed file with an index at its end, and the parents that it
 * needs: under the path that the child names, else beside the child. SF_ERROR_MISMATCH where a
 * parent is another image than the one that the child was made from, SF_ERROR_IO where it is
 * missing, SF_ERROR_FORMAT where there is no index or images need each other; all by name.
 */
ImageChain *image_chain_open(const char *path, GError **errp);
/* NULL is allowed. */
void image_chain_free(ImageChain *chain);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ImageChain, image_chain_free)

const char *image_chain_get_path(const ImageChain *chain);
const ImageIndex *image_chain_get_index(const ImageChain *chain);
/* The parent that is needed, or NULL; owned. */
const ImageChain *image_chain_get_parent(const ImageChain *chain);
/* The file, open for reading; owned. */
int image_chain_get_fd(const ImageChain *chain);

/* Where pages of the youngest image are. */
typedef struct ChainPages {
    const ImageChain *image; /* that has them */
    const IndexBlock *block; /* of that image */
    const IndexRun *run;     /* ZERO or HERE, of that block */
    guint64 page;            /* the first, in that block */
    guint64 count;           /* how many that follow are there too, at least 1 */
} ChainPages;

/*
 * Looks for page @page of block @block (index in the youngest image). FALSE where the page is in no
 * image of the chain.
 */
gboolean image_chain_find(const ImageChain *chain, guint block, guint64 page, ChainPages *found);

/*
 * The bytes of the @n-th page of @found (HERE), mapped as long as the chain. Checked against its
 * hash: SF_ERROR_FORMAT with the image's name.
 */
const guint8 *image_chain_get_data(const ChainPages *found, guint64 n, GError **errp);
