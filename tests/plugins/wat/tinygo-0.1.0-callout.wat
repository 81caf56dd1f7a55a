;; Imports, exports and behaviour of `http_auth_random`, an example of proxy-wasm-go-sdk, as TinyGo
;; built it in 2020: ABI 0.1.0, the older name of WASI, header callbacks with two parameters, one
;; allocator, and `proxy_continue_request` with a result. It pauses each request, asks an upstream,
;; and lets the hash of the answer decide.
(module
  (import "wasi_unstable" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (import "env" "proxy_set_effective_context" (func $switch (param i32) (result i32)))
  (import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
  (import "env" "proxy_http_call"
    (func $http_call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_buffer_bytes"
    (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_continue_request" (func $continue (result i32)))
  (import "env" "proxy_send_local_response"
    (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))

  (memory (export "memory") 16)
  (data (i32.const 16) "httpbin")
  (data (i32.const 32) "access granted")
  (data (i32.const 48) "access forbidden")
  (data (i32.const 64) "finished")
  (data (i32.const 80)
    "\01\00\00\00" "\0a\00\00\00" "\0f\00\00\00" "powered-by\00" "proxy-wasm-go!!\00")

  (global (export "runtime.stackChainStart") (mut i32) (i32.const 0))
  (global (export "runtime.trackedGlobalsLength") i32 (i32.const 0))
  (global (export "runtime.trackedGlobalsBitmap.182") i32 (i32.const 0))
  (global (export "runtime.trackedGlobalsStart") i32 (i32.const 0))
  (global (export "__dso_handle") i32 (i32.const 1024))
  (global (export "__data_end") i32 (i32.const 1024))
  (global (export "__global_base") i32 (i32.const 16))
  (global (export "__heap_base") i32 (i32.const 1024))
  (global $heap (mut i32) (i32.const 0))
  (global $heap_end (mut i32) (i32.const 0))
  (global $paused (mut i32) (i32.const 0))

  (func $check (param $ok i32) (if (i32.eqz (local.get $ok)) (then unreachable)))

  ;; The Go runtime: there is no memory before it has run.
  (func (export "_start")
    (global.set $heap (i32.const 1024))
    (global.set $heap_end (i32.mul (memory.size) (i32.const 65536))))
  (func (export "malloc") (param $size i32) (result i32)
    (local $at i32)
    (call $check (global.get $heap))
    (local.set $at (global.get $heap))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (call $check (i32.lt_u (global.get $heap) (global.get $heap_end)))
    (local.get $at))

  ;; What the call's token is goes to address 8.
  (func (export "proxy_on_request_headers") (param $context i32) (param $count i32) (result i32)
    (call $check (i32.eqz (call $pairs (i32.const 0) (i32.const 0) (i32.const 4))))
    (call $check (i32.eqz (call $http_call
      (i32.const 16) (i32.const 7) (i32.load (i32.const 0)) (i32.load (i32.const 4))
      (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 50000) (i32.const 8))))
    (global.set $paused (local.get $context))
    (i32.const 1))
  (func (export "proxy_on_http_call_response")
    (param $root i32) (param $token i32) (param $headers i32) (param $size i32) (param i32)
    (call $check (i32.eq (local.get $token) (i32.load (i32.const 8))))
    (call $check (i32.ne (local.get $root) (global.get $paused)))
    (call $check (i32.eqz (call $switch (global.get $paused))))
    (call $check (i32.eqz (call $get_buffer
      (i32.const 4) (i32.const 0) (local.get $size) (i32.const 0) (i32.const 4))))
    (if (i32.rem_u (call $fnv32a (i32.load (i32.const 0)) (i32.load (i32.const 4))) (i32.const 2))
      (then
        (drop (call $log (i32.const 2) (i32.const 48) (i32.const 16)))
        (call $check (i32.eqz (call $reply
          (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 48) (i32.const 16)
          (i32.const 80) (i32.const 39) (i32.const -1)))))
      (else
        (drop (call $log (i32.const 2) (i32.const 32) (i32.const 14)))
        (call $check (i32.eqz (call $continue))))))
  (func $fnv32a (param $at i32) (param $size i32) (result i32)
    (local $hash i32)
    (local.set $hash (i32.const 2166136261))
    (block $done (loop $next
      (br_if $done (i32.eqz (local.get $size)))
      (local.set $hash (i32.mul (i32.const 16777619)
        (i32.xor (local.get $hash) (i32.load8_u (local.get $at)))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (local.set $size (i32.sub (local.get $size) (i32.const 1)))
      (br $next)))
    (local.get $hash))
  (func (export "proxy_on_log") (param i32)
    (drop (call $log (i32.const 2) (i32.const 64) (i32.const 8))))

  ;; What the SDK exports besides.
  (func (export "proxy_abi_version_0_1_0") (export "__wasm_call_ctors") (export "resume"))
  (func (export "proxy_on_vm_start") (export "proxy_on_configure") (param i32 i32) (result i32)
    (i32.const 1))
  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
  (func (export "proxy_on_context_create") (export "proxy_on_queue_ready")
    (export "on_downstream_connection_close") (export "proxy_on_upstream_connection_close")
    (param i32 i32))
  (func (export "proxy_on_tick") (export "proxy_on_delete") (param i32))
  (func (export "proxy_on_new_connection") (param i32) (result i32) (i32.const 0))
  (func (export "proxy_on_response_headers") (export "proxy_on_request_trailers")
    (export "proxy_on_response_trailers") (param i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_downstream_data") (export "proxy_on_upstream_data")
    (export "proxy_on_request_body") (export "proxy_on_response_body")
    (param i32 i32 i32) (result i32) (i32.const 0)))
