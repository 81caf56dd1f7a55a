/* The words of a script, and results as text. */
#pragma once

#include <stddef.h>

struct word { char *text; size_t size; };

/* Decodes the words of a text: `%XX` is a byte, `""` nothing, and `*N` N times `x`. */
size_t split(const char *text, size_t size, struct word *words, size_t max);
void free_words(struct word *words, size_t count);

/* Writes bytes beyond printable ASCII as `%xx`; returns the end. */
char *escape(char *out, const char *text, size_t size);
