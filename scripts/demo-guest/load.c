/*
 * The demo guest's load: fills memory, then rewrites a part of it for ever, page by page, and
 * checks on the way that each page still holds what it wrote there the last time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE_SIZE 4096UL
#define WORDS (PAGE_SIZE / sizeof(uint64_t))
#define PAGES_PER_MIB (1024 * 1024 / PAGE_SIZE)
#define REPORT_PAGES 4096

/* The length stays the same: a reader of the file never sees half of an old line. */
static void report(int fd, uint64_t pages, const char *verdict)
{
    char line[64];
    int length = snprintf(line, sizeof(line), "%14llu pages rewritten, %-8.8s\n",
                          (unsigned long long)pages, verdict);

    if (pwrite(fd, line, (size_t)length, 0) != length) {
        perror("load: progress");
    }
}

static void fill(volatile uint64_t *memory, uint64_t pages)
{
    for (uint64_t page = 0; page < pages; page++) {
        for (uint64_t word = 0; word < WORDS; word += 8) {
            memory[page * WORDS + word] = page ^ (word << 40);
        }
    }
}

int main(int argc, char **argv)
{
    uint64_t pages, hot, written = 0;
    volatile uint64_t *memory;
    int fd;

    if (argc != 4 || (fd = open(argv[3], O_CREAT | O_WRONLY, 0600)) < 0) {
        return 1;
    }
    pages = strtoull(argv[1], NULL, 10) * PAGES_PER_MIB;
    hot = strtoull(argv[2], NULL, 10) * PAGES_PER_MIB;
    memory =
        mmap(NULL, pages * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || hot == 0 || hot > pages) {
        return 1;
    }
    fill(memory, pages);
    for (uint64_t round = 0;; round++) {
        for (uint64_t page = 0; page < hot; page++) {
            volatile uint64_t *words = memory + page * WORDS;

            if (words[1] != (round ? page + round - 1 : 0) || words[8] != (page ^ (8ULL << 40))) {
                report(fd, written, "WRONG");
                return 1;
            }
            words[1] = page + round;
            if (++written % REPORT_PAGES == 0) {
                report(fd, written, "all good");
            }
        }
    }
}
