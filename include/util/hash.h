/*
 * The hashes that images carry: XXH3, of the library xxHash. Not cryptographic: they tell damage
 * and change, not forgery.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <glib.h>
#include <string.h>

#define HASH128_BYTES 16

/* XXH3-128 in its canonical byte order, as "xxh128sum" prints it. No alignment. */
typedef struct Hash128 {
    guint8 bytes[HASH128_BYTES];
} Hash128;

/* The hash of @length bytes. Any thread; allocates nothing; some 20 GB/s on data in the cache. */
void hash128(const void *data, gsize length, Hash128 *hash);
/* XXH3-64 of @length bytes, as a number. */
guint64 hash64(const void *data, gsize length);

static inline gboolean hash128_equal(const void *a, const void *b)
{
    return !memcmp(a, b, HASH128_BYTES);
}

/* The same hash of data that comes in pieces. One thread at a time. */
typedef struct HashStream HashStream;

HashStream *hash_stream_new(void);
void hash_stream_free(HashStream *stream);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HashStream, hash_stream_free)
void hash_stream_add(HashStream *stream, const void *data, gsize length);
/* Of all that was added; more may follow. */
void hash_stream_get(HashStream *stream, Hash128 *hash);
