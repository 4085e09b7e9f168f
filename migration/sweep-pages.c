/*
 * Writing pages without claiming them. A pending page is protected, so what is read of it is its
 * content of T0 for as long as it stays pending. A writer who comes meanwhile waits neither for us
 * nor for the destination: a fault thread claims the page and saves it as always. What was written
 * here of such a page may be anything, but the fault thread's copy comes behind it in the image,
 * and of two records of a page the later one counts.
 *
 * It does come behind, because this one thread writes both: of a page that is found pending, no
 * copy is among the slots written so far.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>

#include "sweep-impl.h"
#include "util/fault-injection.h"

#define RELEASE_WAIT_US 20
#define PIECE_PAGES (SWEEP_BUFFER_SIZE / POOL_SLOT_SIZE)

/* Pages on their way. */
typedef struct Piece {
    GuestBlock *block;
    guint64 first;
    guint64 count;
    gboolean through_window;
    guint8 kind[PIECE_PAGES];
    gboolean chosen[PIECE_PAGES];
    gboolean zero[PIECE_PAGES];
} Piece;

static gboolean is_pending(GuestBlock *block, guint64 page)
{
    return page_state(block, page) == PAGE_PENDING || fault_injected("ignore-claim");
}

/* FALSE with an error where the page was given back, and nobody else has saved it before. */
static gboolean check_page(Sweep *sweep, GuestBlock *block, PageKind kind, guint64 page,
                           const guint8 *data, GError **errp)
{
    GError *error = NULL;

    if (guest_block_check_kept(sweep->ram, block, kind, page * block->page_size, data,
                               block->page_size, &error)) {
        return TRUE;
    }
    if (!is_pending(block, page)) {
        g_error_free(error);
        return TRUE;
    }
    g_propagate_error(errp, error);
    return FALSE;
}

static gboolean check_run(Sweep *sweep, Piece *piece, guint64 i, guint64 count, const guint8 *data,
                          GError **errp)
{
    GuestBlock *block = piece->block;
    PageKind kind = (PageKind)piece->kind[i];

    if (guest_block_check_kept(sweep->ram, block, kind, (piece->first + i) * block->page_size, data,
                               count * block->page_size, NULL)) {
        return TRUE;
    }
    for (guint64 j = 0; j < count; j++) {
        if (!check_page(sweep, block, kind, piece->first + i + j, data + j * block->page_size,
                        errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

/* The bytes of a run of chosen pages of one kind; *data is NULL where they are known to be zero. */
static gboolean read_run(Sweep *sweep, Piece *piece, guint64 i, guint64 count, const guint8 **data,
                         GError **errp)
{
    GuestBlock *block = piece->block;
    PageKind kind = (PageKind)piece->kind[i];
    guint8 *buffer = sweep->buffer + i * block->page_size;

    *data = NULL;
    if (kind == PAGE_KIND_ZERO) {
        return TRUE;
    }
    if (piece->through_window) {
        *data = guest_window_look(sweep->window, block, piece->first + i, count);
    }
    if (*data) {
        return TRUE;
    }
    *data = buffer;
    return guest_block_read(sweep->ram, block, kind, (piece->first + i) * block->page_size, buffer,
                            count * block->page_size, errp) &&
           check_run(sweep, piece, i, count, buffer, errp);
}

static gboolean write_run(Sweep *sweep, Piece *piece, guint64 i, guint64 count, GError **errp)
{
    GuestBlock *block = piece->block;
    const guint8 *data;

    return read_run(sweep, piece, i, count, &data, errp) &&
           output_pages(sweep->output, block->index, (piece->first + i) * block->page_size, data,
                        count * block->page_size, piece->zero + i, errp);
}

static gboolean write_chosen(Sweep *sweep, Piece *piece, GError **errp)
{
    for (guint64 i = 0, end; i < piece->count; i = end) {
        for (end = i + 1; end < piece->count && piece->chosen[end] == piece->chosen[i] &&
                          piece->kind[end] == piece->kind[i];
             end++) {
        }
        if (piece->chosen[i] && !write_run(sweep, piece, i, end - i, errp)) {
            return FALSE;
        }
    }
    return output_flush(sweep->output, errp);
}

/* What is still pending is saved by now; the rest a fault thread has taken. */
static void take_written(Sweep *sweep, Piece *piece)
{
    GuestBlock *block = piece->block;
    guint64 taken = 0, zero = 0;

    for (guint64 i = 0; i < piece->count; i++) {
        if (piece->chosen[i] &&
            (page_take(block, piece->first + i) || fault_injected("ignore-claim"))) {
            taken++;
            zero += piece->zero[i] ? 1 : 0;
        }
    }
    atomic_fetch_add_explicit(&sweep->pages_saved, taken, memory_order_relaxed);
    output_count(sweep->output, taken * block->page_size, zero * block->page_size);
}

static gboolean write_piece(Sweep *sweep, Piece *piece, GError **errp)
{
    GuestBlock *block = piece->block;

    for (guint64 i = 0; i < piece->count; i++) {
        piece->chosen[i] = is_pending(block, piece->first + i);
    }
    return guest_block_scan(sweep->ram, block, piece->first, piece->count, piece->kind, errp) &&
           write_chosen(sweep, piece, errp);
}

/*
 * Through the window where there is one. If a page that was to be there turned out a hole, all is
 * written once more from our own copy, which is looked at closely; again the last one counts.
 */
static gboolean sweep_piece(Sweep *sweep, GuestBlock *block, guint64 first, guint64 count,
                            GError **errp)
{
    Piece piece = { .block = block, .first = first, .count = count, .through_window = TRUE };
    guint64 holes = guest_window_get_holes(sweep->window);

    if (!output_slots(sweep->output, errp) || !write_piece(sweep, &piece, errp)) {
        return FALSE;
    }
    if (guest_window_get_holes(sweep->window) != holes) {
        piece.through_window = FALSE;
        if (!write_piece(sweep, &piece, errp)) {
            return FALSE;
        }
    }
    take_written(sweep, &piece);
    return TRUE;
}

/*
 * The kernel refuses (EAGAIN) while a thread of QEMU gives memory back. The fault thread that deals
 * with it may be waiting for slots, and it is we who empty them.
 */
static gboolean release_run(Sweep *sweep, GuestBlock *block, guint64 first, guint64 count,
                            GError **errp)
{
    while (!outcome_has_failed(sweep->outcome)) {
        g_mutex_lock(&sweep->tracking_lock);
        int ret =
            sweep->detached ? 0 : write_tracking_try_release(sweep->tracking, block, first, count);
        g_mutex_unlock(&sweep->tracking_lock);
        if (ret != -EAGAIN) {
            return ret == 0 || write_tracking_error(ret, block, errp);
        }
        if (!output_slots(sweep->output, errp)) {
            return FALSE;
        }
        g_usleep(RELEASE_WAIT_US);
    }
    return TRUE;
}

/*
 * Releases in runs as wide as possible: each call costs the vCPUs a TLB flush. A run goes over all
 * pages that are saved, but never over one that a fault thread is still copying.
 */
static gboolean release_saved(Sweep *sweep, GuestBlock *block, guint64 first, guint64 count,
                              GError **errp)
{
    for (guint64 i = 0, end; i < count; i = end) {
        for (end = i; end < count && page_state(block, first + end) == PAGE_SAVED; end++) {
        }
        if (end == i) {
            end++;
        } else if (!release_run(sweep, block, first + i, end - i, errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

gboolean sweep_pages(Sweep *sweep, GuestBlock *block, guint64 first, guint64 count, GError **errp)
{
    guint64 step = MIN(SWEEP_BUFFER_SIZE / block->page_size, PIECE_PAGES);

    for (guint64 done = 0; done < count; done += step) {
        if (!sweep_piece(sweep, block, first + done, MIN(step, count - done), errp)) {
            return FALSE;
        }
    }
    return release_saved(sweep, block, first, count, errp);
}

/*
 * A huge page is protected and released only as a whole. Once a fault thread has claimed it, all of
 * it comes from there: nothing of it may be written here after the first of its slots.
 */
gboolean sweep_huge_page(Sweep *sweep, GuestBlock *block, guint64 page, GError **errp)
{
    guint64 begin = page * block->page_size, zero_bytes = 0;
    gboolean zero[PIECE_PAGES];
    guint8 kind;

    if (!guest_block_scan(sweep->ram, block, page, 1, &kind, errp)) {
        return FALSE;
    }
    for (guint64 at = 0; at < block->page_size; at += SWEEP_BUFFER_SIZE) {
        guint64 length = MIN(SWEEP_BUFFER_SIZE, block->page_size - at);
        if (!output_slots(sweep->output, errp)) {
            return FALSE;
        }
        if (!is_pending(block, page)) {
            return TRUE;
        }
        if (!guest_block_read(sweep->ram, block, (PageKind)kind, begin + at, sweep->buffer, length,
                              errp) ||
            !check_page(sweep, block, (PageKind)kind, page, NULL, errp) ||
            !output_pages(sweep->output, block->index, begin + at, sweep->buffer, length, zero,
                          errp) ||
            !output_flush(sweep->output, errp)) {
            return FALSE;
        }
        for (guint64 i = 0; i < length / POOL_SLOT_SIZE; i++) {
            zero_bytes += zero[i] ? POOL_SLOT_SIZE : 0;
        }
    }
    if (page_take(block, page)) {
        atomic_fetch_add_explicit(&sweep->pages_saved, 1, memory_order_relaxed);
        output_count(sweep->output, block->page_size, zero_bytes);
    }
    return release_saved(sweep, block, page, 1, errp);
}
