//! Does what its configuration says, in lines of `PHASE: OPERATION WORDS...; OPERATION WORDS...`.
//! tests/e2e/envoy/cases.py describes the language.

mod words;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, LogLevel, MapType, Status};

use words::{decode, escape};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Trace);
    proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> { Box::new(Root::default()) });
}}

/// An operation of the script; `words` are decoded, `text` is as it was written.
struct Operation {
    phase: String,
    name: String,
    words: Vec<Vec<u8>>,
    text: String,
}

#[derive(Default)]
struct Root {
    script: Rc<Vec<Operation>>,
    cas: Cell<u32>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let configuration = self.get_plugin_configuration().unwrap_or_default();
        let text = String::from_utf8(configuration).expect("the configuration is UTF-8");
        self.script = Rc::new(text.lines().flat_map(parse).collect());
        run(&self.script, &self.cas, "configure", "");
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream {
            script: self.script.clone(),
            cas: Cell::new(0),
        }))
    }
}

fn parse(line: &str) -> impl Iterator<Item = Operation> + '_ {
    let (phase, operations) = line.split_once(": ").expect("a phase and its operations");
    operations.split("; ").map(move |text| {
        let mut words = text.split(' ');
        Operation {
            phase: phase.to_string(),
            name: words.next().unwrap_or_default().to_string(),
            words: words.map(decode).collect(),
            text: format!("{phase} {text}"),
        }
    })
}

struct Stream {
    script: Rc<Vec<Operation>>,
    cas: Cell<u32>,
}

impl Stream {
    fn run(&self, phase: &str, arguments: &str) -> Action {
        run(&self.script, &self.cas, phase, arguments)
    }

    fn body(&self, phase: &str, size: usize, end_of_stream: bool) -> Action {
        let arguments = format!("{size} {end_of_stream}");
        let part = if end_of_stream { "end" } else { "more" };
        let whole = self.run(&format!("{phase}_body"), &arguments);
        match self.run(&format!("{phase}_{part}"), &arguments) {
            Action::Continue => whole,
            action => action,
        }
    }
}

impl Context for Stream {
    fn on_http_call_response(&mut self, _: u32, headers: usize, body: usize, trailers: usize) {
        self.run("call", &format!("{headers} {body} {trailers}"));
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, headers: usize, end_of_stream: bool) -> Action {
        self.run("request_headers", &format!("{headers} {end_of_stream}"))
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.body("request", size, end_of_stream)
    }

    fn on_http_response_headers(&mut self, headers: usize, end_of_stream: bool) -> Action {
        self.run("response_headers", &format!("{headers} {end_of_stream}"))
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.body("response", size, end_of_stream)
    }

    fn on_log(&mut self) {
        self.run("log", "");
    }
}

/// Run the operations of a phase; what they say is themselves and the result.
fn run(script: &[Operation], cas: &Cell<u32>, phase: &str, arguments: &str) -> Action {
    let mut action = Action::Continue;
    for operation in script.iter().filter(|operation| operation.phase == phase) {
        if operation.name == "pause" {
            action = Action::Pause;
            continue;
        }
        let result = if operation.name == "arguments" {
            Some(arguments.as_bytes().to_vec())
        } else {
            operation.execute(cas)
        };
        if let Some(result) = result {
            info(&format!("{} -> {}", operation.text, escape(&result)));
        }
    }
    action
}

fn info(message: &str) {
    hostcalls::log(LogLevel::Info, message).unwrap();
}

fn number(status: Result<(), Status>) -> Option<Vec<u8>> {
    let status = status.err().map_or(0, |status| status as u32);
    Some(status.to_string().into_bytes())
}

impl Operation {
    fn word(&self, index: usize) -> &[u8] {
        self.words.get(index).map_or(b"", |word| word.as_slice())
    }

    fn text(&self, index: usize) -> &str {
        std::str::from_utf8(self.word(index)).expect("a word is UTF-8")
    }

    fn number(&self, index: usize) -> usize {
        self.text(index).parse().expect("a word is a number")
    }

    fn map(&self) -> MapType {
        match self.text(0) {
            "request" => MapType::HttpRequestHeaders,
            "response" => MapType::HttpResponseHeaders,
            "call" => MapType::HttpCallResponseHeaders,
            other => panic!("no map {other}"),
        }
    }

    fn buffer(&self) -> BufferType {
        match self.text(0) {
            "request" => BufferType::HttpRequestBody,
            "response" => BufferType::HttpResponseBody,
            "call" => BufferType::HttpCallResponseBody,
            other => panic!("no buffer {other}"),
        }
    }

    /// The words from `index` on that are pairs, `NAME=VALUE`.
    fn pairs(&self, index: usize) -> Vec<(&str, &[u8])> {
        let pairs = self.words.iter().skip(index).map(|word| {
            let middle = word.iter().position(|byte| *byte == b'=').expect("a pair");
            let name = std::str::from_utf8(&word[..middle]).expect("a name is UTF-8");
            (name, &word[middle + 1..])
        });
        pairs.collect()
    }

    fn execute(&self, cas: &Cell<u32>) -> Option<Vec<u8>> {
        let name = || self.text(1);
        match self.name.as_str() {
            "get" => {
                let value = hostcalls::get_map_value_bytes(self.map(), name()).unwrap();
                return Some(value.unwrap_or_else(|| b"(none)".to_vec()));
            }
            "gettext" => {
                let value = hostcalls::get_map_value(self.map(), name()).unwrap();
                return Some(value.map_or_else(|| b"(none)".to_vec(), String::into_bytes));
            }
            "pairs" => {
                let pairs = hostcalls::get_map_bytes(self.map()).unwrap();
                let pairs = pairs.iter().map(|(name, value)| {
                    [name.as_bytes(), b"=", value.as_slice()].concat()
                });
                return Some(pairs.collect::<Vec<_>>().join(&b' '));
            }
            "add" => hostcalls::add_map_value_bytes(self.map(), name(), self.word(2)).unwrap(),
            "replace" => {
                hostcalls::set_map_value_bytes(self.map(), name(), Some(self.word(2))).unwrap()
            }
            "remove" => hostcalls::remove_map_value(self.map(), name()).unwrap(),
            "setpairs" => hostcalls::set_map_bytes(self.map(), self.pairs(1)).unwrap(),
            "read" => {
                let (start, size) = (self.number(1), self.number(2));
                let bytes = hostcalls::get_buffer(self.buffer(), start, size).unwrap();
                return Some(bytes.unwrap_or_else(|| b"(none)".to_vec()));
            }
            "write" => {
                let (start, size) = (self.number(1), self.number(2));
                hostcalls::set_buffer(self.buffer(), start, size, self.word(3)).unwrap()
            }
            "keep" => {
                let bytes = hostcalls::get_buffer(self.buffer(), 0, self.number(1)).unwrap();
                let bytes = bytes.unwrap_or_default();
                hostcalls::set_buffer(self.buffer(), 0, usize::MAX, &bytes).unwrap()
            }
            "reply" => {
                let headers = self.pairs(2);
                let headers = headers
                    .iter()
                    .map(|(name, value)| (*name, std::str::from_utf8(value).expect("UTF-8")));
                let body = Some(self.word(1)).filter(|body| !body.is_empty());
                let status = self.number(0) as u32;
                hostcalls::send_http_response(status, headers.collect(), body).unwrap()
            }
            "resume" if self.text(0) == "request" => hostcalls::resume_http_request().unwrap(),
            "resume" => hostcalls::resume_http_response().unwrap(),
            "httpcall" => {
                let headers = vec![
                    (":method", "POST"),
                    (":path", name()),
                    (":authority", "upstream"),
                ];
                let body = Some(self.word(2)).filter(|body| !body.is_empty());
                let timeout = Duration::from_millis(match self.word(3) {
                    b"" => 5000,
                    _ => self.number(3) as u64,
                });
                let cluster = self.text(0);
                let answer =
                    hostcalls::dispatch_http_call(cluster, headers, body, vec![], timeout);
                return number(answer.map(|_| ()));
            }
            "property" => {
                let path = self.text(0).split('.').collect();
                let value = hostcalls::get_property(path).unwrap();
                return Some(value.unwrap_or_else(|| b"(none)".to_vec()));
            }
            "setproperty" => {
                let path = self.text(0).split('.').collect();
                hostcalls::set_property(path, Some(self.word(1))).unwrap()
            }
            "sharedget" => {
                let (value, new) = hostcalls::get_shared_data(self.text(0)).unwrap();
                cas.set(new.unwrap_or(0));
                return Some(value.unwrap_or_else(|| b"(none)".to_vec()));
            }
            "sharedset" => {
                let cas = match self.text(2) {
                    "any" => 0,
                    "last" => cas.get(),
                    "stale" => cas.get() + 1000,
                    other => panic!("no cas {other}"),
                };
                let value = Some(self.word(1));
                return number(hostcalls::set_shared_data(self.text(0), value, Some(cas)));
            }
            "log" => {
                let level = match self.text(0) {
                    "trace" => LogLevel::Trace,
                    "debug" => LogLevel::Debug,
                    "info" => LogLevel::Info,
                    "warn" => LogLevel::Warn,
                    "error" => LogLevel::Error,
                    _ => LogLevel::Critical,
                };
                hostcalls::log(level, self.text(1)).unwrap()
            }
            "trap" => {
                let asked = self.words.is_empty()
                    || hostcalls::get_map_value_bytes(MapType::HttpRequestHeaders, self.text(0))
                        .unwrap()
                        .is_some();
                assert!(!asked, "the script says trap");
            }
            other => panic!("no operation {other}"),
        }
        None
    }
}
