/* Replaces a word wherever it stands in a response of text.
 *
 * Configuration: the word itself; `secret` without one.
 */

#define _GNU_SOURCE /* memmem */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "proxy_wasm.h"

static const char DEFAULT_WORD[] = "secret";
static const char REPLACEMENT[] = "[redacted]";
enum { REPLACEMENT_SIZE = sizeof REPLACEMENT - 1 };

/* A root context has a word; a stream uses the word of its root. */
struct context {
    uint32_t id;
    struct context *root;
    char *word;
    size_t word_size;
    bool is_text;
    struct context *next;
};

static struct context *contexts;

/* A body must never pass unredacted: where something fails, the host's failure policy decides. */
static void require(bool condition, const char *what) {
    if (condition)
        return;
    proxy_log(LOG_CRITICAL, what, strlen(what));
    __builtin_trap();
}

/* The link that leads to the context, so that the context can be taken out. */
static struct context **find(uint32_t id) {
    struct context **link = &contexts;
    while (*link && (*link)->id != id)
        link = &(*link)->next;
    require(*link != NULL, "unknown context");
    return link;
}

void EXPORT(proxy_on_context_create)(uint32_t id, uint32_t parent) {
    struct context *context = calloc(1, sizeof *context);
    require(context != NULL, "out of memory");
    context->id = id;
    context->root = parent ? *find(parent) : context;
    context->next = contexts;
    contexts = context;
}

void EXPORT(proxy_on_delete)(uint32_t id) {
    struct context **link = find(id), *context = *link;
    *link = context->next;
    free(context->word);
    free(context);
}

uint32_t EXPORT(proxy_on_configure)(uint32_t id, size_t size) {
    struct context *context = *find(id);
    free(context->word);
    context->word = NULL;
    context->word_size = 0;
    if (size > 0)
        require(proxy_get_buffer_bytes(PLUGIN_CONFIGURATION, 0, size,
                                       &context->word, &context->word_size) == OK,
                "the configuration was not read");
    if (context->word_size == 0) {
        context->word = strdup(DEFAULT_WORD);
        require(context->word != NULL, "out of memory");
        context->word_size = strlen(DEFAULT_WORD);
    }
    return true;
}

/* Whether the content type is this one, with or without parameters. */
static bool is(const char *type, size_t size, const char *wanted) {
    size_t length = strlen(wanted);
    return size >= length && strncasecmp(type, wanted, length) == 0 &&
           (size == length || type[length] == ';' || type[length] == ' ');
}

uint32_t EXPORT(proxy_on_response_headers)(uint32_t id, uint32_t headers, uint32_t end) {
    static const char name[] = "content-type";
    char *type = NULL;
    size_t size = 0;
    if (proxy_get_header_map_value(RESPONSE_HEADERS, name, strlen(name), &type, &size) == OK) {
        (*find(id))->is_text = is(type, size, "text/html") || is(type, size, "text/plain") ||
                               is(type, size, "application/json");
        free(type);
    }
    return CONTINUE;
}

static size_t count(const char *text, size_t size, const char *word, size_t word_size) {
    const char *end = text + size;
    size_t found = 0;
    while ((text = memmem(text, end - text, word, word_size)) != NULL) {
        text += word_size;
        found++;
    }
    return found;
}

/* Writes the new text to `out` and returns its end. The old text, from `text` to `end`, may stand
 * in the same buffer, behind the room that all replacements need more than their words. */
static char *replace(char *out, const char *text, const char *end,
                     const char *word, size_t word_size) {
    while (text < end) {
        const char *found = memmem(text, end - text, word, word_size);
        size_t kept = (found ? found : end) - text;
        memmove(out, text, kept);
        out += kept;
        text += kept;
        if (found) {
            memcpy(out, REPLACEMENT, REPLACEMENT_SIZE);
            out += REPLACEMENT_SIZE;
            text += word_size;
        }
    }
    return out;
}

static void redact(const char *word, size_t word_size, size_t body_size) {
    char *body = NULL;
    size_t size = 0;
    require(proxy_get_buffer_bytes(RESPONSE_BODY, 0, body_size, &body, &size) == OK,
            "the body was not read");
    size_t found = count(body, size, word, word_size);
    if (found > 0) {
        /* Grown in place: a large body and its copy would not fit into a plugin's memory. */
        size_t room = word_size < REPLACEMENT_SIZE ? found * (REPLACEMENT_SIZE - word_size) : 0;
        body = realloc(body, room + size);
        require(body != NULL, "out of memory");
        memmove(body + room, body, size);
        char *end = replace(body, body + room, body + room + size, word, word_size);
        require(proxy_set_buffer_bytes(RESPONSE_BODY, 0, body_size, body, end - body) == OK,
                "the body was not replaced");
    }
    free(body);
}

uint32_t EXPORT(proxy_on_response_body)(uint32_t id, size_t size, uint32_t end_of_stream) {
    struct context *context = *find(id);
    if (!context->is_text)
        return CONTINUE;
    if (!end_of_stream)
        return PAUSE;
    if (size > 0)
        redact(context->root->word, context->root->word_size, size);
    return CONTINUE;
}
