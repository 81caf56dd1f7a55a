;; Imports and exports of a plugin that a later TinyGo built for `wasi` without a scheduler, with
;; package `os` linked: both names of the allocator, wasi-libc's search for directories, files that
;; are not there, random bytes. `_start` ends as a command does: with `proc_exit`.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get"
    (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get"
    (func $clock_time_get (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get"
    (func $environ_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_fdstat_get"
    (func $fd_fdstat_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get"
    (func $fd_prestat_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_dir_name"
    (func $fd_prestat_dir_name (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_seek" (func $fd_seek (param i32 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_pread"
    (func $fd_pread (param i32 i32 i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (import "env" "proxy_get_buffer_bytes"
    (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_replace_header_map_value"
    (func $replace (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (import "env" "proxy_set_effective_context" (func $switch (param i32) (result i32)))

  (memory (export "memory") 2)
  (data (i32.const 64) "x-config")
  (data (i32.const 80) "x-region")
  (data (i32.const 112) "panic: ")
  (data (i32.const 120) "no such file\n")
  (data (i32.const 144) "/etc/plugin")

  (global $heap (mut i32) (i32.const 0))
  (global $code (mut i32) (i32.const 0))

  (func $check (param $ok i32) (if (i32.eqz (local.get $ok)) (then unreachable)))

  (func (export "_start")
    (local $fd i32)
    (global.set $heap (i32.const 4096))
    (call $check (i32.eqz (call $args_sizes_get (i32.const 0) (i32.const 4))))
    (call $check (i32.eqz (call $args_get (i32.const 0) (i32.const 4))))
    (call $check (i32.eqz (call $clock_time_get (i32.const 0) (i64.const 1000) (i32.const 0))))
    (call $check (i32.eqz (i64.eqz (i64.load (i32.const 0)))))
    (call $check (i32.eqz (call $clock_time_get (i32.const 1) (i64.const 1000) (i32.const 0))))
    (call $check (i32.eqz (call $random_get (i32.const 16) (i32.const 16))))
    (call $check (i32.eqz (i64.eqz (i64.load (i32.const 16)))))
    ;; The environment: where its first entry is stands at 256, the entries from 512 on.
    (call $check (i32.eqz (call $environ_sizes_get (i32.const 32) (i32.const 36))))
    (call $check (i32.eqz (call $environ_get (i32.const 256) (i32.const 512))))
    ;; wasi-libc counts directories up from 3 until one is no file; any other error ends it with 71.
    (local.set $fd (i32.const 3))
    (block $found_all (loop $next
      (br_if $found_all (i32.eq (i32.const 8)
        (call $fd_prestat_get (local.get $fd) (i32.const 0))))
      (if (call $fd_prestat_dir_name (local.get $fd) (i32.const 0) (i32.const 8))
        (then (call $proc_exit (i32.const 71))))
      (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
      (br $next)))
    ;; Is standard output a file that can be written to? It says so to seek in it as well.
    (call $check (i32.eqz (call $fd_fdstat_get (i32.const 1) (i32.const 0))))
    (drop (call $fd_seek (i32.const 1) (i64.const 0) (i32.const 1) (i32.const 0)))
    (call $check (call $fd_read (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
    (call $check (call $fd_pread
      (i32.const 0) (i32.const 0) (i32.const 0) (i64.const 0) (i32.const 0)))
    (if (call $path_open (i32.const 3) (i32.const 0) (i32.const 144) (i32.const 11) (i32.const 0)
          (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 0))
      (then
        (call $print (i32.const 112) (i32.const 7))
        (call $print (i32.const 120) (i32.const 13))))
    (drop (call $fd_close (i32.const 2)))
    (call $proc_exit (global.get $code))
    unreachable)
  (func $print (param $at i32) (param $size i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $size))
    (call $check (i32.eqz (call $fd_write
      (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))))
  (func $alloc (export "malloc") (export "proxy_on_memory_allocate")
    (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $heap))
    (call $check (local.get $at))
    ;; Go takes the address of the first byte.
    (call $check (local.get $size))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (local.get $at))
  (func (export "free") (param i32))
  (func (export "calloc") (param i32 i32) (result i32)
    (call $alloc (i32.mul (local.get 0) (local.get 1))))
  (func (export "realloc") (param i32 i32) (result i32) (call $alloc (local.get 1)))

  (func (export "proxy_on_configure") (param $root i32) (param $size i32) (result i32)
    (i32.eqz (call $get_buffer
      (i32.const 7) (i32.const 0) (local.get $size) (i32.const 40) (i32.const 44))))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (call $check (i32.eqz (call $replace (i32.const 2) (i32.const 64) (i32.const 8)
      (i32.load (i32.const 40)) (i32.load (i32.const 44)))))
    ;; Without the NUL that ends it.
    (call $check (i32.eqz (call $replace (i32.const 2) (i32.const 80) (i32.const 8)
      (i32.load (i32.const 256)) (i32.sub (i32.load (i32.const 36)) (i32.const 1)))))
    (i32.const 0))

  ;; What the SDK exports besides.
  (func (export "proxy_abi_version_0_2_0"))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
  (func (export "proxy_on_context_create") (export "proxy_on_queue_ready")
    (export "proxy_on_downstream_connection_close") (export "proxy_on_upstream_connection_close")
    (param i32 i32))
  (func (export "proxy_on_log") (export "proxy_on_delete") (export "proxy_on_tick") (param i32))
  (func (export "proxy_on_new_connection") (param i32) (result i32) (i32.const 0))
  (func (export "proxy_on_request_trailers") (export "proxy_on_response_trailers")
    (param i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_downstream_data") (export "proxy_on_upstream_data")
    (export "proxy_on_request_headers") (export "proxy_on_request_body")
    (export "proxy_on_response_body")
    (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)))
