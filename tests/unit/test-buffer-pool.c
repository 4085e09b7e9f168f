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
    guint slots = 0;

    while (buffer_pool_take_slot(pool, FALSE) >= 0) {
        slots++;
    }
    g_assert_cmpuint(slots, >, 0);
    g_assert_cmpuint((guint64)slots * POOL_SLOT_SIZE, ==, POOL_BYTES);
    g_assert_cmpuint(buffer_pool_get_used(pool), ==, buffer_pool_get_peak(pool));
}

static void test_pages_come_out_in_the_order_of_their_faults(void)
{
    g_autoptr(BufferPool) pool = new_pool();
    gint fetched[4];
    gint a = buffer_pool_take_slot(pool, FALSE), b = buffer_pool_take_slot(pool, FALSE);

    g_assert_cmpuint(buffer_pool_fetch(pool, fetched, 4, FALSE), ==, 0);
    buffer_pool_push_slot(pool, b, 3, 0x5000);
    buffer_pool_push_slot(pool, a, 2, 0x1000);
    g_assert_cmpuint(buffer_pool_fetch(pool, fetched, 4, FALSE), ==, 2);
    g_assert_cmpint(fetched[0], ==, b);
    g_assert_cmpint(fetched[1], ==, a);
    Extent extent = buffer_pool_slot_extent(pool, b);
    g_assert_cmpuint(extent.block, ==, 3);
    g_assert_cmpuint(extent.offset, ==, 0x5000);
    buffer_pool_return(pool, fetched, 2);
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
    buffer_pool_return(pool, &last, 1);
    g_assert_cmpint(GPOINTER_TO_INT(g_thread_join(waiter)), ==, last);
}

static void test_closing_ends_every_wait(void)
{
    g_autoptr(BufferPool) pool = new_pool();
    gint fetched[1];

    while (buffer_pool_take_slot(pool, FALSE) >= 0) {
    }
    GThread *waiter = g_thread_new("waiter", wait_for_slot, pool);
    g_usleep(20000);
    buffer_pool_close(pool);
    g_assert_cmpint(GPOINTER_TO_INT(g_thread_join(waiter)), ==, -1);
    g_assert_cmpuint(buffer_pool_fetch(pool, fetched, 1, TRUE), ==, 0);
}

static void test_finishing_leaves_what_is_queued(void)
{
    g_autoptr(BufferPool) pool = new_pool();
    gint fetched[1];

    buffer_pool_push_slot(pool, buffer_pool_take_slot(pool, FALSE), 0, 0);
    buffer_pool_finish(pool);
    g_assert_cmpuint(buffer_pool_fetch(pool, fetched, 1, TRUE), ==, 1);
    buffer_pool_return(pool, fetched, 1);
    g_assert_cmpuint(buffer_pool_fetch(pool, fetched, 1, TRUE), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/buffer-pool/never-gives-more-than-its-size",
                    test_never_gives_more_than_its_size);
    g_test_add_func("/buffer-pool/pages-come-out-in-the-order-of-their-faults",
                    test_pages_come_out_in_the_order_of_their_faults);
    g_test_add_func("/buffer-pool/a-waiter-gets-the-slot-that-comes-back",
                    test_a_waiter_gets_the_slot_that_comes_back);
    g_test_add_func("/buffer-pool/closing-ends-every-wait", test_closing_ends_every_wait);
    g_test_add_func("/buffer-pool/finishing-leaves-what-is-queued",
                    test_finishing_leaves_what_is_queued);
    return g_test_run();
}
