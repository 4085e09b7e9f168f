/*
 * The bare machine: ports, the serial line, the keyboard, an end. Used by all parts of the guest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void outw(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void outl(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint16_t inw(uint16_t port)
{
    uint16_t value;

    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint32_t inl(uint16_t port)
{
    uint32_t value;

    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline void cpu_pause(void)
{
    __asm__ volatile("pause");
}

/* The compiler must not move accesses to memory over it; an x86 does not reorder stores. */
static inline void compiler_barrier(void)
{
    __asm__ volatile("" : : : "memory");
}

/* Stores @value and waits until all other vCPUs see it: what is read behind it is newer. */
static inline void store_and_fence(volatile uint64_t *at, uint64_t value)
{
    __asm__ volatile("xchgq %0, %1" : "+r"(value), "+m"(*at) : : "memory");
}

/* Whether all of @count words are @value. One instruction: KVM may have to emulate each. */
static inline bool words_are(const volatile uint64_t *at, uint64_t count, uint64_t value)
{
    bool same;

    __asm__ volatile("cmpq %%rcx, %%rcx; repe scasq"
                     : "=@cce"(same), "+D"(at), "+c"(count)
                     : "a"(value)
                     : "memory");
    return same;
}

/* Makes all of @count words @value. */
static inline void fill_words(volatile uint64_t *at, uint64_t count, uint64_t value)
{
    __asm__ volatile("rep stosq" : "+D"(at), "+c"(count) : "a"(value) : "memory");
}

void put_char(char c);
void put_text(const char *text);
void put_number(uint64_t number);

__attribute__((noreturn)) void halt(void);
/* "X" and @reason on the serial line, and an end. */
__attribute__((noreturn)) void die(const char *reason);

/* Whether a key was pressed since it was asked last. */
bool key_was_pressed(void);

void *memset(void *to, int byte, size_t count);
