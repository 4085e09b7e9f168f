/*
 * The progress bar of work on images.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include "image/progress.h"
#include "progress.h"

/* Has @progress draw a bar; freed by the caller. */
ProgressBar *image_progress_show(ImageProgress *progress);
