/* More of the ABI than the example's header has. */
#pragma once

#include "proxy_wasm.h"

enum { LOG_INFO = 2 };

uint32_t IMPORT(proxy_get_header_map_pairs)(uint32_t map, char **pairs, size_t *size);
uint32_t IMPORT(proxy_set_header_map_pairs)(uint32_t map, const char *pairs, size_t size);
uint32_t IMPORT(proxy_add_header_map_value)(uint32_t map, const char *name, size_t name_size,
                                            const char *value, size_t size);
uint32_t IMPORT(proxy_remove_header_map_value)(uint32_t map, const char *name, size_t name_size);
uint32_t IMPORT(proxy_send_local_response)(uint32_t status, const char *details,
                                           size_t details_size, const char *body, size_t body_size,
                                           const char *pairs, size_t pairs_size,
                                           uint32_t grpc_status);
uint32_t IMPORT(proxy_continue_stream)(uint32_t stream);
uint32_t IMPORT(proxy_http_call)(const char *upstream, size_t upstream_size, const char *pairs,
                                 size_t pairs_size, const char *body, size_t body_size,
                                 const char *trailers, size_t trailers_size, uint32_t timeout,
                                 uint32_t *token);
uint32_t IMPORT(proxy_set_effective_context)(uint32_t context);
uint32_t IMPORT(proxy_get_property)(const char *path, size_t path_size, char **value,
                                    size_t *size);
uint32_t IMPORT(proxy_set_property)(const char *path, size_t path_size, const char *value,
                                    size_t size);
uint32_t IMPORT(proxy_get_shared_data)(const char *key, size_t key_size, char **value,
                                       size_t *size, uint32_t *cas);
uint32_t IMPORT(proxy_set_shared_data)(const char *key, size_t key_size, const char *value,
                                       size_t size, uint32_t cas);
