//! Calls the foreign function that the request header `x-call` names, with what `x-arguments` says,
//! and tells the application in `x-result` what came of it.
//!
//! With `x-late` the result is an id, and the request waits for what comes under it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Trace);
    proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> { Box::<Root>::default() });
}}

/// Which request waits for an id.
type Waiting = Rc<RefCell<HashMap<u32, u32>>>;

#[derive(Default)]
struct Root {
    waiting: Waiting,
}

impl Context for Root {
    fn on_foreign_function(&mut self, id: u32, size: usize) {
        let data = hostcalls::get_buffer(BufferType::CallData, 0, size).unwrap();
        let (status, message) = hostcalls::get_grpc_status().unwrap();
        let request = self.waiting.borrow_mut().remove(&id).expect("an unknown id");
        hostcalls::set_effective_context(request).unwrap();
        let request = Request { id: request, waiting: self.waiting.clone() };
        request.set_http_request_header(
            "x-result",
            Some(&format!(
                "{} {status} {}",
                String::from_utf8(data.unwrap_or_default()).unwrap(),
                message.unwrap_or_default(),
            )),
        );
        request.resume_http_request();
    }
}

impl RootContext for Root {
    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request { id, waiting: self.waiting.clone() }))
    }
}

struct Request {
    id: u32,
    waiting: Waiting,
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let name = self.get_http_request_header("x-call").unwrap_or_default();
        let arguments = self.get_http_request_header_bytes("x-arguments");
        let result = self.call_foreign_function(&name, arguments.as_deref());
        if self.get_http_request_header("x-late").is_some() {
            let id = result.unwrap().unwrap().try_into().unwrap();
            self.waiting.borrow_mut().insert(u32::from_le_bytes(id), self.id);
            return Action::Pause;
        }
        let text = match result {
            Ok(None) => "nothing".to_string(),
            Ok(Some(data)) => String::from_utf8(data).unwrap(),
            Err(status) => format!("{status:?}"),
        };
        self.set_http_request_header("x-result", Some(&text));
        self.set_property(vec!["called", "function"], Some(name.as_bytes()));
        Action::Continue
    }
}
