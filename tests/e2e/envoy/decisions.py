"""Where we differ from Envoy on purpose: each decision, and exactly what shows it.

Reasons are written for users, who read them in the documentation.
"""

from __future__ import annotations

from typing import Final

from tests.e2e.envoy.differences import Decision

DECISIONS: Final[tuple[Decision, ...]] = (
    Decision(
        "maps-are-always-readable",
        "A plugin may read any header map at any time. In Envoy the request's headers can't "
        "be read any more once they have been passed on, and such a call makes a plugin in "
        "Rust panic. A map that is not there yet has no headers (NOT_FOUND instead of "
        "BAD_ARGUMENT).",
        r"""
get-request-in-response: 1 client
- status 503
+ status 200
+ content-type: text/plain
- content-length: 0
+ content-length: 5
- no body
+ body: hello
get-request-in-response: log
- critical: panicked at crates/proxy-wasm-0.2.5/src/hostcalls.rs:295:23:\nunexpected status: 2
+ info: response_headers get request x-a -> 1
+ info: (over)
get-request-in-response-status: log
- info: response_headers get request x-a -> 2
+ info: response_headers get request x-a -> 1
- info: response_headers pairs request ->\x20
+ info: response_headers pairs request -> :authority=localhost :path=/ :method=GET :scheme=http x-forwarded-proto=http x-a=1
get-response-in-request: log
- info: request_headers get response x-a -> 2
+ info: request_headers get response x-a -> 1
""",  # noqa: E501
    ),
    Decision(
        "bad-headers-fail-at-once",
        "A header that could not be sent (a name that is no name, a value with a line break) "
        "fails the request with a bare 503, like any failure of the plugin, and is not in the "
        "map. Envoy takes it, and answers 503 with a text when it sends the request on.",
        r"""
add-c-bad-name: 1 client
- content-length: 24
+ content-length: 0
+ no body
- content-type: text/plain
- body: invalid header name: x y
add-c-bad-name: log
- info: request_headers pairs request -> :authority=localhost :path=/ :method=GET :scheme=http x-forwarded-proto=http x y=1
+ info: request_headers pairs request -> :authority=localhost :path=/ :method=GET :scheme=http x-forwarded-proto=http
add-c-line-break: 1 client
- content-length: 29
+ content-length: 0
+ no body
- content-type: text/plain
- body: invalid header value for: x-y
add-c-line-break: log
- info: request_headers pairs request -> :authority=localhost :path=/ :method=GET :scheme=http x-forwarded-proto=http x-y=1%0d%0ax-z: 2
+ info: request_headers pairs request -> :authority=localhost :path=/ :method=GET :scheme=http x-forwarded-proto=http
""",  # noqa: E501
    ),
    Decision(
        "pseudo-headers-stay",
        "Pseudo-headers that a plugin removes or leaves out keep their values: a request "
        "always has a method, a path and an authority, a response always has a status. In "
        "Envoy such a request finds no route (404), and such a response is replaced by a 502.",
        r"""
replace-all-without-pseudo: 1 application
+ GET /
+ host: localhost
+ x-forwarded-proto: http
+ x-c: 3
+ no body
+ complete
replace-all-without-pseudo: 1 client
- status 404
+ status 200
+ content-type: text/plain
- content-length: 0
+ content-length: 5
- no body
+ body: hello
replace-all-without-pseudo: log
- info: request_headers pairs request -> x-forwarded-proto=http x-c=3
+ info: request_headers pairs request -> :authority=localhost :path=/ :method=GET :scheme=http x-forwarded-proto=http x-c=3
remove-path: 1 application
+ GET /
+ host: localhost
+ x-forwarded-proto: http
+ no body
+ complete
remove-path: 1 client
- status 404
+ status 200
+ content-type: text/plain
- content-length: 0
+ content-length: 5
- no body
+ body: hello
empty-pairs: 1 client
- status 502
+ status 200
+ body: hello
- content-length: 32
- content-type: text/plain
- body: missing required header: :status
empty-pairs: log
- info: response_headers pairs response ->\x20
+ info: response_headers pairs response -> :status=200
""",  # noqa: E501
    ),
    Decision(
        "lengths-are-true",
        "content-length always tells the length of what is sent. Envoy sends what the plugin "
        "says or the length from before its change: the client then gets a part of the body, "
        "or waits for bytes that never come.",
        r"""
replace-c-content-length: 1 client
- content-length: 3
+ content-length: 5
- body: hel
+ body: hello
reply-body-is-seen: 1 client
- content-length: 6
+ content-length: 7
- body: change
+ body: changed
body-replace: 1 application
- content-length: 11
- its client left before it was complete
+ complete
body-replace: 1 client
- status 504
+ status 200
- content-length: 24
- body: upstream request timeout
+ content-length: 5
+ body: hello
body-of-response-keeps-length: 1 client
- content-length: 5
+ content-length: 2
- no body
- timed out
+ body: hi
+ complete
""",
    ),
    Decision(
        "requests-lose-their-length",
        "Where a plugin may change the request's body, the application sees no "
        "content-length, since it is called before the body has been read: the body ends where "
        "ASGI says it ends. Envoy leaves the header in place, true or not.",
        r"""
body-read: 1 application
- content-length: 11
body-read-beyond: 1 application
- content-length: 11
action-stop-all-and-buffer: 1 application
- content-length: 11
action-stop-all-and-watermark: 1 application
- content-length: 11
call-holds-body: 1 application
- content-length: 11
call-in-request-body: 1 application
- content-length: 11
properties-sizes: 1 application
- content-length: 11
body-calls: 1 application
- content-length: 11
action-end-of-request: 1 application
- content-length: 11
body-unread-seen: 1 application
- content-length: 11
""",
    ),
    Decision(
        "no-length-of-nothing",
        "A request without a body gets no `content-length: 0` when a plugin changes its "
        "method. Envoy adds one, since on its connection to the application the message needs "
        "it.",
        r"""
method: 1 application
- content-length: 0
""",
    ),
    Decision(
        "status-must-be-one",
        "A status that is none, in a local reply or in `:status`, becomes 500. Envoy sends "
        "1000 as it is, and answers 502 where it is no number.",
        r"""
status-out-of-range: 1 client
- status 1000
+ status 500
status-no-number: 1 client
- status 502
+ status 500
- content-length: 32
- body: missing required header: :status
+ content-length: 5
+ body: hello
reply-status-1000: 1 client
- status 1000
+ status 500
""",
    ),
    Decision(
        "application-is-called-first",
        "The application is called when the request's headers have passed, and pulls the body "
        "through the plugins. When a plugin then refuses the body, the application is told "
        "that its client has left. Envoy may not even have connected to it.",
        r"""
reply-request-body-rust: 1 application
+ POST /
+ host: localhost
+ x-forwarded-proto: http
+ no body
+ its client left before it was complete
reply-request-body-go: 1 application
+ POST /
+ host: localhost
+ x-forwarded-proto: http
+ no body
+ its client left before it was complete
reply-request-body-c: 1 application
+ POST /
+ host: localhost
+ x-forwarded-proto: http
+ no body
+ its client left before it was complete
trap-request-body: 1 application
+ POST /
+ host: localhost
+ x-forwarded-proto: http
+ no body
+ its client left before it was complete
""",
    ),
    Decision(
        "starts-are-held-back",
        "The start of a response with a declared length waits for its first body message "
        "where a plugin may change the body. So a reply or a failure in the first body "
        "callback still gets through to the client. In Envoy the start has gone out, and the "
        "connection is cut.",
        r"""
reply-response-body: 1 client
- status 200
+ status 502
+ x-why: no
+ content-length: 6
+ body: denied
+ complete
- content-length: 5
- no body
- cut
reply-response-body-c: 1 client
- status 200
+ status 502
+ x-why: no
+ content-length: 6
+ body: denied
+ complete
- content-length: 5
- no body
- cut
trap-response-body: 1 client
- status 200
+ status 503
- content-type: text/plain
- content-length: 5
+ content-length: 0
- cut
+ complete
""",
    ),
    Decision(
        "the-last-part-is-known",
        "A body that came in one message is shown in one call that is the last. Envoy shows "
        "it in one call, and then calls once more with nothing to say that this was all. "
        "Plugins that wait for the end see the same.",
        r"""
body-calls: log
- info: request_body arguments -> 11 false
- info: request_body arguments -> 0 true
+ info: request_body arguments -> 11 true
- info: response_body arguments -> 5 false
- info: response_body arguments -> 0 true
+ info: response_body arguments -> 5 true
action-end-of-request: log
- info: request_body arguments -> 11 false
- info: request_body arguments -> 0 true
+ info: request_body arguments -> 11 true
action-end-of-response: log
- info: response_body arguments -> 5 false
- info: response_body arguments -> 0 true
+ info: response_body arguments -> 5 true
""",
    ),
    Decision(
        "watermark-gathers",
        "StopIterationAndWatermark, a number of the C++ SDK, gathers the body like "
        "StopIterationAndBuffer: the plugin sees all that it has paused, as the specification "
        "says. Envoy holds the parts back but shows each by itself.",
        r"""
action-watermark: log
- info: request_body arguments -> 4 false
+ info: request_body arguments -> 8 false
- info: request_body arguments -> 5 false
+ info: request_body arguments -> 13 false
- info: request_body arguments -> 0 true
+ info: request_body arguments -> 13 true
- info: request_end read request 0 100 ->\x20
+ info: request_end read request 0 100 -> one two three
""",
    ),
    Decision(
        "an-empty-path-is-not-found",
        "A property path without a segment is NOT_FOUND. Envoy answers "
        "SERIALIZATION_FAILURE, and the Rust SDK panics on that.",
        r"""
properties-unknown: log
- info: request_headers property "" -> 3
+ info: request_headers property "" -> 1
""",
    ),
    Decision(
        "bodies-are-changed-anywhere",
        "Bytes can be put into the middle of a body, as the specification says. Envoy takes "
        "changes at the start, at the end and of the whole, and answers BAD_ARGUMENT to "
        "others.",
        r"""
body-inject-in-the-middle: 1 application
- body: hello world
+ body: hello-world
body-inject-in-the-middle: log
- info: request_end write request 5 1 - -> 2
+ info: request_end write request 5 1 - -> 0
""",
    ),
    Decision(
        "callouts-add-no-headers",
        "The response to a call-out has the headers that were sent. Envoy adds "
        "`x-envoy-upstream-service-time`, which counts.",
        r"""
call-then-resume: log
- info: call arguments -> 4 50 0
+ info: call arguments -> 3 50 0
call-c: log
- info: call arguments -> 4 50 0
+ info: call arguments -> 3 50 0
""",
    ),
    Decision(
        "cut-callouts-are-503",
        "A call-out whose response was cut short has `:status` 503 and a text, like one that "
        "was refused. Envoy calls back without headers, and a plugin in Rust that then reads "
        "`:status` panics.",
        r"""
call-cut: log
- info: call arguments -> 0 0 0
+ info: call arguments -> 3 95 0
""",
    ),
    Decision(
        "nothing-hangs",
        "A plugin that fails while it handles the response of a call-out fails the request "
        "that waits for it, at once. In Envoy the request waits for ever.",
        r"""
trap-call: 1 client
- status 0
+ status 503
+ content-length: 0
- timed out
+ complete
""",
    ),
    Decision(
        "one-configuration-each",
        "A plugin is configured once for each of its instances, and starts with one. Envoy "
        "makes one to try the configuration, one for its main thread and one for each worker.",
        r"""
shared-from-configure: log
- info: configure sharedset k start any -> 0
- info: configure sharedset k start any -> 0
log-every-phase: log
- info: configure
- info: configure
""",
    ),
    Decision(
        "no-server-name-without-tls",
        "`connection.requested_server_name` is not there without TLS. Envoy answers with an "
        "empty text.",
        r"""
properties-tls: log
- info: request_headers property connection.requested_server_name ->\x20
+ info: request_headers property connection.requested_server_name -> 1
""",
    ),
    Decision(
        "properties-keep-their-path",
        "A property that was set under a path of several segments is found under the same "
        "path. Envoy does not find it again.",
        r"""
properties-set-path: log
- info: request_headers property mine.deep -> (none)
+ info: request_headers property mine.deep -> one
""",
    ),
    Decision(
        "lines-stay-together",
        "The second and further lines of one message are indented in the log, so that they "
        "can't pass for messages of their own.",
        r"""
bytes-get-as-text: log
- critical: panicked at crates/proxy-wasm-0.2.5/src/hostcalls.rs:260:26:\ncalled `Result::unwrap()` on an `Err` value: FromUtf8Error { bytes: [99, 97, 102, 233, 32, 255], error: Utf8Error { valid_up_to: 3, error_len: Some(1) } }
+ critical: panicked at crates/proxy-wasm-0.2.5/src/hostcalls.rs:260:26:\n    called `Result::unwrap()` on an `Err` value: FromUtf8Error { bytes: [99, 97, 102, 233, 32, 255], error: Utf8Error { valid_up_to: 3, error_len: Some(1) } }
trap-request-headers: log
- critical: panicked at src/lib.rs:295:17:\nthe script says trap
+ critical: panicked at src/lib.rs:295:17:\n    the script says trap
trap-request-body: log
- critical: panicked at src/lib.rs:295:17:\nthe script says trap
+ critical: panicked at src/lib.rs:295:17:\n    the script says trap
trap-response-headers: log
- critical: panicked at src/lib.rs:295:17:\nthe script says trap
+ critical: panicked at src/lib.rs:295:17:\n    the script says trap
trap-response-body: log
- critical: panicked at src/lib.rs:295:17:\nthe script says trap
+ critical: panicked at src/lib.rs:295:17:\n    the script says trap
trap-log: log
- critical: panicked at src/lib.rs:295:17:\nthe script says trap
+ critical: panicked at src/lib.rs:295:17:\n    the script says trap
trap-call: log
- critical: panicked at src/lib.rs:295:17:\nthe script says trap
+ critical: panicked at src/lib.rs:295:17:\n    the script says trap
trap-request-body-later: log
- critical: panicked at src/lib.rs:295:17:\nthe script says trap
+ critical: panicked at src/lib.rs:295:17:\n    the script says trap
trap-after-reply: log
- critical: panicked at src/lib.rs:295:17:\nthe script says trap
+ critical: panicked at src/lib.rs:295:17:\n    the script says trap
""",  # noqa: E501
    ),
    Decision(
        "exceptions-pass-by",
        "When the application raises an exception, the server or an outer middleware makes "
        "the 500 of it, and plugins don't see that response. For Envoy it is a response like "
        "any other.",
        r"""
end-application-fails-at-once: log
- info: response_headers get response :status -> 500
""",
    ),
    Decision(
        "failures-cost-one-request",
        "After a trap the plugin's instance is replaced, and the next request is served. "
        "Envoy answers 503 to every request from then on, unless it is told to reload.",
        r"""
trap-then-next-request: 1 application
+ GET /
+ host: localhost
+ x-forwarded-proto: http
+ no body
+ complete
trap-then-next-request: 2 client
- status 503
+ status 200
+ content-type: text/plain
- content-length: 0
+ content-length: 5
- no body
+ body: hello
trap-then-next-request: log
- critical: panicked at src/lib.rs:295:17:\nthe script says trap
+ critical: panicked at src/lib.rs:295:17:\n    the script says trap
+ info: fine
+ info: (over)
trap-then-next-request-c: 1 application
+ GET /
+ host: localhost
+ x-forwarded-proto: http
+ no body
+ complete
trap-then-next-request-c: 2 client
- status 503
+ status 200
+ content-type: text/plain
- content-length: 0
+ content-length: 5
- no body
+ body: hello
trap-then-next-request-c: log
+ info: fine
+ info: (over)
""",
    ),
    Decision(
        "exit-is-a-failure",
        "A plugin that ends itself (`proc_exit`) has failed, and its instance is replaced. "
        "Envoy logs the call and lets the plugin go on.",
        r"""
trap-go: 1 application
- GET /
- host: localhost
- x-forwarded-proto: http
- no body
- complete
trap-go: 1 client
- status 200
+ status 503
- content-type: text/plain
- content-length: 5
+ content-length: 0
- body: hello
+ no body
trap-go: log
- info: (over)
""",
    ),
    Decision(
        "bodies-nobody-reads",
        "A request's body passes the plugins when the application reads it. One that it does not "
        "read, they don't see, and can't refuse: nothing has acted on it. The request's headers "
        "they have seen before. In Envoy every body passes, whatever becomes of it.",
        r"""
body-unread-refused: 1 application
+ POST /
+ host: localhost
+ x-forwarded-proto: http
+ no body
+ not read
body-unread-refused: 1 client
- status 403
+ status 200
- x-why: no
- content-length: 6
- body: denied
+ content-length: 5
+ body: hello
body-unread-seen: log
- info: request_body arguments -> 11 false
- info: request_body arguments -> 0 true
""",
    ),
)
