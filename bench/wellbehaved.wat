;; A filter that reads and changes headers and counts its contexts. It adds to a reply that the host
;; made why it was made: only a plugin can see that.
(module
  (import "env" "proxy_get_header_map_value"
    (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value"
    (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_property"
    (func $property (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_define_metric"
    (func $define (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_increment_metric"
    (func $increment (param i32 i64) (result i32)))

  (memory (export "memory") 2)
  (data (i32.const 16) "authorization")
  (data (i32.const 48) "x-processed-by")
  (data (i32.const 80) "wasm")
  (data (i32.const 96) "x-gateway")
  (data (i32.const 112) ":status")
  (data (i32.const 128) "response\00code_details")
  (data (i32.const 160) "x-details")
  (data (i32.const 176) "started")
  (data (i32.const 192) "created")
  (data (i32.const 208) "deleted")
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
    (call $count (call $counter (i32.const 176)))
    (global.set $created (call $counter (i32.const 192)))
    (global.set $deleted (call $counter (i32.const 208)))
    (i32.const 1))

  ;; The root context comes before `proxy_on_vm_start`, and is none of a request's.
  (func (export "proxy_on_context_create") (param $id i32) (param $root i32)
    (if (local.get $root) (then (call $count (global.get $created)))))

  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (drop (call $get
      (i32.const 0) (i32.const 16) (i32.const 13) (i32.const 0) (i32.const 4)))
    (drop (call $add
      (i32.const 0) (i32.const 48) (i32.const 14) (i32.const 80) (i32.const 4)))
    (i32.const 0))

  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (drop (call $add
      (i32.const 2) (i32.const 96) (i32.const 9) (i32.const 80) (i32.const 4)))
    (drop (call $get
      (i32.const 2) (i32.const 112) (i32.const 7) (i32.const 0) (i32.const 4)))
    (if (i32.eq (i32.load8_u (i32.load (i32.const 0))) (i32.const 53))
      (then
        (drop (call $property (i32.const 128) (i32.const 21) (i32.const 0) (i32.const 4)))
        (drop (call $add
          (i32.const 2) (i32.const 160) (i32.const 9)
          (i32.load (i32.const 0)) (i32.load (i32.const 4))))))
    (i32.const 0))

  (func (export "proxy_on_log") (param i32))
  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))

  (func (export "proxy_on_delete") (param i32)
    (call $count (global.get $deleted))))
