/* Sets the headers that keep a browser from guessing types, framing pages and telling referrers. */

#include <string.h>

#include "proxy_wasm.h"

static void set(const char *name, const char *value) {
    if (proxy_replace_header_map_value(RESPONSE_HEADERS, name, strlen(name),
                                       value, strlen(value)) != OK)
        __builtin_trap();
}

uint32_t EXPORT(proxy_on_response_headers)(uint32_t context, uint32_t headers, uint32_t end) {
    set("x-content-type-options", "nosniff");
    set("x-frame-options", "DENY");
    set("referrer-policy", "no-referrer");
    return CONTINUE;
}
