;; What Higress's Go SDK adds: a marker that no other host knows, and imports of Higress's own
;; calls. The plugin asks for its store on Redis, learns that there is none, and goes on without.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_redis_init"
    (func $redis_init (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_redis_call" (func $redis_call (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_inject_encoded_data_to_filter_chain"
    (func $inject (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_property" (func $get_property (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_replace_header_map_value"
    (func $replace (param i32 i32 i32 i32 i32) (result i32)))

  (memory (export "memory") 2)
  (data (i32.const 64) "route_name")
  (data (i32.const 80) "x-route")
  (global $heap (mut i32) (i32.const 1024))

  (func (export "_initialize"))
  (func (export "malloc") (export "proxy_on_memory_allocate") (param $size i32) (result i32)
    (global.get $heap)
    (global.set $heap (i32.add (global.get $heap) (local.get $size))))
  ;; 12 is Unimplemented.
  (func (export "proxy_on_configure") (param i32 i32) (result i32)
    (i32.eq (i32.const 12) (call $redis_init (i32.const 0) (i32.const 0) (i32.const 0)
      (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000))))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (if (i32.eqz (call $get_property
          (i32.const 64) (i32.const 10) (i32.const 0) (i32.const 4)))
      (then (drop (call $replace (i32.const 2) (i32.const 80) (i32.const 7)
        (i32.load (i32.const 0)) (i32.load (i32.const 4))))))
    (i32.const 0))
  (func (export "proxy_on_redis_call_response") (param i32 i32 i32 i32) unreachable)

  (func (export "proxy_abi_version_0_2_100"))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
  (func (export "proxy_on_log") (export "proxy_on_delete") (param i32)))
