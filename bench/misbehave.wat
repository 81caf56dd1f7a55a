;; A filter that does what a request header asks for: nothing without it; "1" to fail in the request
;; headers, "2" in the response headers, "3" in the log. DEED and HEADER (six letters) are filled in.
(module
  (import "env" "proxy_get_header_map_value"
    (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_define_metric"
    (func $define (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_increment_metric"
    (func $increment (param i32 i64) (result i32)))

  (memory (export "memory") 2)
  (data (i32.const 16) "HEADER")
  (data (i32.const 48) "started")
  (data (i32.const 64) "created")
  (data (i32.const 80) "deleted")
  (global $created (mut i32) (i32.const 0))
  (global $deleted (mut i32) (i32.const 0))

  (func (export "proxy_abi_version_0_2_1"))

  ;; One value at a time is asked for: it always lies in the second page.
  (func (export "proxy_on_memory_allocate") (param i32) (result i32)
    (i32.const 65536))

  (func $counter (param $name i32) (result i32)
    (drop (call $define (i32.const 0) (local.get $name) (i32.const 7) (i32.const 8)))
    (i32.load (i32.const 8)))

  (func $count (param $metric i32)
    (drop (call $increment (local.get $metric) (i64.const 1))))

  (func (export "proxy_on_vm_start") (param i32 i32) (result i32)
    (call $count (call $counter (i32.const 48)))
    (global.set $created (call $counter (i32.const 64)))
    (global.set $deleted (call $counter (i32.const 80)))
    (i32.const 1))

  ;; The root context comes before `proxy_on_vm_start`, and is none of a request's.
  (func (export "proxy_on_context_create") (param $id i32) (param $root i32)
    (if (local.get $root) (then (call $count (global.get $created)))))

  (func $misbehave (param $phase i32)
    (i32.store (i32.const 0) (i32.const 0))
    (drop (call $get
      (i32.const 0) (i32.const 16) (i32.const 6) (i32.const 0) (i32.const 4)))
    (if (i32.load (i32.const 0))
      (then
        (if (i32.eq (i32.load8_u (i32.load (i32.const 0))) (local.get $phase))
          (then DEED)))))

  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (call $misbehave (i32.const 49))
    (i32.const 0))

  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (call $misbehave (i32.const 50))
    (i32.const 0))

  (func (export "proxy_on_log") (param i32)
    (call $misbehave (i32.const 51)))

  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))

  (func (export "proxy_on_delete") (param i32)
    (call $count (global.get $deleted))))
