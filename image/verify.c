/*
 * Verifying images: the walk goes ahead, threads hash what it finds.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "image/verify.h"
#include "util/big-array.h"
#include "util/zero.h"

/* Pages that one thread takes at a time, and batches on their way. */
#define BATCH_PAGES 512
#define BATCHES_AHEAD 16

typedef struct Batch {
    guint block;
    guint count;
    guint64 pages[BATCH_PAGES];
    const guint8 *data[BATCH_PAGES]; /* NULL: zero */
} Batch;

typedef struct Verify {
    ImageReader *reader;
    const ImageIndex *index;
    const ImageProgress *progress;
    VerifyReport *report;
    guint bits;
    guint64 start; /* of the image in the file */
    guint8 **seen; /* of each block a byte for each page: it is where the index says */
    Batch *batch;  /* being filled */
    GThreadPool *pool;
    GMutex lock; /* of the report, and of what follows */
    GCond done;
    guint ahead;
} Verify;

void verify_report_clear(VerifyReport *report)
{
    g_clear_pointer(&report->bad, g_array_unref);
}

/* ---- In the threads ---- */

static void add_bad(Verify *v, guint block, guint64 page, const char *why)
{
    const VerifyBadPage bad = { block, page, why };

    g_mutex_lock(&v->lock);
    v->report->bad_pages++;
    if (v->report->bad->len < VERIFY_BAD_MAX) {
        g_array_append_val(v->report->bad, bad);
    }
    g_mutex_unlock(&v->lock);
}

/*
 * A page may come twice, and the index tells of the last time: what is elsewhere than the index
 * says was overtaken. Whether the page is there at all is seen at the end.
 */
static gboolean is_meant(const Verify *v, const IndexBlock *block, const IndexRun *run,
                         guint64 page, const guint8 *data)
{
    if (run->kind == INDEX_ZERO) {
        return !data || buffer_is_zero(data, (gsize)1 << v->bits);
    }
    if (run->kind != INDEX_HERE) {
        return TRUE; /* the parent's, whose hash the parent has */
    }
    if (image_reader_get_kind(v->reader) == IMAGE_KIND_INCREMENTAL) {
        return data != NULL; /* the reader takes it from where the index says */
    }
    return data &&
           image_reader_get_place(v->reader, data) - v->start == index_run_place(block, run, page);
}

static void judge(Verify *v, guint number, const IndexBlock *block, const IndexRun *run,
                  guint64 page, const guint8 *data)
{
    Hash128 hash;

    if (!run) {
        add_bad(v, number, page, "the index does not have it");
        return;
    }
    if (!is_meant(v, block, run, page, data)) {
        return;
    }
    __atomic_store_n(&v->seen[number][page], 1, __ATOMIC_RELAXED);
    if (run->kind == INDEX_HERE) {
        hash128(data, (gsize)1 << v->bits, &hash);
        if (!hash128_equal(&hash, index_run_hash(run, page))) {
            add_bad(v, number, page, "its content was changed");
        }
    }
}

static void judge_batch(gpointer data, gpointer user)
{
    Batch *batch = data;
    Verify *v = user;
    const IndexBlock *block = g_ptr_array_index(v->index->blocks, batch->block);
    const IndexRun *run = NULL;

    for (guint i = 0; i < batch->count; i++) {
        guint64 page = batch->pages[i];
        if (!run || page < run->first || page - run->first >= run->count) {
            run = index_block_find(block, page);
        }
        judge(v, batch->block, block, run, page, batch->data[i]);
    }
    g_free(batch);
    g_mutex_lock(&v->lock);
    v->ahead--;
    g_cond_signal(&v->done);
    g_mutex_unlock(&v->lock);
}

/* ---- In the walk ---- */

static void wait_until(Verify *v, guint most)
{
    g_mutex_lock(&v->lock);
    while (v->ahead > most) {
        g_cond_wait(&v->done, &v->lock);
    }
    g_mutex_unlock(&v->lock);
}

static void send_batch(Verify *v)
{
    if (v->batch) {
        wait_until(v, BATCHES_AHEAD);
        g_mutex_lock(&v->lock);
        v->ahead++;
        g_mutex_unlock(&v->lock);
        g_thread_pool_push(v->pool, g_steal_pointer(&v->batch), NULL);
    }
}

static void take_page(Verify *v, guint block, guint64 page, const guint8 *data)
{
    if (v->batch && (v->batch->block != block || v->batch->count == BATCH_PAGES)) {
        send_batch(v);
    }
    if (!v->batch) {
        v->batch = g_new(Batch, 1);
        v->batch->block = block;
        v->batch->count = 0;
    }
    Batch *batch = v->batch;
    batch->pages[batch->count] = page;
    batch->data[batch->count++] = data;
}

static gboolean take_run(guint block, guint64 offset, const void *data, guint64 length,
                         gpointer user, GError **errp)
{
    Verify *v = user;
    guint64 first = offset >> v->bits;
    guint64 count = length >> v->bits;

    v->report->pages += count;
    for (guint64 i = 0; i < count && v->index; i++) {
        take_page(v, block, first + i, data ? (const guint8 *)data + (i << v->bits) : NULL);
    }
    return image_progress_walk(v->progress, v->reader, errp);
}

/* What the index has and the image has not. */
static void find_missing(Verify *v)
{
    for (guint i = 0; i < v->index->blocks->len; i++) {
        const IndexBlock *block = g_ptr_array_index(v->index->blocks, i);
        for (guint64 n = 0; n < block->n_runs; n++) {
            const IndexRun *run = &block->runs[n];
            for (guint64 page = run->first; page < run->first + run->count; page++) {
                if (!v->seen[i][page]) {
                    add_bad(v, i, page, "the image does not have it where the index says");
                }
            }
        }
    }
}

static gboolean same_blocks(const ImageHead *head, const ImageIndex *index)
{
    gboolean same = head->blocks->len == index->blocks->len &&
                    index->page_size == 1ULL << head->target_page_bits;

    for (guint i = 0; same && i < head->blocks->len; i++) {
        const ImageBlock *a = g_ptr_array_index(head->blocks, i);
        const IndexBlock *b = g_ptr_array_index(index->blocks, i);
        same = !strcmp(a->name, b->name) && a->used_length == b->used_length;
    }
    return same;
}

static gboolean make_seen(Verify *v, GError **errp)
{
    v->seen = g_new0(guint8 *, v->index->blocks->len + 1);
    for (guint i = 0; i < v->index->blocks->len; i++) {
        const IndexBlock *block = g_ptr_array_index(v->index->blocks, i);
        v->seen[i] = big_array_new(block->pages, 1, errp);
        if (!v->seen[i]) {
            return FALSE;
        }
    }
    return TRUE;
}

static void free_seen(Verify *v)
{
    for (guint i = 0; v->seen && i < v->index->blocks->len; i++) {
        big_array_free(v->seen[i],
                       ((const IndexBlock *)g_ptr_array_index(v->index->blocks, i))->pages, 1);
    }
    g_free(v->seen);
}

static gboolean walk(Verify *v, GError **errp)
{
    gboolean good = image_reader_foreach_page(v->reader, take_run, v, errp);

    send_batch(v);
    wait_until(v, 0);
    return good;
}

static int compare_bad(gconstpointer a, gconstpointer b)
{
    const VerifyBadPage *one = a;
    const VerifyBadPage *two = b;

    return one->block != two->block ? (one->block < two->block ? -1 : 1)
                                    : (one->page > two->page) - (one->page < two->page);
}

static gboolean walk_by_hash(Verify *v, guint threads, GError **errp)
{
    const guint8 *devices;
    gsize length;
    Hash128 hash;

    if (!make_seen(v, errp)) {
        return FALSE;
    }
    v->pool = g_thread_pool_new(judge_batch, v,
                                threads ? (int)threads : (int)g_get_num_processors(), FALSE, NULL);
    gboolean good = walk(v, errp);
    g_thread_pool_free(v->pool, FALSE, TRUE);
    if (!good || !image_reader_get_device_state(v->reader, &devices, &length, errp)) {
        return FALSE;
    }
    hash128(devices, length, &hash);
    v->report->devices_wrong = !hash128_equal(&hash, &v->index->devices_hash);
    find_missing(v);
    g_array_sort(v->report->bad, compare_bad);
    return TRUE;
}

static gboolean find_index(Verify *v, GError **errp)
{
    g_autoptr(GError) error = NULL;
    gsize length;

    v->index = image_reader_find_index(v->reader, &error);
    if (error) {
        g_propagate_error(errp, g_steal_pointer(&error));
        return FALSE;
    }
    if (image_reader_get_kind(v->reader) != IMAGE_KIND_DEVICES &&
        !image_reader_get_description(v->reader, &length)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                    "nothing stands behind the end of the device state; it seems to be cut off");
        return FALSE;
    }
    if (v->index && !same_blocks(image_reader_get_head(v->reader), v->index)) {
        g_set_error(errp, SF_ERROR, SF_ERROR_FORMAT,
                    "the RAM blocks in the index are not those of the image");
        return FALSE;
    }
    return TRUE;
}

gboolean image_verify(ImageReader *reader, guint threads, const ImageProgress *progress,
                      VerifyReport *report, GError **errp)
{
    gint64 start = g_get_monotonic_time();
    Verify v = { .reader = reader, .progress = progress, .report = report };

    *report = (VerifyReport){ .bad = g_array_new(FALSE, FALSE, sizeof(VerifyBadPage)) };
    /* The index stands at the end: what is read front to back once goes into a file first. */
    gboolean good = image_reader_map(reader, errp) && find_index(&v, errp);
    v.bits = image_reader_get_head(reader)->target_page_bits;
    v.start = image_reader_get_layout(reader)->start;
    report->by_hash = v.index != NULL;
    if (good) {
        g_mutex_init(&v.lock);
        g_cond_init(&v.done);
        good = v.index ? walk_by_hash(&v, threads, errp) : walk(&v, errp);
        g_mutex_clear(&v.lock);
        g_cond_clear(&v.done);
    }
    free_seen(&v);
    report->seconds = (double)(g_get_monotonic_time() - start) / G_USEC_PER_SEC;
    return good;
}
