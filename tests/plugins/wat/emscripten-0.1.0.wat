;; Imports and exports of a plugin that emscripten built in 2020 from the C++ SDK of ABI 0.1.0: the
;; older name of WASI, a memory of 16 MiB that can't grow, constructors in `_start`, and the
;; callbacks for metadata that are no part of the specification. The calls that continue a stream
;; have no result, as in the specification; what it does with configuration, headers and routes
;; adds its calls to those of the example that was looked at.
(module
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_property" (func $get_property (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_configuration" (func $configuration (param i32 i32) (result i32)))
  (import "env" "proxy_replace_header_map_value"
    (func $replace (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_continue_request" (func $continue_request))
  (import "env" "proxy_continue_response" (func $continue_response))
  (import "env" "proxy_clear_route_cache" (func $clear_route_cache))
  (import "wasi_unstable" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_unstable" "proc_exit" (func $proc_exit (param i32)))
  (import "wasi_unstable" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_unstable" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_unstable" "fd_seek" (func $fd_seek (param i32 i64 i32 i32) (result i32)))
  (import "wasi_unstable" "fd_close" (func $fd_close (param i32) (result i32)))
  (import "wasi_unstable" "environ_sizes_get"
    (func $environ_sizes_get (param i32 i32) (result i32)))
  (import "wasi_unstable" "environ_get" (func $environ_get (param i32 i32) (result i32)))

  (memory (export "memory") 256 256)
  (data (i32.const 64) "x-config")
  (data (i32.const 80) "x-root-id")
  (data (i32.const 96) ":path")
  (data (i32.const 112) "/rewritten")
  ;; The C++ SDK ends each part of a path with a NUL, the last one too.
  (data (i32.const 128) "plugin_root_id\00")
  (data (i32.const 160) "constructed\n")

  (global (export "__data_end") i32 (i32.const 1024))
  (global $heap (mut i32) (i32.const 0))

  (func $check (param $ok i32) (if (i32.eqz (local.get $ok)) (then unreachable)))

  (func (export "_start")
    (call $check (i32.eqz (call $args_sizes_get (i32.const 0) (i32.const 4))))
    (if (i32.load (i32.const 0)) (then (call $proc_exit (i32.const 71))))
    (global.set $heap (i32.const 1024))
    ;; A constructor that prints, which libc does on descriptor 1 and with a second, empty piece.
    (i32.store (i32.const 0) (i32.const 160))
    (i32.store (i32.const 4) (i32.const 12))
    (i64.store (i32.const 8) (i64.const 0))
    (call $check (i32.eqz (call $fd_write
      (i32.const 1) (i32.const 0) (i32.const 2) (i32.const 24)))))
  (func (export "malloc") (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $heap))
    (call $check (local.get $at))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (local.get $at))

  (func (export "proxy_on_configure") (param $root i32) (param $size i32) (result i32)
    (i32.eqz (call $configuration (i32.const 40) (i32.const 44))))
  ;; It is told to go on before it has said that it stops.
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (call $check (i32.eqz (call $replace
      (i32.const 0) (i32.const 96) (i32.const 5) (i32.const 112) (i32.const 10))))
    (call $clear_route_cache)
    (call $continue_request)
    (i32.const 1))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (call $check (i32.eqz (call $get_property
      (i32.const 128) (i32.const 15) (i32.const 48) (i32.const 52))))
    (call $check (i32.eqz (call $replace (i32.const 2) (i32.const 64) (i32.const 8)
      (i32.load (i32.const 40)) (i32.load (i32.const 44)))))
    (call $check (i32.eqz (call $replace (i32.const 2) (i32.const 80) (i32.const 9)
      (i32.load (i32.const 48)) (i32.load (i32.const 52)))))
    (call $continue_response)
    (i32.const 1))

  ;; What the SDK and the toolchain export besides.
  (func (export "proxy_abi_version_0_1_0"))
  (func (export "proxy_on_vm_start") (export "proxy_validate_configuration")
    (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
  (func (export "proxy_on_context_create") (export "proxy_on_queue_ready")
    (export "proxy_on_downstream_connection_close") (export "proxy_on_upstream_connection_close")
    (export "setThrew") (param i32 i32))
  (func (export "proxy_on_tick") (export "proxy_on_log") (export "proxy_on_delete")
    (export "free") (export "stackRestore") (param i32))
  (func (export "proxy_on_new_connection") (export "fflush") (export "__cxa_is_pointer_type")
    (export "stackAlloc") (export "__growWasmMemory") (param i32) (result i32) (i32.const 0))
  (func (export "proxy_on_request_metadata") (export "proxy_on_response_metadata")
    (param i32 i32) (result i32) unreachable)
  (func (export "proxy_on_request_trailers") (export "proxy_on_response_trailers")
    (param i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_downstream_data") (export "proxy_on_upstream_data")
    (export "proxy_on_request_body") (export "proxy_on_response_body") (export "__cxa_can_catch")
    (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32))
  (func (export "proxy_on_grpc_receive_initial_metadata")
    (export "proxy_on_grpc_receive_trailing_metadata") (export "proxy_on_grpc_receive")
    (export "proxy_on_grpc_close") (export "proxy_on_foreign_function") (param i32 i32 i32))
  (func (export "__errno_location") (export "_ZSt18uncaught_exceptionv") (export "stackSave")
    (result i32) (i32.const 0)))
