#include "words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct word decode(const char *text, size_t size) {
    if (size == 2 && memcmp(text, "\"\"", 2) == 0)
        return (struct word){calloc(1, 1), 0};
    if (size > 1 && text[0] == '*') {
        size_t count = strtoul(text + 1, NULL, 10);
        struct word word = {malloc(count + 1), count};
        memset(word.text, 'x', count);
        word.text[count] = 0;
        return word;
    }
    struct word word = {malloc(size + 1), 0};
    for (size_t index = 0; index < size; index++) {
        char byte = text[index];
        if (byte == '%') {
            char digits[] = {text[index + 1], text[index + 2], 0};
            byte = strtoul(digits, NULL, 16);
            index += 2;
        }
        word.text[word.size++] = byte;
    }
    word.text[word.size] = 0;
    return word;
}

size_t split(const char *text, size_t size, struct word *words, size_t max) {
    const char *end = text + size;
    size_t count = 0;
    while (text < end && count < max) {
        const char *space = memchr(text, ' ', end - text);
        space = space ? space : end;
        words[count++] = decode(text, space - text);
        text = space + 1;
    }
    return count;
}

void free_words(struct word *words, size_t count) {
    while (count > 0)
        free(words[--count].text);
}

char *escape(char *out, const char *text, size_t size) {
    for (size_t index = 0; index < size; index++) {
        unsigned char byte = text[index];
        if (byte == '%' || byte < 32 || byte > 126)
            out += sprintf(out, "%%%02x", byte);
        else
            *out++ = byte;
    }
    return out;
}
