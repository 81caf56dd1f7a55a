;; What a header filter does: it reads a request header, adds one to the request, one to the response.
(module
  (import "env" "proxy_get_header_map_value"
    (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value"
    (func $add (param i32 i32 i32 i32 i32) (result i32)))

  (memory (export "memory") 2)
  (data (i32.const 16) "authorization")
  (data (i32.const 48) "x-processed-by")
  (data (i32.const 80) "wasm")
  (data (i32.const 96) "x-gateway")

  (func (export "proxy_abi_version_0_2_1"))

  ;; One value at a time is asked for: it always lies in the second page.
  (func (export "proxy_on_memory_allocate") (param i32) (result i32)
    (i32.const 65536))

  (func (export "proxy_on_context_create") (param i32 i32))

  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (drop (call $get
      (i32.const 0) (i32.const 16) (i32.const 13) (i32.const 0) (i32.const 4)))
    (drop (call $add
      (i32.const 0) (i32.const 48) (i32.const 14) (i32.const 80) (i32.const 4)))
    (i32.const 0))

  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (drop (call $add
      (i32.const 2) (i32.const 96) (i32.const 9) (i32.const 80) (i32.const 4)))
    (i32.const 0))

  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
  (func (export "proxy_on_log") (param i32))
  (func (export "proxy_on_delete") (param i32)))
