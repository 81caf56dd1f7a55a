;; What C++ toolchains import from `env` beside the ABI: emscripten tells when memory has grown, its
;; libc++ compares threads, and its `abort` takes nothing.
(module
  (import "env" "emscripten_notify_memory_growth" (func $grown (param i32)))
  (import "env" "pthread_equal" (func $equal (param i32 i32) (result i32)))
  (import "env" "abort" (func $abort))
  (import "env" "proxy_replace_header_map_value"
    (func $replace (param i32 i32 i32 i32 i32) (result i32)))

  (memory (export "memory") 3)
  (data (i32.const 64) "x-plugin")
  (data (i32.const 80) "yes")

  (global $ready (mut i32) (i32.const 0))

  (func (export "_initialize")
    (drop (memory.grow (i32.const 1)))
    (call $grown (i32.const 0))
    (global.set $ready (i32.and
      (call $equal (i32.const 7) (i32.const 7))
      (i32.eqz (call $equal (i32.const 7) (i32.const 8))))))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (call $abort)
    unreachable)
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (if (i32.eqz (global.get $ready)) (then unreachable))
    (drop (call $replace
      (i32.const 2) (i32.const 64) (i32.const 8) (i32.const 80) (i32.const 3)))
    (i32.const 0))

  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_vm_start") (export "proxy_validate_configuration")
    (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_request_metadata") (export "proxy_on_response_metadata")
    (param i32 i32) (result i32) unreachable)
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
  (func (export "proxy_on_log") (export "proxy_on_delete") (param i32)))
