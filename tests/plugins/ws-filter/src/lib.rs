//! Filters a websocket: denies paths that end in `/denied`, masks digits on the way to the client,
//! closes on a message that holds the configured word, holds one that begins with `wait` until the
//! next tick, and logs how much went by.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use log::info;
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, RootContext, StreamContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, PeerType};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> { Box::new(Filter::default()) });
}}

/// The contexts that hold something, each with what lets it go.
type Waiting = Rc<RefCell<VecDeque<(u32, fn())>>>;

#[derive(Default)]
struct Filter {
    forbidden: Vec<u8>,
    waiting: Waiting,
}

impl Context for Filter {}

impl RootContext for Filter {
    fn on_configure(&mut self, _: usize) -> bool {
        self.forbidden = self.get_plugin_configuration().unwrap_or_default();
        self.set_tick_period(Duration::from_millis(20));
        true
    }

    fn on_tick(&mut self) {
        for (context, resume) in self.waiting.borrow_mut().drain(..) {
            // It may be gone since.
            if hostcalls::set_effective_context(context).is_ok() {
                resume();
            }
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::StreamContext)
    }

    fn create_stream_context(&self, id: u32) -> Option<Box<dyn StreamContext>> {
        Some(Box::new(Connection {
            id,
            forbidden: self.forbidden.clone(),
            waiting: self.waiting.clone(),
            down: 0,
            up: 0,
        }))
    }
}

struct Connection {
    id: u32,
    forbidden: Vec<u8>,
    waiting: Waiting,
    down: usize,
    up: usize,
}

impl Connection {
    fn wait(&self, resume: fn()) -> Action {
        self.waiting.borrow_mut().push_back((self.id, resume));
        Action::Pause
    }

    fn is_forbidden(&self, data: &[u8]) -> bool {
        let word = &self.forbidden;
        !word.is_empty() && data.windows(word.len()).any(|window| window == word)
    }
}

impl Context for Connection {}

impl StreamContext for Connection {
    fn on_new_connection(&mut self) -> Action {
        let path = self.get_property(vec!["request", "path"]).unwrap_or_default();
        if path.ends_with(b"/denied") {
            self.close_downstream();
            return Action::Pause;
        }
        Action::Continue
    }

    fn on_downstream_data(&mut self, size: usize, _: bool) -> Action {
        let data = self.get_downstream_data(0, size).unwrap_or_default();
        if self.is_forbidden(&data) {
            self.close_downstream();
            return Action::Pause;
        }
        if data.starts_with(b"wait down") {
            return self.wait(|| hostcalls::resume_downstream().unwrap());
        }
        self.down += size;
        Action::Continue
    }

    fn on_upstream_data(&mut self, size: usize, _: bool) -> Action {
        let mut data = self.get_upstream_data(0, size).unwrap_or_default();
        if data.starts_with(b"wait up") {
            return self.wait(|| hostcalls::resume_upstream().unwrap());
        }
        if data.iter().any(u8::is_ascii_digit) {
            for byte in data.iter_mut().filter(|byte| byte.is_ascii_digit()) {
                *byte = b'*';
            }
            self.set_upstream_data(0, size, &data);
        }
        self.up += size;
        Action::Continue
    }

    fn on_downstream_close(&mut self, peer: PeerType) {
        info!("downstream closed by {}", peer as u32);
    }

    fn on_upstream_close(&mut self, peer: PeerType) {
        info!("upstream closed by {}", peer as u32);
    }

    fn on_log(&mut self) {
        info!("{} bytes down, {} bytes up", self.down, self.up);
    }
}
