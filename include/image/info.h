/*
 * What an image tells of itself.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <json-glib/json-glib.h>

#include "image/progress.h"

/*
 * Walks @reader and collects everything (stillframe(1), REPORT, Info) into a new object. @path is
 * what the image is called.
 */
JsonObject *image_info(ImageReader *reader, const char *path, const ImageProgress *progress,
                       GError **errp);
