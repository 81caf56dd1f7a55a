//! The calls, each with everything that it can be given.

use std::time::Duration;

use proxy_wasm::hostcalls::*;
use proxy_wasm::types::{BufferType, LogLevel, MapType, MetricType, Status};

const BUFFERS: [BufferType; 9] = [
    BufferType::HttpRequestBody,
    BufferType::HttpResponseBody,
    BufferType::DownstreamData,
    BufferType::UpstreamData,
    BufferType::HttpCallResponseBody,
    BufferType::GrpcReceiveBuffer,
    BufferType::VmConfiguration,
    BufferType::PluginConfiguration,
    BufferType::CallData,
];
const MAPS: [MapType; 8] = [
    MapType::HttpRequestHeaders,
    MapType::HttpRequestTrailers,
    MapType::HttpResponseHeaders,
    MapType::HttpResponseTrailers,
    MapType::GrpcReceiveInitialMetadata,
    MapType::GrpcReceiveTrailingMetadata,
    MapType::HttpCallResponseHeaders,
    MapType::HttpCallResponseTrailers,
];
const METRICS: [MetricType; 3] = [MetricType::Counter, MetricType::Gauge, MetricType::Histogram];
const GOOD: [(&str, &str); 3] = [(":method", "GET"), (":path", "/"), (":authority", "auth")];
/// Longer than any key, name or value may be.
const LONG: usize = 70_000;
const NOBODY: u32 = 4_000_000;

/// As a method of the SDK's traits that panics on whatever is no success.
fn must<T>(result: Result<T, Status>) -> T {
    result.unwrap()
}

/// As one that hands over whatever it has got.
fn may<T>(_: Result<T, Status>) {}

fn keys() -> Vec<String> {
    let mut keys: Vec<String> = ["", "x", "X-User", "a b", "a\r\nb", ":unknown", ":path", "host"]
        .iter()
        .map(ToString::to_string)
        .collect();
    keys.extend(["x".repeat(5_000), "x".repeat(LONG)]);
    keys
}

fn values() -> Vec<String> {
    vec![String::new(), "y".into(), "a\r\nb: c".into(), "a\0b".into(), "y".repeat(LONG)]
}

fn metrics() -> Vec<u32> {
    let mut ids: Vec<u32> = METRICS
        .iter()
        .map(|kind| must(define_metric(*kind, "m")))
        .collect();
    ids.push(must(define_metric(MetricType::Counter, &"x".repeat(LONG))));
    ids.extend([0, NOBODY, u32::MAX]);
    ids
}

fn queues() -> Vec<u32> {
    let made = must(register_shared_queue("queue"));
    let none = must(register_shared_queue(&"x".repeat(LONG)));
    vec![made, none, 0, NOBODY, u32::MAX]
}

fn tokens() -> Vec<u32> {
    let call = dispatch_grpc_call("auth", "a.A", "B", vec![], None, Duration::ZERO);
    let stream = open_grpc_stream("auth", "a.A", "B", vec![]);
    let closed = open_grpc_stream("auth", "a.A", "B", vec![]);
    let ended = open_grpc_stream("auth", "a.A", "B", vec![]);
    closed.iter().for_each(|token| close_grpc_stream(*token).unwrap());
    ended.iter().for_each(|token| cancel_grpc_stream(*token).unwrap());
    let made = [call, stream, closed, ended];
    let mut tokens: Vec<u32> = made.iter().filter_map(|token| token.ok()).collect();
    tokens.extend([0, NOBODY]);
    tokens
}

fn grpc(call: impl Fn(&str, &str, &str, Vec<(&str, &[u8])>) -> Result<u32, Status>) {
    for upstream in ["auth", "other", "", &"x".repeat(LONG)] {
        may(call(upstream, "a.A", "B", vec![]));
    }
    for name in ["", "a b", "/", "ü", &"x".repeat(LONG)] {
        may(call("auth", name, "B", vec![]));
        may(call("auth", "a.A", name, vec![]));
    }
    for name in ["", "te", "a b", "grpc-status", "x-bin", "x"] {
        may(call("auth", "a.A", "B", vec![(name, b"\xff")]));
    }
}

pub fn run(call: &str) {
    match call {
        "proxy_log" => {
            use LogLevel::*;
            for level in [Trace, Debug, Info, Warn, Error, Critical] {
                values().iter().for_each(|text| must(log(level, text)));
            }
        }
        "proxy_get_log_level" => {
            must(get_log_level());
        }
        "proxy_get_current_time_nanoseconds" => {
            must(get_current_time());
        }
        "proxy_set_tick_period_milliseconds" => {
            for period in [Duration::MAX, Duration::from_millis(1), Duration::ZERO] {
                must(set_tick_period(period));
            }
        }
        "proxy_set_effective_context" => {
            for id in [1, 2, 0, NOBODY, u32::MAX] {
                may(set_effective_context(id));
            }
        }
        "proxy_done" => must(done()),
        "proxy_get_buffer_bytes" => {
            for buffer in BUFFERS {
                for (start, size) in [(0, usize::MAX), (usize::MAX, usize::MAX), (1, 0)] {
                    must(get_buffer(buffer, start, size));
                }
            }
        }
        "proxy_set_buffer_bytes" => {
            for buffer in BUFFERS {
                for (start, size) in [(0, 0), (usize::MAX, usize::MAX), (1, 1), (0, usize::MAX)] {
                    values().iter().for_each(|v| must(set_buffer(buffer, start, size, v.as_bytes())));
                }
            }
        }
        "proxy_get_header_map_pairs" => {
            for map in MAPS {
                must(get_map(map));
                must(get_map_bytes(map));
            }
        }
        "proxy_set_header_map_pairs" => {
            for map in MAPS {
                must(set_map(map, vec![]));
                for key in keys() {
                    values().iter().for_each(|value| must(set_map(map, vec![(&key, value)])));
                }
                must(set_map_bytes(map, vec![("x", b"\xff")]));
                must(set_map(map, vec![("x", "y"); 1_100]));
            }
        }
        "proxy_get_header_map_value" => {
            for map in MAPS {
                for key in keys() {
                    must(get_map_value(map, &key));
                    must(get_map_value_bytes(map, &key));
                }
            }
        }
        "proxy_add_header_map_value" => {
            for map in MAPS {
                for key in keys() {
                    values().iter().for_each(|value| must(add_map_value(map, &key, value)));
                }
                must(add_map_value_bytes(map, "x", b"\xff"));
                (0..20).for_each(|_| must(add_map_value(map, "x", "y")));
            }
        }
        "proxy_replace_header_map_value" => {
            for map in MAPS {
                for key in keys() {
                    values().iter().for_each(|v| must(set_map_value(map, &key, Some(v))));
                }
                must(set_map_value_bytes(map, "x", Some(b"\xff")));
            }
        }
        "proxy_remove_header_map_value" => {
            for map in MAPS {
                for key in keys() {
                    must(remove_map_value(map, &key));
                    must(set_map_value(map, &key, None));
                }
            }
        }
        "proxy_continue_stream" => {
            must(resume_http_request());
            must(resume_http_response());
            must(resume_downstream());
            must(resume_upstream());
        }
        "proxy_close_stream" => {
            must(reset_http_request());
            must(reset_http_response());
            must(close_downstream());
            must(close_upstream());
        }
        "proxy_send_local_response" => {
            for status in [0, 99, 200, 304, 1000, u32::MAX] {
                for key in keys() {
                    for value in values() {
                        let headers = vec![(key.as_str(), value.as_str())];
                        must(send_http_response(status, headers, Some(value.as_bytes())));
                    }
                }
                must(send_http_response(status, vec![], None));
            }
        }
        "proxy_get_status" => drop(must(get_grpc_status())),
        "proxy_get_property" => {
            for path in [vec![], vec![""], vec!["", ""], vec!["request", "path"], vec!["none"]] {
                must(get_property(path));
            }
            must(get_property(vec![&"x".repeat(LONG)]));
        }
        "proxy_set_property" => {
            let long = "x".repeat(2 << 20);
            for path in [vec![], vec![""], vec!["request", "path"], vec!["a", "b"], vec![&long]] {
                for value in [None, Some(&b""[..]), Some(b"y"), Some(long.as_bytes())] {
                    must(set_property(path.clone(), value));
                }
            }
        }
        "proxy_http_call" => {
            let (long, body) = ("x".repeat(LONG), vec![0; 11 << 20]);
            for upstream in ["auth", "other", "", &long] {
                may(dispatch_http_call(upstream, GOOD.into(), None, vec![], Duration::ZERO));
            }
            for headers in [vec![], GOOD[1..].to_vec(), vec![("a b", "")], vec![("x", "a\nb")]] {
                let trailers = headers.clone();
                may(dispatch_http_call("auth", headers, None, vec![], Duration::ZERO));
                may(dispatch_http_call("auth", GOOD.into(), None, trailers, Duration::ZERO));
            }
            may(dispatch_http_call("auth", GOOD.into(), Some(&body), vec![], Duration::ZERO));
            may(dispatch_http_call("auth", GOOD.into(), None, vec![], Duration::from_secs(3_000_000)));
        }
        "proxy_grpc_call" => {
            grpc(|upstream, service, method, metadata| {
                dispatch_grpc_call(upstream, service, method, metadata, None, Duration::ZERO)
            });
            let body = vec![0; 5 << 20];
            may(dispatch_grpc_call("auth", "a.A", "B", vec![], Some(&body), Duration::MAX));
        }
        "proxy_grpc_stream" => grpc(open_grpc_stream),
        "proxy_grpc_send" => {
            let long = vec![0; 5 << 20];
            for message in [None, Some(&b"x"[..]), Some(&long)] {
                for token in tokens() {
                    may(send_grpc_stream_message(token, message, false));
                    may(send_grpc_stream_message(token, message, true));
                    may(send_grpc_stream_message(token, message, true));
                }
            }
        }
        "proxy_grpc_cancel" => {
            for token in tokens() {
                may(cancel_grpc_call(token));
                may(cancel_grpc_stream(token));
            }
        }
        "proxy_grpc_close" => {
            for token in tokens() {
                may(close_grpc_stream(token));
                may(close_grpc_stream(token));
            }
        }
        "proxy_get_shared_data" => keys().iter().for_each(|key| drop(must(get_shared_data(key)))),
        "proxy_set_shared_data" => {
            for key in keys() {
                for value in [None, Some(&b"y"[..])] {
                    for cas in [None, Some(NOBODY), Some(u32::MAX)] {
                        may(set_shared_data(&key, value, cas));
                    }
                }
            }
        }
        "proxy_register_shared_queue" => {
            for key in keys() {
                must(register_shared_queue(&key));
            }
        }
        "proxy_resolve_shared_queue" => {
            for key in keys() {
                must(resolve_shared_queue("", &key));
                must(resolve_shared_queue(&key, "queue"));
            }
        }
        "proxy_enqueue_shared_queue" => {
            let long = vec![0; 10 << 20];
            for queue in queues() {
                for value in [None, Some(&b"x"[..]), Some(&long), Some(&long)] {
                    may(enqueue_shared_queue(queue, value));
                }
            }
        }
        "proxy_dequeue_shared_queue" => {
            for queue in queues() {
                may(enqueue_shared_queue(queue, None));
                (0..2).for_each(|_| may(dequeue_shared_queue(queue)));
            }
        }
        "proxy_define_metric" => {
            for kind in METRICS {
                for key in keys() {
                    must(define_metric(kind, &key));
                }
            }
        }
        "proxy_record_metric" => {
            for metric in metrics() {
                [0, 1, u64::MAX].iter().for_each(|value| may(record_metric(metric, *value)));
            }
        }
        "proxy_increment_metric" => {
            for metric in metrics() {
                [0, 1, -1, i64::MIN].iter().for_each(|n| may(increment_metric(metric, *n)));
            }
        }
        "proxy_get_metric" => metrics().iter().for_each(|metric| may(get_metric(*metric))),
        "proxy_call_foreign_function" => {
            let long = vec![0; 11 << 20];
            for name in ["echo", "later", "none", "", "clear_route_cache", &"x".repeat(LONG)] {
                for arguments in [None, Some(&b"x"[..]), Some(&long)] {
                    may(call_foreign_function(name, arguments));
                }
            }
            for status in ["NOT_FOUND", "BAD_ARGUMENT", "EMPTY", "UNIMPLEMENTED", "error"] {
                may(call_foreign_function(status, None));
            }
        }
        _ => panic!("no probe of {call}"),
    }
}
