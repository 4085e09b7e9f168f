/*
 * The head of an image as a plain value: made by whoever knows the machine, read by every writer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/image-writer.h"

#define DEFAULT_PAGE_BITS 12

static void image_block_free(gpointer data)
{
    ImageBlock *block = data;

    g_free(block->name);
    g_free(block);
}

ImageHead *image_head_new(void)
{
    ImageHead *head = g_new0(ImageHead, 1);

    head->target_page_bits = DEFAULT_PAGE_BITS;
    head->blocks = g_ptr_array_new_with_free_func(image_block_free);
    return head;
}

void image_head_free(ImageHead *head)
{
    if (head) {
        g_free(head->machine_type);
        g_free(head->description);
        g_ptr_array_unref(head->blocks);
        g_free(head);
    }
}

void image_head_add_block(ImageHead *head, const char *name, guint64 used_length)
{
    ImageBlock *block = g_new0(ImageBlock, 1);

    block->name = g_strdup(name);
    block->used_length = used_length;
    g_ptr_array_add(head->blocks, block);
}
