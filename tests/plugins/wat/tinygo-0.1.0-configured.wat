;; Imports and exports of a plugin that TinyGo built with proxy-wasm-go-sdk 0.0.x: the marker of ABI
;; 0.1.0, but header callbacks with the third parameter of 0.2.0. The runtime asks for arguments;
;; the plugin reads its configuration and puts it into a header. For that, and to ask for a header
;; that is not there, it imports two calls more than the example does that was looked at.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get"
    (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "env" "proxy_replace_header_map_value"
    (func $replace (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (import "env" "proxy_set_effective_context" (func $switch (param i32) (result i32)))
  (import "env" "proxy_get_configuration" (func $configuration (param i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_value"
    (func $get (param i32 i32 i32 i32 i32) (result i32)))

  (memory (export "memory") 2)
  (data (i32.const 64) "x-vm")
  (data (i32.const 80) "x-config")
  (data (i32.const 96) "x-none")
  (data (i32.const 112) "hello")
  (data (i32.const 120) " from main\n")

  (global $heap (mut i32) (i32.const 0))

  (func $check (param $ok i32) (if (i32.eqz (local.get $ok)) (then unreachable)))

  ;; The runtime makes room for the arguments even where there are none, and `println` writes in
  ;; pieces.
  (func (export "_start")
    (global.set $heap (i32.const 1024))
    (call $check (i32.eqz (call $args_sizes_get (i32.const 0) (i32.const 4))))
    (call $check (i32.eqz (i32.load (i32.const 0))))
    (call $check (i32.eqz (call $args_get
      (call $alloc (i32.const 16)) (call $alloc (i32.const 16)))))
    (call $print (i32.const 112) (i32.const 5))
    (call $print (i32.const 120) (i32.const 11)))
  (func $print (param $at i32) (param $size i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $size))
    (call $check (i32.eqz (call $fd_write
      (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
    (call $check (i32.eq (local.get $size) (i32.load (i32.const 8)))))
  (func $alloc (export "malloc") (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $heap))
    (call $check (local.get $at))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (local.get $at))

  ;; The virtual machine's configuration stands at 32, the plugin's at 40.
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32)
    (i32.eqz (call $configuration (i32.const 32) (i32.const 36))))
  (func (export "proxy_on_configure") (param $root i32) (param $size i32) (result i32)
    (call $check (i32.eqz (call $configuration (i32.const 40) (i32.const 44))))
    (i32.eq (local.get $size) (i32.load (i32.const 44))))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    ;; In 0.1.0 a header that is not there is an empty one.
    (i32.store (i32.const 16) (i32.const -1))
    (call $check (i32.eqz (call $get
      (i32.const 0) (i32.const 96) (i32.const 6) (i32.const 12) (i32.const 16))))
    (call $check (i32.eqz (i32.load (i32.const 16))))
    (call $set (i32.const 0) (i32.const 64) (i32.const 4) (i32.const 32))
    (i32.const 0))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (call $set (i32.const 2) (i32.const 80) (i32.const 8) (i32.const 40))
    (i32.const 0))
  (func $set (param $map i32) (param $name i32) (param $size i32) (param $value i32)
    (call $check (i32.eqz (call $replace (local.get $map) (local.get $name) (local.get $size)
      (i32.load (local.get $value)) (i32.load offset=4 (local.get $value))))))

  ;; What the SDK exports besides.
  (func (export "proxy_abi_version_0_1_0"))
  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
  (func (export "proxy_on_context_create") (export "proxy_on_queue_ready")
    (export "proxy_on_downstream_connection_close") (export "proxy_on_upstream_connection_close")
    (param i32 i32))
  (func (export "proxy_on_log") (export "proxy_on_delete") (export "proxy_on_tick") (param i32))
  (func (export "proxy_on_new_connection") (param i32) (result i32) (i32.const 0))
  (func (export "proxy_on_request_trailers") (export "proxy_on_response_trailers")
    (param i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_downstream_data") (export "proxy_on_upstream_data")
    (export "proxy_on_request_body") (export "proxy_on_response_body")
    (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)))
