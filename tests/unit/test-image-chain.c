/*
 * Chains of images: every page is found in the generation that has it, and whatever is wrong with
 * a chain is an error that names the file.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "image-helper.h"

#include "migration/image-chain.h"

#define PAGE 4096U

typedef struct Family {
    char *dir;
    GPtrArray *paths;
} Family;

static void family_begin(Family *family)
{
    family->dir = g_dir_make_tmp("stillframe-chain-XXXXXX", NULL);
    family->paths = g_ptr_array_new_with_free_func(g_free);
}

static void family_end(Family *family)
{
    for (guint i = 0; i < family->paths->len; i++) {
        g_assert_cmpint(g_unlink(g_ptr_array_index(family->paths, i)), ==, 0);
    }
    g_assert_cmpint(g_rmdir(family->dir), ==, 0);
    g_ptr_array_unref(family->paths);
    g_free(family->dir);
}

static gboolean append(const void *data, gsize length, gpointer user, GError **errp)
{
    g_byte_array_append(user, data, (guint)length);
    return TRUE;
}

/*
 * An image of four pages, of which those whose bit is in @own are here, filled with @fill, page 3
 * is zero in the first one, and the others are in @parent (NULL for none).
 */
static const char *add_image(Family *family, const char *name, guint8 fill, guint own,
                             const IndexParent *parent)
{
    g_autoptr(ImageIndexBuilder) builder =
        image_index_builder_new(parent ? IMAGE_FORMAT_INCREMENTAL : IMAGE_FORMAT_STREAM, PAGE);
    g_autoptr(GByteArray) file = g_byte_array_new();
    g_autoptr(GError) error = NULL;
    char *path = g_build_filename(family->dir, name, NULL);
    guint8 page[PAGE];
    Hash128 hash;

    memset(page, fill, sizeof(page));
    hash128(page, sizeof(page), &hash);
    image_index_builder_add_block(builder, "ram", 4 * PAGE, PAGE, 0, PAGE, G_MAXUINT64);
    for (guint i = 0; i < 4; i++) {
        IndexRun run = { .first = i, .count = 1, .place = file->len, .hashes = hash.bytes };
        run.kind = own >> i & 1 ? INDEX_HERE : parent ? INDEX_PARENT : INDEX_ZERO;
        if (run.kind == INDEX_HERE) {
            g_byte_array_append(file, page, PAGE);
        }
        image_index_builder_add_run(builder, 0, &run);
    }
    if (parent) {
        image_index_builder_set_parent(builder, parent);
    }
    g_assert_true(image_index_builder_write(builder, file->len, append, file, NULL, &error));
    g_assert_true(g_file_set_contents(path, (const char *)file->data, file->len, NULL));
    g_ptr_array_add(family->paths, path);
    return path;
}

static void parent_of(const char *path, IndexParent *parent)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(ImageChain) chain = image_chain_open(path, &error);
    g_assert_no_error(error);
    const ImageIndex *index = image_chain_get_index(chain);

    *parent = (IndexParent){ .path = (char *)path, .identity = index->identity, .needed = TRUE };
    memcpy(parent->uuid, index->uuid, IMAGE_UUID_BYTES);
}

static void assert_page(const ImageChain *chain, guint64 page, guint8 fill)
{
    g_autoptr(GError) error = NULL;
    ChainPages found;

    g_assert_true(image_chain_find(chain, 0, page, &found));
    if (!fill) {
        g_assert_cmpint(found.run->kind, ==, INDEX_ZERO);
        return;
    }
    const guint8 *data = image_chain_get_data(&found, 0, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(data[0], ==, fill);
    g_assert_cmpuint(data[PAGE - 1], ==, fill);
}

static void test_generations(void)
{
    g_autoptr(GError) error = NULL;
    IndexParent parent;
    Family family;

    family_begin(&family);
    parent_of(add_image(&family, "first", 1, 0x7, NULL), &parent);
    parent_of(add_image(&family, "second", 2, 0x2, &parent), &parent);
    const char *third = add_image(&family, "third", 3, 0x4, &parent);
    g_autoptr(ImageChain) chain = image_chain_open(third, &error);
    g_assert_no_error(error);
    assert_page(chain, 0, 1);
    assert_page(chain, 1, 2);
    assert_page(chain, 2, 3);
    assert_page(chain, 3, 0);
    family_end(&family);
}

/* Images that were moved together find each other. */
static void test_moved(void)
{
    g_autoptr(GError) error = NULL;
    IndexParent parent;
    Family family;

    family_begin(&family);
    parent_of(add_image(&family, "first", 1, 0x7, NULL), &parent);
    parent.path = (char *)"/nowhere/at/all/first";
    const char *second = add_image(&family, "second", 2, 0x2, &parent);
    g_autoptr(ImageChain) chain = image_chain_open(second, &error);
    g_assert_no_error(error);
    assert_page(chain, 0, 1);
    family_end(&family);
}

static void assert_refused(const char *path, int code, const char *name)
{
    g_autoptr(GError) error = NULL;

    g_assert_null(image_chain_open(path, &error));
    g_assert_error(error, SF_ERROR, code);
    g_assert_nonnull(strstr(error->message, path));
    g_assert_nonnull(strstr(error->message, name));
}

static void test_missing_and_changed(void)
{
    IndexParent parent;
    Family family;

    family_begin(&family);
    const char *first = add_image(&family, "first", 1, 0x7, NULL);
    parent_of(first, &parent);
    IndexParent nowhere = parent;
    nowhere.path = (char *)"/nowhere/other";
    assert_refused(add_image(&family, "a", 2, 0x2, &nowhere), SF_ERROR_IO, "/nowhere/other");
    IndexParent changed = parent;
    changed.identity.bytes[3] ^= 1;
    assert_refused(add_image(&family, "b", 2, 0x2, &changed), SF_ERROR_MISMATCH, first);
    IndexParent replaced = parent;
    replaced.uuid[0] ^= 1;
    assert_refused(add_image(&family, "c", 2, 0x2, &replaced), SF_ERROR_MISMATCH, first);
    family_end(&family);
}

/* An image that calls itself, or its own child, its parent. */
static void test_loops(void)
{
    IndexParent parent;
    Family family;

    family_begin(&family);
    parent_of(add_image(&family, "first", 1, 0x7, NULL), &parent);
    g_autofree char *own = g_build_filename(family.dir, "self", NULL);
    IndexParent self = parent;
    self.path = own;
    assert_refused(add_image(&family, "self", 2, 0x2, &self), SF_ERROR_MISMATCH, own);

    const char *second = add_image(&family, "second", 2, 0x2, &parent);
    parent_of(second, &parent);
    g_ptr_array_remove_index(family.paths, 0); /* it is written once more */
    const char *first = add_image(&family, "first", 1, 0x3, &parent);
    assert_refused(first, SF_ERROR_MISMATCH, first);
    assert_refused(second, SF_ERROR_MISMATCH, first);
    family_end(&family);
}

static void test_damaged_page(void)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *content = NULL;
    gsize length = 0;
    ChainPages found;
    Family family;

    family_begin(&family);
    const char *first = add_image(&family, "first", 1, 0x7, NULL);
    g_assert_true(g_file_get_contents(first, &content, &length, NULL));
    content[PAGE + 5] ^= 4;
    g_assert_true(g_file_set_contents(first, content, (gssize)length, NULL));
    g_autoptr(ImageChain) chain = image_chain_open(first, &error);
    g_assert_no_error(error);
    assert_page(chain, 0, 1);
    g_assert_true(image_chain_find(chain, 0, 1, &found));
    g_assert_null(image_chain_get_data(&found, 0, &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_FORMAT);
    g_assert_nonnull(strstr(error->message, first));
    family_end(&family);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/image-chain/generations", test_generations);
    g_test_add_func("/image-chain/moved", test_moved);
    g_test_add_func("/image-chain/missing-and-changed", test_missing_and_changed);
    g_test_add_func("/image-chain/loops", test_loops);
    g_test_add_func("/image-chain/damaged-page", test_damaged_page);
    return g_test_run();
}
