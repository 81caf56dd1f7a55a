//! Logs one line for each finished request: `GET /public/hello 200 1.234ms`.

use log::info;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Bytes, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_http_context(|_, _| -> Box<dyn HttpContext> { Box::new(AccessLog) });
}}

struct AccessLog;

impl Context for AccessLog {}

impl HttpContext for AccessLog {
    fn on_log(&mut self) {
        info!(
            "{} {} {} {}",
            text(self.get_http_request_header_bytes(":method")),
            text(self.get_http_request_header_bytes(":path")),
            self.status(),
            self.duration(),
        );
    }
}

impl AccessLog {
    fn status(&self) -> String {
        match self.get_http_response_header_bytes(":status") {
            Some(status) => text(Some(status)),
            None => or_dash(self.number(["response", "code"])),
        }
    }

    fn duration(&self) -> String {
        let nanoseconds = self.number(["request", "duration"]);
        or_dash(nanoseconds.map(|ns| format!("{:.3}ms", ns as f64 / 1e6)))
    }

    /// A numeric property is eight bytes, little endian.
    fn number(&self, path: [&str; 2]) -> Option<u64> {
        let bytes = self.get_property(path.to_vec())?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

/// A header may hold any bytes: none of them may end the line or reach a terminal as a command.
fn text(value: Option<Bytes>) -> String {
    let clean =
        |bytes: Bytes| String::from_utf8_lossy(&bytes).replace(char::is_control, "\u{fffd}");
    or_dash(value.map(clean))
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_string(), |value| value.to_string())
}
