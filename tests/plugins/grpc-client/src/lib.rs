//! Asks an upstream by gRPC about each request, and talks to it on a stream from the start.
//!
//! Configuration: the upstream's name; with `watch` behind it, a stream is opened. A request names
//! the method with `x-method` (`Echo` if it does not); `x-act: cancel` gives the call up at once.

use std::time::Duration;

use log::info;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

const SERVICE: &str = "test.Service";

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> {
        Box::new(Root { upstream: String::new() })
    });
}}

struct Root {
    upstream: String,
}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let configuration = self.get_plugin_configuration().unwrap_or_default();
        let configuration = String::from_utf8_lossy(&configuration);
        let mut words = configuration.split_whitespace();
        self.upstream = words.next().unwrap_or_default().to_string();
        if words.next() == Some("watch") {
            let metadata = vec![
                ("x-who", b"root".as_slice()),
                ("x-id-bin", b"AP8".as_slice()),
            ];
            match self.open_grpc_stream(&self.upstream, SERVICE, "Talk", metadata) {
                Ok(token) => self.send_grpc_stream_message(token, Some(b"hello"), false),
                Err(status) => info!("no stream: {status:?}"),
            }
        }
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _id: u32) -> Option<Box<dyn HttpContext>> {
        let upstream = self.upstream.clone();
        Some(Box::new(Request { upstream }))
    }
}

impl Context for Root {
    fn on_grpc_stream_initial_metadata(&mut self, _token: u32, elements: u32) {
        info!(
            "initial metadata {elements} {}",
            shown(self.get_grpc_stream_initial_metadata())
        );
    }

    fn on_grpc_stream_message(&mut self, token: u32, size: usize) {
        let message = self.get_grpc_stream_message(0, size).unwrap_or_default();
        info!("message {}", String::from_utf8_lossy(&message));
        self.close_grpc_stream(token);
    }

    fn on_grpc_stream_trailing_metadata(&mut self, _token: u32, elements: u32) {
        info!(
            "trailing metadata {elements} {}",
            shown(self.get_grpc_stream_trailing_metadata())
        );
    }

    fn on_grpc_stream_close(&mut self, _token: u32, status: u32) {
        info!("close {status} {:?}", self.get_grpc_status());
    }
}

fn shown(metadata: Vec<(String, Vec<u8>)>) -> String {
    let pairs = metadata
        .iter()
        .map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value)));
    pairs.collect::<Vec<_>>().join(" ")
}

struct Request {
    upstream: String,
}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _headers: usize, _end_of_stream: bool) -> Action {
        let method = self
            .get_http_request_header("x-method")
            .unwrap_or("Echo".to_string());
        let path = self.get_http_request_header(":path").unwrap_or_default();
        let called = self.dispatch_grpc_call(
            &self.upstream,
            SERVICE,
            &method,
            vec![("x-who", b"request")],
            Some(path.as_bytes()),
            Duration::from_secs(5),
        );
        match called {
            Ok(token) if self.get_http_request_header("x-act").as_deref() == Some("cancel") => {
                self.cancel_grpc_call(token);
                Action::Continue
            }
            Ok(_) => Action::Pause,
            Err(status) => {
                self.send_http_response(500, vec![], Some(format!("{status:?}").as_bytes()));
                Action::Pause
            }
        }
    }
}

impl Context for Request {
    fn on_grpc_call_response(&mut self, _token: u32, status: u32, size: usize) {
        if status == 0 {
            let answer = self
                .get_grpc_call_response_body(0, size)
                .unwrap_or_default();
            self.set_http_request_header_bytes("x-answer", Some(&answer));
            self.resume_http_request();
        } else {
            let (code, message) = self.get_grpc_status();
            let body = format!("{code}: {}", message.unwrap_or_default());
            self.send_http_response(403, vec![], Some(body.as_bytes()));
        }
    }
}
