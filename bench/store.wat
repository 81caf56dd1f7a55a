;; A filter that can't do without what is shared: it reads it in each request, and tells the application.
(module
  (import "env" "proxy_get_shared_data"
    (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value"
    (func $add (param i32 i32 i32 i32 i32) (result i32)))

  (memory (export "memory") 2)
  (data (i32.const 16) "limit")
  (data (i32.const 48) "x-limit")

  (func (export "proxy_abi_version_0_2_1"))

  (func (export "proxy_on_memory_allocate") (param i32) (result i32)
    (i32.const 65536))

  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (drop (call $get
      (i32.const 16) (i32.const 5) (i32.const 0) (i32.const 4) (i32.const 8)))
    (drop (call $add
      (i32.const 0) (i32.const 48) (i32.const 7) (i32.load (i32.const 0)) (i32.load (i32.const 4))))
    (i32.const 0)))
