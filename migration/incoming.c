/*
 * A restore from top to bottom: look at the image, start QEMU, compare, feed, wait until it runs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "incoming-impl.h"
#include "incoming-lazy.h"
#include "monitor/machine.h"
#include "util/autofd.h"
#include "util/fault-injection.h"

#define POLL_US (5 * 1000)
/* Since when QEMU loads mapped-ram. */
#define MAPPED_RAM_VERSION 90000
/* How long the run state may take after the load; it is set by a bottom half of the main loop. */
#define RUN_STATE_WAIT_US (10 * G_USEC_PER_SEC)
/* How long QEMU may take to refuse what does not fit. */
#define REFUSAL_WAIT_MS 10000

void incoming_report_clear(IncomingReport *report)
{
    g_free(report->run_state);
    *report = (IncomingReport){ 0 };
}

static double seconds_since(gint64 start)
{
    return (double)(g_get_monotonic_time() - start) / G_USEC_PER_SEC;
}

static gboolean check_cancel(const volatile int *cancel, GError **errp)
{
    if (*cancel) {
        g_set_error(errp, SF_ERROR, SF_ERROR_CANCELLED, "the restore was cancelled");
        return FALSE;
    }
    return TRUE;
}

/* query-migrate's status, "none" before there is one; the caller frees. */
static char *query_load_status(QmpClient *qmp, GError **errp)
{
    g_autoptr(JsonNode) info = qmp_client_execute(qmp, "query-migrate", NULL, errp);

    if (!info) {
        return NULL;
    }
    const char *status = JSON_NODE_HOLDS_OBJECT(info)
                             ? json_object_get_string_member_with_default(
                                   json_node_get_object(info), "status", "none")
                             : "none";
    return g_strdup(status);
}

static void show_progress(const IncomingOptions *options, guint64 done, guint64 total)
{
    if (options->progress) {
        options->progress(INCOMING_LOADING, done, total, options->progress_user);
    }
}

/* Waits for "completed". QEMU exits by itself when a load fails, with a message. */
static gboolean wait_loaded(const IncomingOptions *options, IncomingQemu *qemu, IncomingFeed *feed,
                            guint64 total, const volatile int *cancel, GError **errp)
{
    while (check_cancel(cancel, errp)) {
        GError *error = NULL;
        g_autofree char *status = query_load_status(qemu->qmp, &error);
        int broken = incoming_feed_get_error(feed);
        if (incoming_feed_take_failure(feed, errp)) {
            g_clear_error(&error);
            return FALSE;
        }
        if (!status) {
            return incoming_qemu_explain(qemu, error, errp);
        }
        if (!strcmp(status, "completed")) {
            show_progress(options, total, total);
            return TRUE;
        }
        if (!strcmp(status, "failed")) {
            g_set_error(errp, SF_ERROR, SF_ERROR_FAILED,
                        "QEMU could not load the image; its own message tells why");
            return FALSE;
        }
        if (broken && broken != EPIPE) {
            return sf_error_set_errno(errp, SF_ERROR_IO, broken, "cannot read the image %s",
                                      options->image);
        }
        show_progress(options, incoming_feed_get_done(feed), total);
        g_usleep(POLL_US);
    }
    return FALSE;
}

/* The state that the source had, or paused where -S asks for it. */
static gboolean wait_run_state(IncomingQemu *qemu, const volatile int *cancel,
                               IncomingReport *report, GError **errp)
{
    gint64 deadline = g_get_monotonic_time() + RUN_STATE_WAIT_US;

    while (check_cancel(cancel, errp)) {
        GError *error = NULL;
        g_autofree char *state = machine_query_status(qemu->qmp, &report->running, &error);
        if (!state) {
            return incoming_qemu_explain(qemu, error, errp);
        }
        if (strcmp(state, "inmigrate") != 0) {
            report->run_state = g_steal_pointer(&state);
            return TRUE;
        }
        if (g_get_monotonic_time() > deadline) {
            g_set_error(errp, SF_ERROR, SF_ERROR_FAILED,
                        "QEMU has loaded the image but does not leave the state \"inmigrate\"");
            return FALSE;
        }
        g_usleep(POLL_US);
    }
    return FALSE;
}

/* Whether the file's own bytes are what every QEMU loads. */
static gboolean is_plain_stream(ImageReader *reader)
{
    return image_reader_get_fd(reader) >= 0 && image_reader_get_kind(reader) == IMAGE_KIND_STREAM;
}

/* The shortest way that this QEMU knows for this image. */
static IncomingFeed *start_feed(QmpClient *qmp, ImageReader *reader, GError **errp)
{
    const ImageLayout *layout = image_reader_get_layout(reader);
    const FeedRange ranges[FEED_RANGES] = { { layout->start, layout->end } };

    if (is_plain_stream(reader)) {
        return incoming_feed_start(qmp, image_reader_get_fd(reader), ranges, errp);
    }
    if (image_reader_get_kind(reader) == IMAGE_KIND_MAPPED_RAM &&
        image_reader_get_fd(reader) >= 0 && qmp_client_get_version(qmp) >= MAPPED_RAM_VERSION &&
        qmp_client_can_send_fd(qmp) && !fault_injected("no-mapped-load")) {
        return incoming_feed_start_mapped(qmp, image_reader_get_fd(reader), layout->start, errp);
    }
    return incoming_feed_start_converted(qmp, reader, errp);
}

/* One restore on its way. */
typedef struct Incoming {
    const IncomingOptions *options;
    ImageReader *reader;
    IncomingQemu qemu;
    LazyRestore lazy;
    gboolean waiting; /* QEMU is to be left as it is, although the restore has failed */
    const volatile int *cancel;
    IncomingReport *report;
} Incoming;

/* Until the run state is there. @feed is taken; NULL for one that could not begin, with @error. */
static gboolean finish_load(Incoming *incoming, IncomingFeed *begun, GError *error, gint64 start,
                            GError **errp)
{
    IncomingQemu *qemu = &incoming->qemu;
    IncomingReport *report = incoming->report;
    g_autoptr(IncomingFeed) feed = begun;

    if (!feed) {
        return incoming_qemu_explain(qemu, error, errp);
    }
    gboolean good = wait_loaded(incoming->options, qemu, feed, incoming_feed_get_total(feed),
                                incoming->cancel, errp) &&
                    wait_run_state(qemu, incoming->cancel, report, errp);
    report->load_seconds = seconds_since(start);
    report->bytes = incoming_feed_get_done(feed);
    if (!good) {
        incoming_feed_forget_qemu(feed);
        incoming_qemu_end(qemu); /* the feed's thread ends with its reader */
    }
    return good;
}

static gboolean load(Incoming *incoming, GError **errp)
{
    gint64 start = g_get_monotonic_time();
    GError *error = NULL;
    IncomingFeed *begun = start_feed(incoming->qemu.qmp, incoming->reader, &error);

    return finish_load(incoming, begun, error, start, errp);
}

/* The guest runs after this; what it has of the image by then is what it has asked for. */
static gboolean load_without_memory(Incoming *incoming, GError **errp)
{
    FeedRange ranges[FEED_RANGES] = { { 0, 0 } };
    gint64 start = g_get_monotonic_time();
    GError *error = NULL;

    if (!lazy_restore_attach(&incoming->lazy, incoming->options, &incoming->qemu, incoming->reader,
                             errp)) {
        return FALSE;
    }
    sf_autofd stream =
        lazy_restore_make_stream(&incoming->lazy, incoming->reader, &ranges[0].end, errp);
    if (stream < 0) {
        return FALSE;
    }
    IncomingFeed *begun = incoming_feed_start(incoming->qemu.qmp, stream, ranges, &error);
    return finish_load(incoming, begun, error, start, errp);
}

static gboolean load_lazily(Incoming *incoming, GError **errp)
{
    const IncomingOptions *options = incoming->options;

    if (!load_without_memory(incoming, errp)) {
        return FALSE;
    }
    if (options->runs) {
        options->runs(incoming->report, options->progress_user);
    }
    return lazy_restore_serve(&incoming->lazy, options, incoming->qemu.qmp, incoming->cancel,
                              incoming->report, &incoming->waiting, errp);
}

/*
 * Has QEMU say in its own words what it does not like: it gets the head, the list of RAM blocks
 * without pages, and the device sections, but never the end of the stream, so that it cannot run
 * whatever it makes of them.
 */
static void let_qemu_refuse(IncomingQemu *qemu, ImageReader *reader)
{
    const ImageLayout *layout = image_reader_get_layout(reader);
    const FeedRange ranges[FEED_RANGES] = { { layout->start, layout->pages },
                                            { layout->devices, layout->eof } };
    g_autoptr(IncomingFeed) feed =
        incoming_feed_start(qemu->qmp, image_reader_get_fd(reader), ranges, NULL);

    if (feed) {
        incoming_qemu_wait_end(qemu, REFUSAL_WAIT_MS);
    }
    incoming_qemu_end(qemu);
}

static gboolean set_mismatch(const char *image, GPtrArray *lines, GError **errp)
{
    g_autoptr(GString) text = g_string_new(NULL);

    g_string_printf(text, "%s does not fit this QEMU command line:", image);
    for (guint i = 0; i < lines->len; i++) {
        g_string_append_printf(text, "\n  %s", (const char *)g_ptr_array_index(lines, i));
    }
    g_set_error_literal(errp, SF_ERROR, SF_ERROR_MISMATCH, text->str);
    return FALSE;
}

/* After a failed load: what looked odd before it is now the likely cause. */
static gboolean name_suspects(const char *image, GPtrArray *suspects, GError **errp)
{
    if (!suspects->len || !errp || !g_error_matches(*errp, SF_ERROR, SF_ERROR_VM_GONE)) {
        return FALSE;
    }
    g_autofree char *ended = g_strdup((*errp)->message);
    g_clear_error(errp);
    set_mismatch(image, suspects, errp);
    g_prefix_error(errp, "%s. ", ended);
    return FALSE;
}

static gboolean compare_and_load(Incoming *incoming, GError **errp)
{
    const IncomingOptions *options = incoming->options;
    IncomingQemu *qemu = &incoming->qemu;
    IncomingDifferences differences;
    GError *error = NULL;
    gboolean good = FALSE;

    incoming_differences_init(&differences);
    if (!incoming_compare(qemu->qmp, incoming->reader, &differences, &error)) {
        incoming_qemu_explain(qemu, error, errp);
    } else if (differences.certain->len) {
        if (differences.qemu_refuses && !options->lazy && is_plain_stream(incoming->reader)) {
            let_qemu_refuse(qemu, incoming->reader);
        } else {
            incoming_qemu_quit(qemu);
        }
        set_mismatch(options->image, differences.certain, errp);
    } else {
        good = (options->lazy ? load_lazily(incoming, errp) : load(incoming, errp)) ||
               name_suspects(options->image, differences.suspected, errp);
    }
    incoming_differences_clear(&differences);
    return good;
}

/* Only the structure is looked at, and whether somebody wants to stop. */
static gboolean look_at_page(guint block, guint64 offset, const void *data, guint64 length,
                             gpointer user, GError **errp)
{
    return check_cancel(user, errp);
}

static gboolean look_at_image(Incoming *incoming, GError **errp)
{
    return incoming->options->lazy ? lazy_restore_index(&incoming->lazy, incoming->options,
                                                        incoming->reader, incoming->cancel, errp)
                                   : image_reader_foreach_page(incoming->reader, look_at_page,
                                                               (gpointer)incoming->cancel, errp);
}

/* From the start of the program on. QEMU initialises while the image is looked through. */
static gboolean run_qemu(Incoming *incoming, GError **errp)
{
    gint64 start = g_get_monotonic_time();

    if (!incoming_qemu_start(&incoming->qemu, incoming->options->qemu_command, errp) ||
        !look_at_image(incoming, errp) ||
        !incoming_qemu_wait_monitor(&incoming->qemu, incoming->cancel, errp)) {
        return FALSE;
    }
    incoming->report->start_seconds = seconds_since(start);
    incoming->report->pid = incoming->qemu.pid;
    return compare_and_load(incoming, errp);
}

/* It is looked at before it is loaded, and a device state without memory is no VM. */
static gboolean check_kind(ImageReader *reader, const char *image, GError **errp)
{
    if (image_reader_get_kind(reader) == IMAGE_KIND_DEVICES || !strcmp(image, "-")) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "%s is %s; give the file of a whole image", image,
                    !strcmp(image, "-") ? "a pipe, which can be read once only"
                                        : "the state of devices without memory");
        return FALSE;
    }
    return TRUE;
}

/* After a failure. A guest whose memory cannot be had now, but later, is left. */
static void give_up(Incoming *incoming)
{
    if (incoming->waiting) {
        incoming_qemu_release(&incoming->qemu);
        return;
    }
    incoming_qemu_end(&incoming->qemu);
    g_clear_pointer(&incoming->lazy.service, lazy_service_free);
    g_clear_pointer(&incoming->lazy.record, lazy_record_remove);
}

gboolean incoming_run(const IncomingOptions *options, const volatile int *cancel,
                      IncomingReport *report, GError **errp)
{
    g_autoptr(ImageReader) reader = image_reader_open(options->image, options->offset, errp);
    Incoming incoming = {
        .options = options, .reader = reader, .cancel = cancel, .report = report
    };

    *report = (IncomingReport){ 0 };
    if (!reader || (!options->lazy && !check_kind(reader, options->image, errp))) {
        return FALSE;
    }
    lazy_restore_init(&incoming.lazy);
    gboolean good = run_qemu(&incoming, errp);
    if (good) {
        incoming_qemu_release(&incoming.qemu);
    } else {
        give_up(&incoming);
    }
    lazy_restore_clear(&incoming.lazy);
    return good;
}
