/*
 * The guest's screen, by screendump.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "screen.h"

#include <fcntl.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "util/autofd.h"

/* Each way; more than any screen has, and bytes of a picture still fit an int. */
#define SIDE_MAX 16384U

static gboolean screendump(QmpClient *qmp, const char *filename)
{
    JsonObject *arguments = json_object_new();

    json_object_set_string_member(arguments, "filename", filename);
    g_autoptr(JsonNode) answer = qmp_client_execute(qmp, "screendump", arguments, NULL);
    return answer != NULL;
}

/* By a descriptor that QEMU is handed; it is taken back. */
static gboolean dump_by_fdset(QmpClient *qmp, const char *path)
{
    sf_autofd writable = open(path, O_WRONLY | O_CLOEXEC);
    gint64 fdset = -1;

    if (writable < 0 || !qmp_client_can_send_fd(qmp) ||
        !qmp_client_add_fd(qmp, writable, &fdset, NULL, NULL)) {
        return FALSE;
    }
    g_autofree char *filename = g_strdup_printf("/dev/fdset/%" G_GINT64_FORMAT, fdset);
    gboolean good = screendump(qmp, filename);
    qmp_client_remove_fdset(qmp, fdset, NULL);
    return good;
}

int screen_capture(QmpClient *qmp, gboolean running)
{
    sf_autofd memory = memfd_create("stillframe-screen", MFD_CLOEXEC);
    g_autofree char *path = g_strdup_printf("/proc/%d/fd/%d", (int)getpid(), memory);

    if (memory < 0) {
        return -1;
    }
    /* QEMU forgets a removed set's descriptors only while its VM runs. */
    gboolean good = running ? dump_by_fdset(qmp, path) : screendump(qmp, path);
    return good ? sf_steal_fd(&memory) : -1;
}

/* A number between 1 and @max behind white space; 0 where there is none. */
static guint take_number(const guint8 *ppm, gsize size, gsize *at, guint max)
{
    guint value = 0;

    while (*at < size && g_ascii_isspace(ppm[*at])) {
        (*at)++;
    }
    while (*at < size && g_ascii_isdigit(ppm[*at]) && value <= max) {
        value = value * 10 + (guint)(ppm[(*at)++] - '0');
    }
    return value <= max ? value : 0;
}

guint8 *screen_ppm_to_png(const guint8 *ppm, gsize size, gsize *length)
{
    gsize at = 2;

    if (size < 2 || memcmp(ppm, "P6", 2)) {
        return NULL;
    }
    guint width = take_number(ppm, size, &at, SIDE_MAX);
    guint height = take_number(ppm, size, &at, SIDE_MAX);
    guint depth = take_number(ppm, size, &at, 255);
    at++; /* one white space before the colours */
    if (!width || !height || depth != 255 || at > size || size - at < (gsize)width * height * 3) {
        return NULL;
    }
    png_image image = { .version = PNG_IMAGE_VERSION, .format = PNG_FORMAT_RGB };
    image.width = width;
    image.height = height;
    image.flags = PNG_IMAGE_FLAG_FAST;
    png_alloc_size_t room = PNG_IMAGE_PNG_SIZE_MAX(image);
    g_autofree guint8 *png = g_try_malloc(room);
    if (!png || !png_image_write_to_memory(&image, png, &room, FALSE, ppm + at, 0, NULL)) {
        return NULL;
    }
    *length = room;
    return g_steal_pointer(&png);
}

guint8 *screen_to_png(int fd, gsize *length)
{
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size <= 0) {
        return NULL;
    }
    void *map = mmap(NULL, (gsize)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) {
        return NULL;
    }
    guint8 *png = screen_ppm_to_png(map, (gsize)st.st_size, length);
    munmap(map, (gsize)st.st_size);
    return png;
}
