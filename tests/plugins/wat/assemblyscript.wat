;; Imports and exports of a plugin that AssemblyScript built with G-Core's SDK without
;; `--use abort=abort_proc_exit`: the runtime's `abort` is imported. The callback for trailing
;; metadata has the name of an early draft.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (import "env" "abort" (func $abort (param i32 i32 i32 i32)))
  (import "env" "proxy_set_effective_context" (func $switch (param i32) (result i32)))
  (import "env" "proxy_get_header_map_value"
    (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_replace_header_map_value"
    (func $replace (param i32 i32 i32 i32 i32) (result i32)))

  (memory (export "memory") 1)
  (data (i32.const 64) "x-index")
  (data (i32.const 80) "x-plugin")
  (data (i32.const 96) "yes")
  ;; Strings are UTF-16 behind their size in bytes.
  (data (i32.const 124) "\24\00\00\00"
    "I\00n\00d\00e\00x\00 \00o\00u\00t\00 \00o\00f\00 \00r\00a\00n\00g\00e\00")
  (data (i32.const 188) "\10\00\00\00" "i\00n\00d\00e\00x\00.\00t\00s\00")

  (global $heap (mut i32) (i32.const 0))

  (func (export "_start") (global.set $heap (i32.const 1024)))
  (func (export "malloc") (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $heap))
    (if (i32.eqz (local.get $at)) (then unreachable))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (local.get $at))

  ;; It fails where there is the header `x-index`.
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (if (i32.eqz (call $get
          (i32.const 0) (i32.const 64) (i32.const 7) (i32.const 0) (i32.const 4)))
      (then
        (call $abort (i32.const 128) (i32.const 192) (i32.const 7) (i32.const 12))
        unreachable))
    (i32.const 0))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (drop (call $replace
      (i32.const 2) (i32.const 80) (i32.const 8) (i32.const 96) (i32.const 3)))
    (i32.const 0))

  ;; What the SDK exports besides.
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_vm_start") (export "proxy_validate_configuration")
    (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
  (func (export "proxy_on_context_create") (export "proxy_on_queue_ready")
    (export "proxy_on_downstream_connection_close") (export "proxy_on_upstream_connection_close")
    (param i32 i32))
  (func (export "proxy_on_tick") (export "proxy_on_log") (export "proxy_on_delete") (param i32))
  (func (export "proxy_on_new_connection") (param i32) (result i32) (i32.const 0))
  (func (export "proxy_on_request_trailers") (export "proxy_on_response_trailers")
    (export "proxy_on_request_metadata") (export "proxy_on_response_metadata")
    (param i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_downstream_data") (export "proxy_on_upstream_data")
    (export "proxy_on_request_body") (export "proxy_on_response_body")
    (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32))
  (func (export "proxy_on_foreign_function") (export "proxy_on_grpc_receive_initial_metadata")
    (export "proxy_on_grpc_trailing_metadata") (export "proxy_on_grpc_receive")
    (export "proxy_on_grpc_close") (param i32 i32 i32)))
