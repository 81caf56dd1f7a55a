/* The part of the Proxy-Wasm ABI 0.2.1 that the plugins in C use. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define IMPORT(name) __attribute__((import_module("env"), import_name(#name))) name
#define EXPORT(name) __attribute__((export_name(#name))) name

enum { OK = 0 };                                      /* status */
enum { CONTINUE = 0, PAUSE = 1 };                     /* action */
enum { LOG_CRITICAL = 5 };                            /* log level */
enum { RESPONSE_HEADERS = 2 };                        /* header map */
enum { RESPONSE_BODY = 1, PLUGIN_CONFIGURATION = 7 }; /* buffer */

uint32_t IMPORT(proxy_log)(uint32_t level, const char *message, size_t size);

/* What the host returns through `data` was allocated by the plugin's `malloc`: free it. */
uint32_t IMPORT(proxy_get_buffer_bytes)(uint32_t buffer, size_t start, size_t max_size,
                                        char **data, size_t *size);
uint32_t IMPORT(proxy_set_buffer_bytes)(uint32_t buffer, size_t start, size_t max_size,
                                        const char *data, size_t size);
uint32_t IMPORT(proxy_get_header_map_value)(uint32_t map, const char *name, size_t name_size,
                                            char **value, size_t *size);
uint32_t IMPORT(proxy_replace_header_map_value)(uint32_t map, const char *name, size_t name_size,
                                                const char *value, size_t size);

void EXPORT(proxy_abi_version_0_2_1)(void) {}
