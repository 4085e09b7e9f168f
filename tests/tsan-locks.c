/*
 * Tells ThreadSanitizer of GLib's locks; only in builds with -Db_sanitize=thread.
 *
 * GLib makes its mutexes of futexes, in a library that is not instrumented, so the sanitizer sees
 * neither who holds one nor the order that comes from it, and takes all that they guard for races.
 * These functions stand before GLib's own of the same names, which do the work.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include <glib.h>

const char *__tsan_default_suppressions(void);

/*
 * GError looks its domain up under a reader-writer lock of GLib's own, a pthread_rwlock that GLib
 * makes at the first use and publishes by a compare-and-exchange, which is not instrumented: its
 * making seems to race with its use by another thread. No data of ours is touched in there.
 */
const char *__tsan_default_suppressions(void)
{
    return "race:g_rw_lock_reader_lock\n";
}

static gpointer next_function(gpointer *known, const char *name)
{
    gpointer function = g_atomic_pointer_get(known);

    if (!function) {
        function = dlsym(RTLD_NEXT, name);
        g_atomic_pointer_set(known, function);
    }
    return function;
}

/* GLib's own function @name, as a pointer to a function of type @type. */
#define NEXT(type, name)                                                                           \
    ({                                                                                             \
        static gpointer known_;                                                                    \
        (type) next_function(&known_, name);                                                       \
    })

typedef void (*MutexFunction)(GMutex *mutex);

void g_mutex_lock(GMutex *mutex)
{
    __tsan_mutex_pre_lock(mutex, __tsan_mutex_linker_init);
    NEXT(MutexFunction, "g_mutex_lock")(mutex);
    __tsan_mutex_post_lock(mutex, __tsan_mutex_linker_init, 0);
}

void g_mutex_unlock(GMutex *mutex)
{
    __tsan_mutex_pre_unlock(mutex, 0);
    NEXT(MutexFunction, "g_mutex_unlock")(mutex);
    __tsan_mutex_post_unlock(mutex, 0);
}

void g_mutex_clear(GMutex *mutex)
{
    __tsan_mutex_destroy(mutex, __tsan_mutex_linker_init);
    NEXT(MutexFunction, "g_mutex_clear")(mutex);
}

/* Waiting lets go of the mutex and takes it again. */
void g_cond_wait(GCond *cond, GMutex *mutex)
{
    __tsan_mutex_pre_unlock(mutex, 0);
    __tsan_mutex_post_unlock(mutex, 0);
    NEXT(void (*)(GCond *, GMutex *), "g_cond_wait")(cond, mutex);
    __tsan_mutex_pre_lock(mutex, 0);
    __tsan_mutex_post_lock(mutex, 0, 0);
}

gboolean g_cond_wait_until(GCond *cond, GMutex *mutex, gint64 end_time)
{
    __tsan_mutex_pre_unlock(mutex, 0);
    __tsan_mutex_post_unlock(mutex, 0);
    gboolean signalled =
        NEXT(gboolean(*)(GCond *, GMutex *, gint64), "g_cond_wait_until")(cond, mutex, end_time);
    __tsan_mutex_pre_lock(mutex, 0);
    __tsan_mutex_post_lock(mutex, 0, 0);
    return signalled;
}
