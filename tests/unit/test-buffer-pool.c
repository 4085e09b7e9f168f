/*
 * The buffer pool: bounded, faults first, nobody waits for ever.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/buffer-pool.h"
#include "util/error.h"

#define POOL_BYTES (8u << 20)

static BufferPool *new_pool(void)
{
    GError *error = NULL;
    BufferPool *pool = buffer_pool_new(POOL_BYTES, &error);
    g_assert_no_error(error);
    return pool;
}

static void test_never_gives_more_than_its_size(void)
{
    g_autoptr(BufferPool) pool = new_pool();
    guint slots = 0, batches = 0;

    while (buffer_pool_take_slot(pool, FALSE) >= 0) {
        slots++;
    }
    while (buffer_pool_take_batch(pool, 0)) {
        batches++;
    }
    g_assert_cmpuint(batches, >=, POOL_BATCHES_MIN);
    g_assert_cmpuint(slots, >, 0);
    g_assert_cmpuint((guint64)slots * POOL_SLOT_SIZE + (guint64)batches * BATCH_DATA_SIZE, <=,
                     POOL_BYTES);
    g_assert_cmpuint(buffer_pool_get_used(pool), ==, buffer_pool_get_peak(pool));
}

static void test_faults_come_before_the_sweep(void)
{
    g_autoptr(BufferPool) pool = new_pool();
    gint fetched[4];
    guint n = 0;
    Batch *batch = buffer_pool_take_batch(pool, 0), *got = NULL;
    gint a = buffer_pool_take_slot(pool, FALSE), b = buffer_pool_take_slot(pool, FALSE);

    buffer_pool_push_batch(pool, batch);
    buffer_pool_push_slot(pool, b, 3, 0x5000);
    buffer_pool_push_slot(pool, a, 2, 0x1000);
    g_assert_true(buffer_pool_fetch(pool, fetched, 4, &n, &got));
    g_assert_cmpuint(n, ==, 2);
    g_assert_cmpint(fetched[0], ==, b);
    g_assert_cmpint(fetched[1], ==, a);
    g_assert_true(got == batch);
    Extent extent = buffer_pool_slot_extent(pool, b);
    g_assert_cmpuint(extent.block, ==, 3);
    g_assert_cmpuint(extent.offset, ==, 0x5000);
    buffer_pool_return(pool, fetched, n, got);
    g_assert_cmpuint(buffer_pool_get_used(pool), ==, 0);
}

static gpointer wait_for_slot(gpointer data)
{
    return GINT_TO_POINTER(buffer_pool_take_slot(data, TRUE));
}

static void test_a_waiter_gets_the_slot_that_comes_back(void)
{
    g_autoptr(BufferPool) pool = new_pool();
    gint last = -1, slot;

    while ((slot = buffer_pool_take_slot(pool, FALSE)) >= 0) {
        last = slot;
    }
    GThread *waiter = g_thread_new("waiter", wait_for_slot, pool);
    g_usleep(20000);
    buffer_pool_return(pool, &last, 1, NULL);
    g_assert_cmpint(GPOINTER_TO_INT(g_thread_join(waiter)), ==, last);
}

static void test_closing_ends_every_wait(void)
{
    g_autoptr(BufferPool) pool = new_pool();
    gint fetched[1];
    guint n;
    Batch *batch;

    while (buffer_pool_take_slot(pool, FALSE) >= 0) {
    }
    GThread *waiter = g_thread_new("waiter", wait_for_slot, pool);
    g_usleep(20000);
    buffer_pool_close(pool);
    g_assert_cmpint(GPOINTER_TO_INT(g_thread_join(waiter)), ==, -1);
    g_assert_null(buffer_pool_take_batch(pool, 10000));
    g_assert_false(buffer_pool_fetch(pool, fetched, 1, &n, &batch));
}

static void test_finishing_leaves_what_is_queued(void)
{
    g_autoptr(BufferPool) pool = new_pool();
    gint fetched[1];
    guint n;
    Batch *batch;

    buffer_pool_push_slot(pool, buffer_pool_take_slot(pool, FALSE), 0, 0);
    buffer_pool_finish(pool);
    g_assert_true(buffer_pool_fetch(pool, fetched, 1, &n, &batch));
    g_assert_cmpuint(n, ==, 1);
    buffer_pool_return(pool, fetched, n, batch);
    g_assert_false(buffer_pool_fetch(pool, fetched, 1, &n, &batch));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/buffer-pool/never-gives-more-than-its-size",
                    test_never_gives_more_than_its_size);
    g_test_add_func("/buffer-pool/faults-come-before-the-sweep", test_faults_come_before_the_sweep);
    g_test_add_func("/buffer-pool/a-waiter-gets-the-slot-that-comes-back",
                    test_a_waiter_gets_the_slot_that_comes_back);
    g_test_add_func("/buffer-pool/closing-ends-every-wait", test_closing_ends_every_wait);
    g_test_add_func("/buffer-pool/finishing-leaves-what-is-queued",
                    test_finishing_leaves_what_is_queued);
    return g_test_run();
}
