//! Drives one host call into every answer that the SDK's API can bring about, in one phase.
//!
//! The environment says which: `PROBE=request_headers proxy_get_property`. The SDK panics on an
//! answer that it does not know, and `must` panics where the methods of its traits do.

mod probes;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext, StreamContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, PeerType};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Trace);
    proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> { Box::new(Root) });
    reached("main");
}}

/// Make the calls if this is the phase for them, once, and say so.
fn reached(phase: &str) {
    static MADE: AtomicBool = AtomicBool::new(false);
    if let Some(call) = wanted(phase).filter(|_| !MADE.swap(true, Ordering::Relaxed)) {
        probes::run(&call);
        hostcalls::log(LogLevel::Info, &format!("{phase}: {call} is done")).unwrap();
    }
}

/// The call that is to be made in that phase.
fn wanted(phase: &str) -> Option<String> {
    let probe = std::env::var("PROBE").expect("PROBE says what to call, and when");
    let (wanted, call) = probe.split_once(' ').expect("a phase and a call");
    (wanted == phase).then(|| call.to_string())
}

fn call_out() -> Action {
    let headers = vec![(":method", "GET"), (":path", "/"), (":authority", "auth")];
    if wanted("http_call_response").is_some() {
        hostcalls::dispatch_http_call("auth", headers, None, vec![], Duration::ZERO).unwrap();
    } else if wanted("grpc_call_response").is_some() {
        hostcalls::dispatch_grpc_call("auth", "a.A", "B", vec![], None, Duration::ZERO).unwrap();
    } else if ["metadata", "message", "trailing_metadata", "close"]
        .iter()
        .any(|part| wanted(&format!("grpc_stream_{part}")).is_some())
    {
        hostcalls::open_grpc_stream("auth", "a.A", "B", vec![]).unwrap();
    } else {
        return Action::Continue;
    }
    Action::Pause
}

macro_rules! context {
    ($context:ident, $done:literal, $delete:literal) => {
        impl Context for $context {
            fn on_http_call_response(&mut self, _: u32, _: usize, _: usize, _: usize) {
                reached("http_call_response");
            }

            fn on_grpc_call_response(&mut self, _: u32, _: u32, _: usize) {
                reached("grpc_call_response");
            }

            fn on_grpc_stream_initial_metadata(&mut self, _: u32, _: u32) {
                reached("grpc_stream_metadata");
            }

            fn on_grpc_stream_message(&mut self, _: u32, _: usize) {
                reached("grpc_stream_message");
            }

            fn on_grpc_stream_trailing_metadata(&mut self, _: u32, _: u32) {
                reached("grpc_stream_trailing_metadata");
            }

            fn on_grpc_stream_close(&mut self, _: u32, _: u32) {
                reached("grpc_stream_close");
            }

            fn on_foreign_function(&mut self, _: u32, _: usize) {
                reached("foreign_function");
            }

            fn on_done(&mut self) -> bool {
                reached($done);
                true
            }
        }

        impl Drop for $context {
            fn drop(&mut self) {
                reached($delete);
            }
        }
    };
}

struct Root;

context!(Root, "root_done", "root_delete");

impl RootContext for Root {
    fn on_vm_start(&mut self, _: usize) -> bool {
        reached("vm_start");
        true
    }

    fn on_configure(&mut self, _: usize) -> bool {
        reached("configure");
        true
    }

    fn on_tick(&mut self) {
        reached("tick");
    }

    fn on_queue_ready(&mut self, _: u32) {
        reached("queue_ready");
    }

    fn on_log(&mut self) {
        reached("root_log");
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        reached("create");
        Some(Box::new(Http))
    }

    fn create_stream_context(&self, _: u32) -> Option<Box<dyn StreamContext>> {
        Some(Box::new(Tcp))
    }

    fn get_type(&self) -> Option<ContextType> {
        let tcp = ["new_connection", "downstream_data", "upstream_data", "downstream_close"]
            .iter()
            .any(|phase| wanted(phase).is_some());
        Some(if tcp { ContextType::StreamContext } else { ContextType::HttpContext })
    }
}

struct Http;

context!(Http, "done", "delete");

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        reached("request_headers");
        call_out()
    }

    fn on_http_request_body(&mut self, _: usize, _: bool) -> Action {
        reached("request_body");
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        reached("response_headers");
        Action::Continue
    }

    fn on_http_response_body(&mut self, _: usize, _: bool) -> Action {
        reached("response_body");
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        reached("response_trailers");
        Action::Continue
    }

    fn on_log(&mut self) {
        reached("log");
    }
}

struct Tcp;

context!(Tcp, "tcp_done", "tcp_delete");

impl StreamContext for Tcp {
    fn on_new_connection(&mut self) -> Action {
        reached("new_connection");
        Action::Continue
    }

    fn on_downstream_data(&mut self, _: usize, _: bool) -> Action {
        reached("downstream_data");
        Action::Continue
    }

    fn on_downstream_close(&mut self, _: PeerType) {
        reached("downstream_close");
    }

    fn on_upstream_data(&mut self, _: usize, _: bool) -> Action {
        reached("upstream_data");
        Action::Continue
    }
}
