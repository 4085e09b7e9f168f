/*
 * The bare machine: serial line, keyboard, an end.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "machine.h"

#define SERIAL_PORT 0x3f8
#define SERIAL_STATUS (SERIAL_PORT + 5)
#define SERIAL_CAN_SEND 0x20

#define KEYBOARD_DATA 0x60
#define KEYBOARD_STATUS 0x64
#define KEYBOARD_HAS_DATA 0x01
#define KEYBOARD_RELEASED 0x80

/* A compiler may call it although there is no C library. */
void *memset(void *to, int byte, size_t count)
{
    void *at = to;

    __asm__ volatile("rep stosb" : "+D"(at), "+c"(count) : "a"(byte) : "memory");
    return to;
}

void put_char(char c)
{
    while (!(inb(SERIAL_STATUS) & SERIAL_CAN_SEND)) {
    }
    outb(SERIAL_PORT, (uint8_t)c);
}

void put_text(const char *text)
{
    while (*text) {
        put_char(*text++);
    }
}

void put_number(uint64_t number)
{
    char digits[20];
    int count = 0;

    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    while (count) {
        put_char(digits[--count]);
    }
}

__attribute__((noreturn)) void halt(void)
{
    for (;;) {
        __asm__ volatile("cli; hlt");
    }
}

__attribute__((noreturn)) void die(const char *reason)
{
    put_text("\nX ");
    put_text(reason);
    put_char('\n');
    halt();
}

bool key_was_pressed(void)
{
    bool pressed = false;

    while (inb(KEYBOARD_STATUS) & KEYBOARD_HAS_DATA) {
        pressed |= !(inb(KEYBOARD_DATA) & KEYBOARD_RELEASED);
    }
    return pressed;
}
