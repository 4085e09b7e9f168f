/*
 * Chains of images.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/image-chain.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "util/autofd.h"

/* More generations than anybody restores from. */
#define GENERATIONS_MAX 1000

struct ImageChain {
    char *path;
    int fd;
    guint8 *map;
    gsize size;
    const guint8 *start; /* of the image in @map */
    ImageIndex *index;
    ImageChain *parent;
};

static gboolean map_file(ImageChain *chain, GError **errp)
{
    struct stat st;

    chain->fd = open(chain->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (chain->fd < 0 || fstat(chain->fd, &st) < 0) {
        return sf_error_set_errno(errp, SF_ERROR_IO, errno, "cannot read the image %s",
                                  chain->path);
    }
    if (!S_ISREG(st.st_mode) || st.st_size <= 0) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT, "%s is no image in a regular file",
                    chain->path);
        return FALSE;
    }
    void *map = mmap(NULL, (gsize)st.st_size, PROT_READ, MAP_PRIVATE, chain->fd, 0);
    if (map == MAP_FAILED) {
        return sf_error_set_errno(errp, SF_ERROR_IO, errno, "cannot map the image %s", chain->path);
    }
    chain->map = map;
    chain->size = (gsize)st.st_size;
    return TRUE;
}

/* The image alone. */
static ImageChain *open_one(const char *path, GError **errp)
{
    g_autoptr(ImageChain) chain = g_new0(ImageChain, 1);

    chain->path = g_strdup(path);
    chain->fd = -1;
    if (!map_file(chain, errp)) {
        return NULL;
    }
    chain->index = image_index_find(chain->map, chain->size, NULL, errp);
    if (!chain->index) {
        g_prefix_error(errp, "%s: ", path);
        return NULL;
    }
    chain->start =
        chain->map + chain->size - chain->index->trailer_length - chain->index->image_length;
    return g_steal_pointer(&chain);
}

void image_chain_free(ImageChain *chain)
{
    while (chain) {
        ImageChain *parent = chain->parent;
        image_index_free(chain->index);
        if (chain->map) {
            munmap(chain->map, chain->size);
        }
        sf_clear_fd(&chain->fd);
        g_free(chain->path);
        g_free(chain);
        chain = parent;
    }
}

/* Whether @found is the image that @wanted is about. */
static gboolean is_parent(const ImageChain *found, const IndexParent *wanted)
{
    return !memcmp(found->index->uuid, wanted->uuid, IMAGE_UUID_BYTES) &&
           hash128_equal(&found->index->identity, &wanted->identity);
}

/* Opens it under one name. *another: there is an image, but not the right one. */
static ImageChain *try_parent(const char *path, const IndexParent *wanted, gboolean *another,
                              GError **errp)
{
    g_autoptr(ImageChain) found = open_one(path, errp);

    if (found && !is_parent(found, wanted)) {
        *another = TRUE;
        g_set_error(errp, SF_ERROR, SF_ERROR_MISMATCH,
                    "%s is not the image that it was: it was changed or replaced", path);
        return NULL;
    }
    return g_steal_pointer(&found);
}

static ImageChain *open_parent(const ImageChain *child, GError **errp)
{
    const IndexParent *wanted = child->index->parent;
    g_autofree char *folder = g_path_get_dirname(child->path);
    g_autofree char *name = g_path_get_basename(wanted->path);
    g_autofree char *beside = g_build_filename(folder, name, NULL);
    g_autoptr(GError) first = NULL;
    g_autoptr(GError) second = NULL;
    gboolean another = FALSE;

    ImageChain *parent = try_parent(wanted->path, wanted, &another, &first);
    if (!parent) {
        parent = try_parent(beside, wanted, &another, &second);
    }
    if (!parent) {
        /* What is wrong with a file says more than that another one is missing. */
        gboolean missing = g_error_matches(first, SF_ERROR, SF_ERROR_IO) &&
                           !g_error_matches(second, SF_ERROR, SF_ERROR_IO);
        const GError *error = missing ? second : first;
        g_set_error(errp, SF_ERROR, error->code, "%s needs its parent %s: %s", child->path,
                    wanted->path, error->message);
    }
    return parent;
}

static gboolean is_in_chain(const ImageChain *chain, const ImageChain *image)
{
    for (; chain; chain = chain->parent) {
        if (!memcmp(chain->index->uuid, image->index->uuid, IMAGE_UUID_BYTES)) {
            return TRUE;
        }
    }
    return FALSE;
}

/* Every page of the child must be countable in the parent's pages. */
static gboolean check_parent(const ImageChain *youngest, const ImageChain *child,
                             const ImageChain *parent, guint generation, GError **errp)
{
    if (is_in_chain(youngest, parent) || generation > GENERATIONS_MAX) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT, "%s: the chain of its parents never ends",
                    youngest->path);
        return FALSE;
    }
    if (child->index->page_size != parent->index->page_size) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT, "%s and its parent %s have different pages",
                    child->path, parent->path);
        return FALSE;
    }
    return TRUE;
}

ImageChain *image_chain_open(const char *path, GError **errp)
{
    g_autoptr(ImageChain) youngest = open_one(path, errp);
    guint generation = 0;

    for (ImageChain *child = youngest;
         child && child->index->parent && child->index->parent->needed; child = child->parent) {
        ImageChain *parent = open_parent(child, errp);
        if (!parent) {
            return NULL;
        }
        if (!check_parent(youngest, child, parent, ++generation, errp)) {
            image_chain_free(parent);
            return NULL;
        }
        child->parent = parent;
    }
    return g_steal_pointer(&youngest);
}

const char *image_chain_get_path(const ImageChain *chain)
{
    return chain->path;
}

const ImageIndex *image_chain_get_index(const ImageChain *chain)
{
    return chain->index;
}

const ImageChain *image_chain_get_parent(const ImageChain *chain)
{
    return chain->parent;
}

int image_chain_get_fd(const ImageChain *chain)
{
    return chain->fd;
}

gboolean image_chain_find(const ImageChain *chain, guint block, guint64 page, ChainPages *found)
{
    guint64 count = G_MAXUINT64;

    /* Each step goes to a parent, and the chain ends. */
    for (; chain && block < chain->index->blocks->len; chain = chain->parent) {
        const IndexBlock *b = g_ptr_array_index(chain->index->blocks, block);
        const IndexRun *run = index_block_find(b, page);
        if (!run) {
            return FALSE;
        }
        count = MIN(count, run->count - (page - run->first));
        if (run->kind == INDEX_ZERO || run->kind == INDEX_HERE) {
            *found = (ChainPages){ chain, b, run, page, count };
            return TRUE;
        }
        page = run->parent_first + (page - run->first);
        if (run->kind == INDEX_ELSEWHERE) {
            block = run->parent_block;
        } else if (!chain->parent ||
                   !image_index_find_block(chain->parent->index, b->name, &block)) {
            return FALSE;
        }
    }
    return FALSE;
}

const guint8 *image_chain_get_data(const ChainPages *found, guint64 n, GError **errp)
{
    const ImageChain *chain = found->image;
    guint64 page = found->page + n;
    const guint8 *data = chain->start + index_run_place(found->block, found->run, page);
    Hash128 hash;

    hash128(data, chain->index->page_size, &hash);
    if (!hash128_equal(&hash, index_run_hash(found->run, page))) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                    "%s is damaged: page %" G_GUINT64_FORMAT
                    " of RAM block %s is not what its index says",
                    chain->path, page, found->block->name);
        return NULL;
    }
    return data;
}
