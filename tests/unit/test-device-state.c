/*
 * Device sections: found whatever their bodies look like, and never beyond the end of the data.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "image-helper.h"
#include "migration/device-state.h"

static void assert_section(GPtrArray *list, guint index, const char *name, guint32 version,
                           gsize offset, gsize length)
{
    const DeviceSection *section = g_ptr_array_index(list, index);

    g_assert_cmpstr(section->name, ==, name);
    g_assert_cmpuint(section->instance_id, ==, 0);
    g_assert_cmpuint(section->version_id, ==, version);
    g_assert_cmpuint(section->offset, ==, offset);
    g_assert_cmpuint(section->length, ==, length);
}

static void test_list(void)
{
    g_autoptr(GByteArray) data = sample_device_state();
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) list = device_state_list(data->data, data->len, &error);

    g_assert_no_error(error);
    g_assert_cmpuint(list->len, ==, 4);
    assert_section(list, 0, "timer", 2, 0, 14 + 5 + 10 + 5);
    assert_section(list, 1, "0000:00:02.0/trap", 1, 34, 14 + 17 + 12 + 5);
    assert_section(list, 2, "empty", 1, 82, 14 + 5 + 5);
    assert_section(list, 3, "globalstate", 1, 106, 14 + 11 + 104 + 5);
    g_assert_cmpuint(data->len, ==, 106 + 134);
}

/* The same sections in front of what ends a stream. */
static void test_list_in_stream(void)
{
    static const char description[] = "{\"page_size\": 4096}";
    g_autoptr(GByteArray) data = sample_device_state();
    guint sections = data->len;
    g_autoptr(GError) error = NULL;
    gsize end = 0;

    put_u8(data, 0x00);
    g_autoptr(GPtrArray) bare = device_state_list_in_stream(data->data, data->len, &end, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(bare->len, ==, 4);
    g_assert_cmpuint(end, ==, sections);

    put_u8(data, 0x06);
    put_u32(data, sizeof(description) - 1);
    g_byte_array_append(data, (const guint8 *)description, sizeof(description) - 1);
    g_byte_array_append(data, (const guint8 *)"anything", 8);
    g_autoptr(GPtrArray) list = device_state_list_in_stream(data->data, data->len, &end, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(end, ==, sections);
    g_assert_cmpuint(list->len, ==, 4);
    /* Without the frame's knowledge the end is junk. */
    g_assert_null(device_state_list(data->data, data->len, NULL));
}

static void test_nothing(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) list = device_state_list((const guint8 *)"", 0, &error);

    g_assert_no_error(error);
    g_assert_cmpuint(list->len, ==, 0);
}

/*
 * Wherever it is cut, the answer is an error or a shorter list, never a read behind the end. Cut
 * right behind one of the trap's footers (70, 76) it is as good as whole.
 */
static void test_cut_off(void)
{
    g_autoptr(GByteArray) data = sample_device_state();
    static const gsize ends[] = { 0, 34, 70, 76, 82, 106 };

    for (gsize length = 0; length < data->len; length++) {
        g_autofree guint8 *exact = g_memdup2(data->data, length);
        g_autoptr(GError) error = NULL;
        g_autoptr(GPtrArray) list = device_state_list(exact, length, &error);
        gboolean whole = FALSE;
        for (guint i = 0; i < G_N_ELEMENTS(ends); i++) {
            whole |= length == ends[i];
        }
        g_assert_cmpint(list != NULL, ==, whole);
        if (!list) {
            g_assert_error(error, SF_ERROR, SF_ERROR_FORMAT);
        }
    }
}

static void test_unframe(void)
{
    g_autoptr(GByteArray) data = g_byte_array_new();
    g_autoptr(GByteArray) sections = sample_device_state();
    gsize start = 0;
    gsize length = 0;

    put_u32(data, 0x5145564d);
    put_u32(data, 3);
    g_byte_array_append(data, sections->data, sections->len);
    g_assert_false(device_state_unframe(data->data, data->len, &start, &length, NULL));
    put_u8(data, 0);
    g_assert_true(device_state_unframe(data->data, data->len, &start, &length, NULL));
    g_assert_cmpmem(data->data + start, length, sections->data, sections->len);

    for (gsize wrong = 0; wrong < 9; wrong++) {
        g_autoptr(GError) error = NULL;
        g_assert_false(device_state_unframe(data->data, wrong, &start, &length, &error));
        g_assert_error(error, SF_ERROR, SF_ERROR_FORMAT);
    }
    data->data[7] = 2;
    g_assert_false(device_state_unframe(data->data, data->len, &start, &length, NULL));
}

static void test_run_state(void)
{
    g_autoptr(GByteArray) data = sample_device_state();
    g_autoptr(GByteArray) before = sample_device_state();
    g_autoptr(GError) error = NULL;

    g_autofree char *running = device_state_get_run_state(data->data, data->len);
    g_assert_cmpstr(running, ==, "running");
    g_assert_true(device_state_set_run_state(data->data, data->len, "guest-panicked", &error));
    g_autofree char *panicked = device_state_get_run_state(data->data, data->len);
    g_assert_cmpstr(panicked, ==, "guest-panicked");
    g_assert_true(device_state_set_run_state(data->data, data->len, "running", &error));
    /* Nothing else changed, above all not what newer QEMU keeps behind the name. */
    g_assert_cmpmem(data->data, data->len, before->data, before->len);

    g_assert_false(device_state_set_run_state(data->data, data->len,
                                              "a-name-of-more-than-thirty-one-bytes", &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_FORMAT);
}

static void test_run_state_missing(void)
{
    g_autoptr(GByteArray) data = g_byte_array_new();
    g_autoptr(GError) error = NULL;

    put_section(data, 1, "globalstate", 1, "short", 5);
    g_assert_null(device_state_get_run_state(data->data, data->len));
    g_assert_false(device_state_set_run_state(data->data, data->len, "paused", &error));
    g_assert_error(error, SF_ERROR, SF_ERROR_FORMAT);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/device-state/list", test_list);
    g_test_add_func("/device-state/list-in-stream", test_list_in_stream);
    g_test_add_func("/device-state/nothing", test_nothing);
    g_test_add_func("/device-state/cut-off", test_cut_off);
    g_test_add_func("/device-state/unframe", test_unframe);
    g_test_add_func("/device-state/run-state", test_run_state);
    g_test_add_func("/device-state/run-state-missing", test_run_state_missing);
    return g_test_run();
}
