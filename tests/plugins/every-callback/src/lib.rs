//! Logs every callback with its arguments, and misbehaves when the request header `x-act` asks for it.
//!
//! Configuration: words separated by spaces. `tick` asks for a tick every 20 ms; `network` makes
//! TCP contexts instead of HTTP ones.

use std::hint::black_box;
use std::time::Duration;

use log::info;
use proxy_wasm::traits::{Context, HttpContext, RootContext, StreamContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, PeerType};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Trace);
    proxy_wasm::set_root_context(|id| -> Box<dyn RootContext> {
        info!("on_context_create {id} 0");
        Box::new(Root { id, network: false })
    });
}}

/// What every kind of context has in common.
macro_rules! context {
    ($context:ident) => {
        impl Context for $context {
            fn on_http_call_response(
                &mut self,
                token: u32,
                headers: usize,
                body: usize,
                trailers: usize,
            ) {
                info!("on_http_call_response {token} {headers} {body} {trailers}");
                self.called();
            }

            fn on_foreign_function(&mut self, id: u32, size: usize) {
                info!("on_foreign_function {id} {size}");
            }

            fn on_done(&mut self) -> bool {
                info!("on_done");
                true
            }
        }

        impl Drop for $context {
            fn drop(&mut self) {
                info!("on_delete");
            }
        }
    };
}

struct Root {
    id: u32,
    network: bool,
}

context!(Root);

impl Root {
    fn called(&self) {}
}

impl RootContext for Root {
    fn on_vm_start(&mut self, size: usize) -> bool {
        info!("on_vm_start {size}");
        true
    }

    fn on_configure(&mut self, size: usize) -> bool {
        info!("on_configure {size}");
        let configuration = self.get_plugin_configuration().unwrap_or_default();
        for word in String::from_utf8_lossy(&configuration).split_whitespace() {
            match word {
                "tick" => self.set_tick_period(Duration::from_millis(20)),
                "network" => self.network = true,
                _ => info!("configuration: {word}"),
            }
        }
        true
    }

    fn on_tick(&mut self) {
        info!("on_tick");
    }

    fn on_queue_ready(&mut self, queue: u32) {
        info!("on_queue_ready {queue}");
    }

    fn on_log(&mut self) {
        info!("on_log");
    }

    fn get_type(&self) -> Option<ContextType> {
        match self.network {
            true => Some(ContextType::StreamContext),
            false => Some(ContextType::HttpContext),
        }
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        info!("on_context_create {id} {}", self.id);
        Some(Box::new(Request { act: String::new() }))
    }

    fn create_stream_context(&self, id: u32) -> Option<Box<dyn StreamContext>> {
        info!("on_context_create {id} {}", self.id);
        Some(Box::new(Connection))
    }
}

struct Request {
    act: String,
}

context!(Request);

impl Request {
    fn reply(&self, status: u32, body: &str) -> Action {
        let headers = vec![("x-denied-by", "every-callback")];
        self.send_http_response(status, headers, Some(body.as_bytes()));
        Action::Pause
    }

    fn call(&self) -> Action {
        let headers = vec![
            (":method", "GET"),
            (":path", "/call"),
            (":authority", "upstream"),
        ];
        match self.dispatch_http_call("upstream", headers, None, vec![], Duration::from_secs(1)) {
            Ok(token) => info!("http_call {token}"),
            Err(status) => info!("http_call {status:?}"),
        }
        Action::Pause
    }

    fn called(&self) {
        self.resume_http_request();
    }
}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, headers: usize, end_of_stream: bool) -> Action {
        info!("on_request_headers {headers} {end_of_stream}");
        let act = self
            .get_http_request_header_bytes("x-act")
            .unwrap_or_default();
        self.act = String::from_utf8_lossy(&act).into_owned();
        match self.act.as_str() {
            "local-reply" => self.reply(403, "denied"),
            "pause" => Action::Pause,
            "call" => self.call(),
            "panic" => panic!("asked to"),
            "spin" => spin(),
            "grow" => grow(),
            _ => Action::Continue,
        }
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        info!("on_request_body {size} {end_of_stream}");
        match self.act.as_str() {
            "body-reply" => self.reply(403, "denied"),
            _ => Action::Continue,
        }
    }

    fn on_http_request_trailers(&mut self, trailers: usize) -> Action {
        info!("on_request_trailers {trailers}");
        Action::Continue
    }

    fn on_http_response_headers(&mut self, headers: usize, end_of_stream: bool) -> Action {
        info!("on_response_headers {headers} {end_of_stream}");
        match self.act.as_str() {
            "response-reply" => self.reply(502, "replaced"),
            _ => Action::Continue,
        }
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        info!("on_response_body {size} {end_of_stream}");
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, trailers: usize) -> Action {
        info!("on_response_trailers {trailers}");
        Action::Continue
    }

    fn on_log(&mut self) {
        info!("on_log");
        if self.act == "log-spin" {
            spin()
        }
    }
}

struct Connection;

context!(Connection);

impl Connection {
    fn called(&self) {
        self.resume_downstream();
    }
}

impl StreamContext for Connection {
    fn on_new_connection(&mut self) -> Action {
        info!("on_new_connection");
        Action::Continue
    }

    fn on_downstream_data(&mut self, size: usize, end_of_stream: bool) -> Action {
        info!("on_downstream_data {size} {end_of_stream}");
        Action::Continue
    }

    fn on_downstream_close(&mut self, peer: PeerType) {
        info!("on_downstream_connection_close {}", peer as u32);
    }

    fn on_upstream_data(&mut self, size: usize, end_of_stream: bool) -> Action {
        info!("on_upstream_data {size} {end_of_stream}");
        Action::Continue
    }

    fn on_upstream_close(&mut self, peer: PeerType) {
        info!("on_upstream_connection_close {}", peer as u32);
    }

    fn on_log(&mut self) {
        info!("on_log");
    }
}

fn spin() -> ! {
    loop {
        black_box(());
    }
}

fn grow() -> ! {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(vec![1u8; 1 << 20]));
    }
}
