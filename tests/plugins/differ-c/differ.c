/* Does what its configuration says, and says the status of each host call.
 *
 * tests/e2e/envoy/cases.py describes the language.
 */

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "words.h"

enum { MAX_WORDS = 16, MAX_PAIRS = 1 << 16 };

static char *script;
static size_t script_size;

/* Which stream has made a call-out; the newest first. */
static struct call { uint32_t token, context; struct call *next; } *calls;

static uint32_t last_cas;

struct operation {
    const char *phase, *text;
    size_t phase_size, text_size;
    struct word words[MAX_WORDS];
    size_t count;
};

static void say(const struct operation *o, const char *result, size_t size) {
    char *line = malloc(o->phase_size + o->text_size + 3 * size + 32), *end = line;
    end += sprintf(end, "%.*s %.*s -> ", (int)o->phase_size, o->phase,
                   (int)o->text_size, o->text);
    if (size > 2000)
        end += sprintf(end, "(%zu bytes)", size);
    else
        end = escape(end, result, size);
    proxy_log(LOG_INFO, line, end - line);
    free(line);
}

static void say_status(const struct operation *o, uint32_t status) {
    char text[16];
    say(o, text, sprintf(text, "%u", status));
}

/* What a host call has given, or its status. */
static void say_value(const struct operation *o, uint32_t status, char *value, size_t size) {
    if (status != OK)
        say_status(o, status);
    else
        say(o, value, size);
    free(value);
}

static bool is(const struct operation *o, size_t index, const char *word) {
    return index < o->count && o->words[index].size == strlen(word) &&
           memcmp(o->words[index].text, word, o->words[index].size) == 0;
}

static struct word word(const struct operation *o, size_t index) {
    return index < o->count ? o->words[index] : (struct word){"", 0};
}

static uint32_t number(const struct operation *o, size_t index) {
    return index < o->count ? strtoul(o->words[index].text, NULL, 10) : 0;
}

static uint32_t map(const struct operation *o) {
    return is(o, 1, "request") ? 0 : is(o, 1, "response") ? 2 : 6;
}

static uint32_t buffer(const struct operation *o) {
    return is(o, 1, "request") ? 0 : is(o, 1, "response") ? 1 : 4;
}

/* Writes pairs as the ABI has them, of the words from `index` on; returns the size. */
static size_t write_pairs(const struct operation *o, size_t index, char *out) {
    uint32_t count = index < o->count ? o->count - index : 0;
    char *sizes = out + 4, *texts = sizes + 8 * count;
    memcpy(out, &count, 4);
    for (; index < o->count; index++) {
        const char *text = o->words[index].text, *middle = strchr(text, '=');
        uint32_t name_size = middle - text, value_size = o->words[index].size - name_size - 1;
        memcpy(sizes, &name_size, 4);
        memcpy(sizes + 4, &value_size, 4);
        sizes += 8;
        memcpy(texts, text, name_size);
        texts[name_size] = 0;
        texts += name_size + 1;
        memcpy(texts, middle + 1, value_size);
        texts[value_size] = 0;
        texts += value_size + 1;
    }
    return texts - out;
}

static void say_pairs(const struct operation *o, uint32_t status, char *pairs, size_t size) {
    uint32_t count = 0;
    if (status == OK && size >= 4)
        memcpy(&count, pairs, 4);
    char *line = malloc(size + 1), *end = line, *text = pairs + 4 + 8 * count;
    for (uint32_t index = 0; index < count; index++) {
        uint32_t sizes[2];
        memcpy(sizes, pairs + 4 + 8 * index, 8);
        if (index)
            *end++ = ' ';
        memcpy(end, text, sizes[0]);
        end += sizes[0];
        *end++ = '=';
        memcpy(end, text + sizes[0] + 1, sizes[1]);
        end += sizes[1];
        text += sizes[0] + sizes[1] + 2;
    }
    if (status != OK)
        say_status(o, status);
    else
        say(o, line, end - line);
    free(line);
    free(pairs);
}

static uint32_t http_call(const struct operation *o, uint32_t context) {
    static const char names[] = ":method=POST :path=";
    static const char authority[] = " :authority=upstream";
    struct operation head = {.count = 0};
    char line[512];
    struct word upstream = word(o, 1), path = word(o, 2), body = word(o, 3);
    size_t size = sprintf(line, "%s%.*s%s", names, (int)path.size, path.text, authority);
    head.count = split(line, size, head.words, MAX_WORDS);
    char pairs[1024];
    struct call *call = malloc(sizeof *call);
    uint32_t status = proxy_http_call(upstream.text, upstream.size, pairs,
                                      write_pairs(&head, 0, pairs), body.text, body.size, NULL, 0,
                                      o->count > 4 ? number(o, 4) : 5000, &call->token);
    free_words(head.words, head.count);
    call->context = context;
    call->next = calls;
    calls = call;
    return status;
}

static void trap_if_asked(const struct operation *o) {
    char *value = NULL;
    size_t size = 0;
    struct word name = word(o, 1);
    if (o->count == 1 || proxy_get_header_map_value(0, name.text, name.size, &value, &size) == OK)
        __builtin_trap();
}

/* Returns false if there is no such operation. */
static bool change(const struct operation *o, uint32_t context) {
    struct word a = word(o, 2), b = word(o, 3);
    uint32_t status;
    char *pairs = malloc(MAX_PAIRS);
    if (is(o, 0, "add")) {
        status = proxy_add_header_map_value(map(o), a.text, a.size, b.text, b.size);
    } else if (is(o, 0, "replace")) {
        status = proxy_replace_header_map_value(map(o), a.text, a.size, b.text, b.size);
    } else if (is(o, 0, "remove")) {
        status = proxy_remove_header_map_value(map(o), a.text, a.size);
    } else if (is(o, 0, "setpairs")) {
        status = proxy_set_header_map_pairs(map(o), pairs, write_pairs(o, 2, pairs));
    } else if (is(o, 0, "write")) {
        struct word data = word(o, 4);
        status = proxy_set_buffer_bytes(buffer(o), number(o, 2), number(o, 3), data.text, data.size);
    } else if (is(o, 0, "reply")) {
        status = proxy_send_local_response(number(o, 1), "", 0, a.text, a.size, pairs,
                                           write_pairs(o, 3, pairs), -1);
    } else if (is(o, 0, "resume")) {
        status = proxy_continue_stream(is(o, 1, "response"));
    } else if (is(o, 0, "httpcall")) {
        status = http_call(o, context);
    } else if (is(o, 0, "setproperty")) {
        struct word path = word(o, 1);
        status = proxy_set_property(path.text, path.size, a.text, a.size);
    } else if (is(o, 0, "sharedset")) {
        struct word key = word(o, 1);
        uint32_t cas = is(o, 3, "last") ? last_cas : is(o, 3, "stale") ? last_cas + 1000 : 0;
        status = proxy_set_shared_data(key.text, key.size, a.text, a.size, cas);
    } else {
        free(pairs);
        return false;
    }
    free(pairs);
    say_status(o, status);
    return true;
}

static void execute(const struct operation *o, uint32_t context) {
    char *value = NULL;
    size_t size = 0;
    struct word a = word(o, 1), b = word(o, 2);
    if (change(o, context))
        return;
    if (is(o, 0, "get")) {
        uint32_t status = proxy_get_header_map_value(map(o), b.text, b.size, &value, &size);
        say_value(o, status, value, size);
    } else if (is(o, 0, "pairs")) {
        uint32_t status = proxy_get_header_map_pairs(map(o), &value, &size);
        say_pairs(o, status, value, size);
    } else if (is(o, 0, "read")) {
        uint32_t start = number(o, 2);
        uint32_t status = proxy_get_buffer_bytes(buffer(o), start, number(o, 3), &value, &size);
        say_value(o, status, value, size);
    } else if (is(o, 0, "property")) {
        for (size_t index = 0; index < a.size; index++)
            if (a.text[index] == '.')
                a.text[index] = 0;
        uint32_t status = proxy_get_property(a.text, a.size, &value, &size);
        say_value(o, status, value, size);
    } else if (is(o, 0, "sharedget")) {
        uint32_t cas = 0;
        uint32_t status = proxy_get_shared_data(a.text, a.size, &value, &size, &cas);
        last_cas = cas;
        say_value(o, status, value, size);
    } else if (is(o, 0, "log")) {
        proxy_log(LOG_INFO, b.text, b.size);
    } else if (is(o, 0, "trap")) {
        trap_if_asked(o);
    }
}

/* Runs the operations of a phase; returns the action. */
static uint32_t run(uint32_t context, const char *phase, const char *arguments) {
    uint32_t action = CONTINUE;
    const char *line = script, *end = script + script_size;
    while (line < end) {
        const char *line_end = memchr(line, '\n', end - line);
        line_end = line_end ? line_end : end;
        const char *colon = memchr(line, ':', line_end - line);
        struct operation o = {.phase = line, .phase_size = colon - line};
        const char *text = colon + 2;
        bool wanted = o.phase_size == strlen(phase) && memcmp(line, phase, o.phase_size) == 0;
        while (wanted && text < line_end) {
            const char *text_end = text;
            while (text_end < line_end && memcmp(text_end, "; ", 2) != 0)
                text_end++;
            o.text = text;
            o.text_size = text_end - text;
            o.count = split(text, o.text_size, o.words, MAX_WORDS);
            if (is(&o, 0, "pause"))
                action = PAUSE;
            else if (is(&o, 0, "action"))
                action = number(&o, 1);
            else if (is(&o, 0, "arguments"))
                say(&o, arguments, strlen(arguments));
            else
                execute(&o, context);
            free_words(o.words, o.count);
            text = text_end + 2;
        }
        line = line_end + 1;
    }
    return action;
}

static uint32_t run_headers(uint32_t id, const char *phase, uint32_t count, uint32_t end) {
    char arguments[32];
    sprintf(arguments, "%u %s", count, end ? "true" : "false");
    return run(id, phase, arguments);
}

static uint32_t run_body(uint32_t id, const char *whole, const char *part, size_t size,
                         uint32_t end) {
    uint32_t action = run_headers(id, whole, size, end);
    return run_headers(id, part, size, end) | action;
}

uint32_t EXPORT(proxy_on_configure)(uint32_t id, size_t size) {
    if (proxy_get_buffer_bytes(PLUGIN_CONFIGURATION, 0, size, &script, &script_size) != OK)
        return false;
    run(id, "configure", "");
    return true;
}

uint32_t EXPORT(proxy_on_request_headers)(uint32_t id, uint32_t count, uint32_t end) {
    return run_headers(id, "request_headers", count, end);
}

uint32_t EXPORT(proxy_on_request_body)(uint32_t id, size_t size, uint32_t end) {
    return run_body(id, "request_body", end ? "request_end" : "request_more", size, end);
}

uint32_t EXPORT(proxy_on_response_headers)(uint32_t id, uint32_t count, uint32_t end) {
    return run_headers(id, "response_headers", count, end);
}

uint32_t EXPORT(proxy_on_response_body)(uint32_t id, size_t size, uint32_t end) {
    return run_body(id, "response_body", end ? "response_end" : "response_more", size, end);
}

void EXPORT(proxy_on_http_call_response)(uint32_t root, uint32_t token, uint32_t headers,
                                         size_t body, uint32_t trailers) {
    char arguments[64];
    sprintf(arguments, "%u %zu %u", headers, body, trailers);
    struct call *call = calls;
    while (call && call->token != token)
        call = call->next;
    if (call && proxy_set_effective_context(call->context) == OK)
        run(call->context, "call", arguments);
}

void EXPORT(proxy_on_log)(uint32_t id) { run(id, "log", ""); }
