/*
 * Taking over the memory of a QEMU that waits for a stream, and the stream that it gets.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "attach/ram-host.h"
#include "attach/userfaultfd.h"
#include "incoming-lazy.h"
#include "migration/preflight.h"
#include "userfaultfd-compat.h"
#include "util/autofd.h"

/* Smaller blocks (firmware, tables) are loaded the plain way: that is a moment. */
#define LAZY_BLOCK_MIN (1024ULL * 1024)
#define PAGEMAP_PAGE 4096ULL
#define PAGEMAP_ENTRIES 8192ULL
/* Present, or swapped out (Documentation/admin-guide/mm/pagemap.rst). */
#define PAGEMAP_THERE (3ULL << 62)

static gboolean unsupported(GError **errp, const char *block, const char *why)
{
    g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                "the guest cannot run before its memory is read: RAM block %s %s; use --eager",
                block, why);
    return FALSE;
}

/* ---- what may come later ---- */

static gboolean check_capabilities(ImageReader *reader, GError **errp)
{
    const GPtrArray *names = image_reader_get_capabilities(reader);

    for (guint i = 0; i < names->len; i++) {
        const char *name = g_ptr_array_index(names, i);
        if (strcmp(name, "mapped-ram") != 0) {
            g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                        "the image was written with the capability %s; use --eager", name);
            return FALSE;
        }
    }
    return TRUE;
}

/* Who writes to memory, or reads it, past QEMU's page tables would not meet the missing pages. */
static gboolean check_blockers(const IncomingQemu *qemu, GPtrArray *blocks, GPtrArray *maps,
                               GError **errp)
{
    g_autoptr(GPtrArray) blockers =
        preflight_incoming_blockers(qemu->pid, qemu->qmp, blocks, maps, errp);

    if (blockers && blockers->len) {
        g_set_error(errp, SF_ERROR, SF_ERROR_UNSUPPORTED,
                    "the guest cannot run before its memory is read: %s; use --eager",
                    (const char *)g_ptr_array_index(blockers, 0));
        return FALSE;
    }
    return blockers != NULL;
}

static gboolean learn_ram(LazyRestore *lazy, const IncomingQemu *qemu, GError **errp)
{
    g_autoptr(GPtrArray) blocks = machine_query_ram_blocks(qemu->qmp, errp);
    g_autoptr(GPtrArray) maps = blocks ? proc_read_maps(qemu->pid, errp) : NULL;
    guint skipped;

    if (!maps || !ram_host_locate(qemu->pid, qemu->qmp, blocks, maps, errp) ||
        !check_blockers(qemu, blocks, maps, errp)) {
        return FALSE;
    }
    lazy->ram = guest_ram_new(qemu->pid, blocks, maps, &skipped, errp);
    return lazy->ram != NULL;
}

static gboolean is_lazy(const LazyRestore *lazy, const GuestBlock *block)
{
    const PlacesBlock *places = image_places_find(lazy->places, block->name);

    return places && block->length >= LAZY_BLOCK_MIN && places->used_length == block->length &&
           strlen(block->name) < LAZY_NAME_BYTES;
}

static GArray *list_blocks(const LazyRestore *lazy)
{
    GArray *list = g_array_new(FALSE, TRUE, sizeof(LazyRecordBlock));

    for (guint i = 0; i < lazy->ram->blocks->len; i++) {
        const GuestBlock *block = g_ptr_array_index(lazy->ram->blocks, i);
        LazyRecordBlock entry = { .host = block->host,
                                  .page_size = block->page_size,
                                  .pages = block->pages };
        if (is_lazy(lazy, block)) {
            g_strlcpy(entry.name, block->name, sizeof(entry.name));
            g_array_append_val(list, entry);
        }
    }
    return list;
}

/* ---- the userfaultfd ---- */

static gboolean enable(LazyRestore *lazy, GError **errp)
{
    struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE };

    for (guint i = 0; i < lazy->ram->blocks->len; i++) {
        const GuestBlock *block = g_ptr_array_index(lazy->ram->blocks, i);
        api.features |= block->hugetlb     ? UFFD_FEATURE_MISSING_HUGETLBFS
                        : block->file >= 0 ? UFFD_FEATURE_MISSING_SHMEM
                                           : 0;
    }
    if (ioctl(lazy->uffd, UFFDIO_API, &api) < 0) {
        return sf_error_set_errno(errp, SF_ERROR_UNSUPPORTED, errno,
                                  "this kernel's userfaultfd cannot do what a lazy restore "
                                  "needs" USERFAULTFD_SEE_CHECK);
    }
    return TRUE;
}

static gboolean register_block(LazyRestore *lazy, const LazyRecordBlock *block, GError **errp)
{
    struct uffdio_register reg = {
        .range = { .start = block->host, .len = block->pages * block->page_size },
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };

    if (ioctl(lazy->uffd, UFFDIO_REGISTER, &reg) < 0) {
        g_autofree char *why = g_strdup_printf("is of a kind that this kernel does not tell "
                                               "missing pages of (%s)",
                                               g_strerror(errno));
        return unsupported(errp, block->name, why);
    }
    return TRUE;
}

/* ---- what is there already ---- */

/* Pages of private memory: QEMU's page map knows. */
static gboolean note_private(LazyRestore *lazy, const GuestBlock *block, guint8 *state,
                             GError **errp)
{
    g_autofree guint64 *entries = g_new(guint64, PAGEMAP_ENTRIES);

    for (guint64 page = 0; page < block->pages;) {
        guint64 count = MIN(block->pages - page, PAGEMAP_ENTRIES);
        guint64 at = block->host / PAGEMAP_PAGE + page;
        gsize want = count * sizeof(*entries);
        if (pread(lazy->ram->pagemap, entries, want, (off_t)(at * sizeof(*entries))) !=
            (ssize_t)want) {
            return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "reading QEMU's page map");
        }
        for (guint64 i = 0; i < count; i++) {
            if (entries[i] & PAGEMAP_THERE) {
                state[page + i] = LAZY_DONE;
            }
        }
        page += count;
    }
    return TRUE;
}

/*
 * A page of the file that is not seen as data, but is allocated (fallocate()), would be read as
 * zeros without a fault.
 */
static gboolean check_file(const GuestBlock *block, guint64 present, GError **errp)
{
    struct stat st;

    if (fstat(block->file, &st) < 0) {
        return sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "RAM block %s", block->name);
    }
    if ((guint64)st.st_size == block->length &&
        (guint64)st.st_blocks * 512 > present * block->page_size) {
        return unsupported(errp, block->name,
                           "lies in a file that has memory which QEMU has not written");
    }
    return TRUE;
}

/* These pages never fault: they get their content by the stream. */
static gboolean note_present(LazyRestore *lazy, GuestBlock *block, guint8 *state, GError **errp)
{
    guint64 present = 0;

    if (!guest_block_note_present(lazy->ram, block, 0, block->pages, TRUE, errp)) {
        return FALSE;
    }
    for (guint64 page = 0; page < block->pages; page++) {
        if (page_was_present(block, page)) {
            state[page] = LAZY_DONE;
            present++;
        }
    }
    if (!block->shared && !block->hugetlb && !note_private(lazy, block, state, errp)) {
        return FALSE;
    }
    return !block->shared || block->file < 0 || check_file(block, present, errp);
}

static GuestBlock *find_guest_block(LazyRestore *lazy, const char *name)
{
    for (guint i = 0; i < lazy->ram->blocks->len; i++) {
        GuestBlock *block = g_ptr_array_index(lazy->ram->blocks, i);
        if (!strcmp(block->name, name)) {
            return block;
        }
    }
    return NULL;
}

static gboolean register_all(LazyRestore *lazy, GError **errp)
{
    for (guint i = 0; i < lazy->record->head->n_blocks; i++) {
        const LazyRecordBlock *entry = &lazy->record->blocks[i];
        if (!register_block(lazy, entry, errp) ||
            !note_present(lazy, find_guest_block(lazy, entry->name),
                          lazy_record_states(lazy->record, i), errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean open_uffd(LazyRestore *lazy, const IncomingQemu *qemu, int *remote, GError **errp)
{
    UffdDoor door;

    lazy->pidfd = (int)syscall(SYS_pidfd_open, lazy->pid, 0);
    if (lazy->pidfd < 0) {
        return sf_error_set_errno(errp, SF_ERROR_NO_PROCESS, errno, "cannot watch process %d",
                                  (int)lazy->pid);
    }
    lazy->uffd =
        attach_userfaultfd_shared(lazy->guardian, lazy->pid, qemu->qmp, &door, remote, errp);
    return lazy->uffd >= 0 && enable(lazy, errp);
}

static gboolean start_helpers(LazyRestore *lazy, const IncomingOptions *options,
                              const IncomingQemu *qemu, GError **errp)
{
    lazy->guardian = guardian_start(qmp_client_get_fd(qemu->qmp), errp);
    if (lazy->guardian && options->resume_command) {
        lazy->supervisor = lazy_supervisor_start(lazy->pid, options->resume_command, errp);
    }
    return lazy->guardian && (lazy->supervisor || !options->resume_command);
}

gboolean lazy_restore_attach(LazyRestore *lazy, const IncomingOptions *options,
                             const IncomingQemu *qemu, ImageReader *reader, GError **errp)
{
    g_autofree char *path = realpath(options->image, NULL);
    int remote = -1;

    lazy->pid = qemu->pid;
    if (!path || strlen(path) >= LAZY_PATH_BYTES) {
        return sf_error_set_errno(errp, SF_ERROR_IO, path ? ENAMETOOLONG : errno, "%s",
                                  options->image);
    }
    /* The helpers first: they must not hold what is mapped later. */
    if (!check_capabilities(reader, errp) || !start_helpers(lazy, options, qemu, errp) ||
        !learn_ram(lazy, qemu, errp) || !open_uffd(lazy, qemu, &remote, errp)) {
        return FALSE;
    }
    g_autoptr(GArray) blocks = list_blocks(lazy);
    lazy->record = lazy_record_create(lazy->pid, remote, path, options->offset,
                                      (const LazyRecordBlock *)blocks->data, blocks->len, errp);
    if (!lazy->record || !register_all(lazy, errp)) {
        return FALSE;
    }
    lazy->service = lazy_service_start(lazy->uffd, lazy->pidfd, lazy->places, lazy->record, errp);
    return lazy->service != NULL;
}

/* ---- the stream ---- */

typedef struct Feeding {
    LazyRestore *lazy;
    ImageWriter *writer;
    guint8 *buffer;
    guint8 *scratch;
} Feeding;

/* @count pages of the target from @first on. */
static gboolean feed_pages(Feeding *feeding, guint number, guint64 first, guint64 count,
                           GError **errp)
{
    const ImagePlaces *places = feeding->lazy->places;
    const PlacesBlock *block = g_ptr_array_index(places->blocks, number);
    guint64 page = places->page_size;
    ImageWriter *writer = feeding->writer;

    for (guint64 done = 0, n; done < count; done += n) {
        const guint64 *place = block->place + first + done;
        guint64 most = MIN(count - done, PLACES_READ_MAX / page);
        for (n = 1; n < most && !place[n] == !place[0]; n++) {
        }
        guint64 offset = (first + done) * page;
        if (!*place) {
            if (!writer->zero(writer, number, offset, n * page, errp)) {
                return FALSE;
            }
            continue;
        }
        if (!image_places_read(places, block, first + done, n, feeding->buffer, feeding->scratch,
                               errp) ||
            !writer->page(writer, number, offset, feeding->buffer, n * page, errp) ||
            !writer->flush(writer, errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

/* The record's number of an image block, or -1. */
static int find_record_block(const LazyRecord *record, const char *name)
{
    for (guint i = 0; i < record->head->n_blocks; i++) {
        if (!strcmp(record->blocks[i].name, name)) {
            return (int)i;
        }
    }
    return -1;
}

static gboolean feed_block(Feeding *feeding, guint number, GError **errp)
{
    LazyRestore *lazy = feeding->lazy;
    const PlacesBlock *block = g_ptr_array_index(lazy->places->blocks, number);
    int index = find_record_block(lazy->record, block->name);

    if (index < 0) {
        return feed_pages(feeding, number, 0, block->pages, errp);
    }
    const LazyRecordBlock *entry = &lazy->record->blocks[index];
    const guint8 *state = lazy_record_states(lazy->record, (guint)index);
    guint64 each = entry->page_size / lazy->places->page_size;
    /* What a fault has brought by now is only written once more. */
    for (guint64 page = 0; page < entry->pages; page++) {
        guint64 first = page * each;
        if (state[page] != LAZY_TODO && first < block->pages &&
            !feed_pages(feeding, number, first, MIN(each, block->pages - first), errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean write_stream(Feeding *feeding, ImageReader *reader, GError **errp)
{
    ImageWriter *writer = feeding->writer;
    const guint8 *devices;
    gsize length;

    if (!writer->begin(writer, image_reader_get_head(reader), errp)) {
        return FALSE;
    }
    for (guint i = 0; i < feeding->lazy->places->blocks->len; i++) {
        if (!feed_block(feeding, i, errp)) {
            return FALSE;
        }
    }
    return writer->flush(writer, errp) &&
           image_reader_get_device_state(reader, &devices, &length, errp) &&
           writer->device_state(writer, devices, length, errp) && writer->finish(writer, errp);
}

int lazy_restore_make_stream(LazyRestore *lazy, ImageReader *reader, guint64 *length, GError **errp)
{
    sf_autofd fd = memfd_create("stillframe-stream", MFD_CLOEXEC);
    const Destination destination = { .kind = DEST_FD, .fd = fd };

    if (fd < 0) {
        sf_error_set_errno(errp, SF_ERROR_FAILED, errno, "cannot make a memfd");
        return -1;
    }
    g_autoptr(Channel) channel = channel_open_output(&destination, FALSE, errp);
    if (!channel) {
        return -1;
    }
    g_autoptr(ImageWriter) writer = stream_writer_new(channel);
    g_autofree guint8 *buffer = g_malloc(3 * PLACES_READ_MAX);
    Feeding feeding = {
        .lazy = lazy, .writer = writer, .buffer = buffer, .scratch = buffer + PLACES_READ_MAX
    };
    if (!write_stream(&feeding, reader, errp)) {
        return -1;
    }
    *length = channel_get_bytes(channel);
    return sf_steal_fd(&fd);
}
