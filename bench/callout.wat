;; Asks an upstream before it lets a request go on. The token of each call finds its context.
(module
  (import "env" "proxy_http_call"
    (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_effective_context" (func $switch (param i32) (result i32)))
  (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))

  (memory (export "memory") 3)
  (data (i32.const 16) "auth")
  ;; Three pairs: their number, their sizes, and each name and value with a NUL behind it.
  (data (i32.const 64)
    "\03\00\00\00"
    "\07\00\00\00\03\00\00\00" "\05\00\00\00\01\00\00\00" "\0a\00\00\00\04\00\00\00"
    ":method\00GET\00" ":path\00/\00" ":authority\00auth\00")

  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32)
    (i32.const 131072))

  (func $place (param $token i32) (result i32)
    (i32.add (i32.const 65536)
      (i32.shl (i32.and (local.get $token) (i32.const 0x3fff)) (i32.const 2))))

  (func (export "proxy_on_request_headers") (param $context i32) (param i32 i32) (result i32)
    (if (call $call
          (i32.const 16) (i32.const 4) (i32.const 64) (i32.const 64)
          (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
          (i32.const 5000) (i32.const 0))
      (then (unreachable)))
    (i32.store (call $place (i32.load (i32.const 0))) (local.get $context))
    (i32.const 1))

  (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
    (drop (call $switch (i32.load (call $place (local.get 1)))))
    (drop (call $continue (i32.const 0))))

  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1)))
