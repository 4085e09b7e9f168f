/*
 * XXH3 by way of libxxhash; where its x86 dispatcher is built in, with the widest vectors that the
 * processor has.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/hash.h"

#include <xxhash.h>
#ifdef HAVE_XXH_DISPATCH
#include <xxh_x86dispatch.h>
#endif

static void store(XXH128_hash_t value, Hash128 *hash)
{
    XXH128_canonical_t canonical;

    XXH128_canonicalFromHash(&canonical, value);
    G_STATIC_ASSERT(sizeof(canonical) == sizeof(*hash));
    memcpy(hash, &canonical, sizeof(*hash));
}

void hash128(const void *data, gsize length, Hash128 *hash)
{
    store(XXH3_128bits(data, length), hash);
}

guint64 hash64(const void *data, gsize length)
{
    return XXH3_64bits(data, length);
}

struct HashStream {
    XXH3_state_t *state;
};

HashStream *hash_stream_new(void)
{
    HashStream *stream = g_new(HashStream, 1);

    /* Its allocator: the state wants 64-byte alignment. It fails only without memory. */
    stream->state = XXH3_createState();
    g_assert(stream->state);
    XXH3_128bits_reset(stream->state);
    return stream;
}

void hash_stream_free(HashStream *stream)
{
    if (stream) {
        XXH3_freeState(stream->state);
        g_free(stream);
    }
}

void hash_stream_add(HashStream *stream, const void *data, gsize length)
{
    XXH3_128bits_update(stream->state, data, length);
}

void hash_stream_get(HashStream *stream, Hash128 *hash)
{
    store(XXH3_128bits_digest(stream->state), hash);
}
