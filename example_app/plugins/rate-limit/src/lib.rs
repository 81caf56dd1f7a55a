//! A token bucket for each client, kept in shared data so that all instances draw from the same one.
//!
//! Configuration: `{"requests_per_second": 100, "burst": 200}`; `burst` defaults to one second's worth.

use std::time::UNIX_EPOCH;

use log::{error, warn};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};
use serde::Deserialize;

/// An attempt fails only when another instance has taken a token in between.
const MAX_ATTEMPTS: usize = 32;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> { Box::new(Root { limit: None }) });
}}

struct Root {
    limit: Option<Limit>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        match Limit::parse(&self.get_plugin_configuration().unwrap_or_default()) {
            Ok(limit) => {
                self.limit = Some(limit);
                true
            }
            Err(reason) => {
                error!("bad configuration: {reason}");
                false
            }
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(RateLimit { limit: self.limit? }))
    }
}

struct RateLimit {
    limit: Limit,
}

impl Context for RateLimit {}

impl HttpContext for RateLimit {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        match self.take_token() {
            Ok(()) => Action::Continue,
            Err(seconds) => {
                self.reject(seconds);
                Action::Pause
            }
        }
    }
}

impl RateLimit {
    /// Takes a token from the client's bucket, or tells in how many seconds there will be one.
    fn take_token(&self) -> Result<(), f64> {
        let key = format!("rate-limit:{}", self.client());
        for _ in 0..MAX_ATTEMPTS {
            // The first write of a key is unguarded: no `cas` means "whatever is there".
            let (state, cas) = self.get_shared_data(&key);
            let mut bucket = Bucket::load(state, self.limit).refilled(self.now(), self.limit);
            if bucket.tokens < 1.0 {
                return Err((1.0 - bucket.tokens) / self.limit.requests_per_second);
            }
            bucket.tokens -= 1.0;
            let stored = self.set_shared_data(&key, Some(&bucket.store()), cas);
            if stored.is_ok() {
                return Ok(());
            }
        }
        // So many clashes mean that the store takes nothing: a limit that can't count lets nobody in.
        warn!("{key}: no token taken in {MAX_ATTEMPTS} attempts, the request is refused");
        Err(1.0)
    }

    fn reject(&self, seconds: f64) {
        let retry_after = (seconds.ceil() as u64).max(1).to_string();
        let json = ("content-type", "application/json");
        self.send_http_response(
            429,
            vec![json, ("retry-after", &retry_after)],
            Some(br#"{"error": "rate limit exceeded"}"#),
        );
    }

    fn client(&self) -> String {
        let address = self.get_property(vec!["source", "address"]);
        host(&String::from_utf8_lossy(&address.unwrap_or_default())).to_string()
    }

    fn now(&self) -> u64 {
        let elapsed = self.get_current_time().duration_since(UNIX_EPOCH);
        elapsed.map_or(0, |elapsed| elapsed.as_nanos() as u64)
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    requests_per_second: f64,
    burst: Option<u32>,
}

impl Limit {
    fn parse(configuration: &[u8]) -> Result<Limit, String> {
        let limit: Limit = serde_json::from_slice(configuration).map_err(|e| e.to_string())?;
        if limit.requests_per_second <= 0.0 {
            return Err("requests_per_second must be above 0".to_string());
        }
        if limit.burst == Some(0) {
            return Err("burst must be at least 1".to_string());
        }
        Ok(limit)
    }

    fn capacity(&self) -> f64 {
        match self.burst {
            Some(burst) => burst.into(),
            None => self.requests_per_second.max(1.0),
        }
    }
}

/// Stored as 16 bytes, little endian: the tokens, and the time in nanoseconds when they were counted.
struct Bucket {
    tokens: f64,
    counted_at: u64,
}

impl Bucket {
    /// A client that was never seen has a full bucket.
    fn load(state: Option<Vec<u8>>, limit: Limit) -> Bucket {
        match state
            .as_deref()
            .and_then(|state| state.split_first_chunk::<8>())
        {
            Some((tokens, counted_at)) => Bucket {
                tokens: f64::from_le_bytes(*tokens),
                counted_at: counted_at.try_into().map_or(0, u64::from_le_bytes),
            },
            None => Bucket {
                tokens: limit.capacity(),
                counted_at: 0,
            },
        }
    }

    fn refilled(self, now: u64, limit: Limit) -> Bucket {
        // Saturating: another instance's clock reading may be the later one.
        let seconds = now.saturating_sub(self.counted_at) as f64 / 1e9;
        Bucket {
            tokens: (self.tokens + seconds * limit.requests_per_second).min(limit.capacity()),
            counted_at: now.max(self.counted_at),
        }
    }

    fn store(&self) -> [u8; 16] {
        let mut state = [0; 16];
        state[..8].copy_from_slice(&self.tokens.to_le_bytes());
        state[8..].copy_from_slice(&self.counted_at.to_le_bytes());
        state
    }
}

/// The address without its port: `192.0.2.1:4711`, `[2001:db8::1]:4711`, or one that has no port.
fn host(address: &str) -> &str {
    if let Some((host, _)) = address
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        return host;
    }
    match address.split_once(':') {
        Some((host, port)) if !port.contains(':') => host,
        _ => address,
    }
}
