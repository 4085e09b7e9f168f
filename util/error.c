/*
 * The error domain.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/error.h"

G_DEFINE_QUARK(stillframe_error, sf_error)

gboolean sf_error_set_errno(GError **errp, SfError code, int err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *what = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error(errp, SF_ERROR, (gint)code, "%s: %s", what, g_strerror(err));
    return FALSE;
}
