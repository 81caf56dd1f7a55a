"""The table: what goes through Envoy and through us.

The scripts are of a small language that each plugin, `differ-*` and `go-every`, interprets in its
own SDK's calls.
A line is `PHASE: OPERATION WORDS...; OPERATION WORDS...`; in a word, `%XX` is a byte, `""` is
nothing and `*N` is N times `x`.

Phases are `configure`, `request_headers`, `request_body` (each call), `request_more` (each but the
last), `request_end` (the last), the same of the response, `call` (a call-out's response), `log`.

    arguments                         say what the callback was called with
    get MAP NAME, gettext MAP NAME    say the first value (in Rust as bytes, or as text)
    pairs MAP                         say all; MAP is request, response or call
    add|replace MAP NAME VALUE        remove MAP NAME, setpairs MAP NAME=VALUE...
    read BUFFER START SIZE            say a part of a body; BUFFER is request, response or call
    write BUFFER START SIZE DATA      keep BUFFER SIZE: put its first bytes in the place of all
    reply STATUS BODY NAME=VALUE...   pause, resume request|response, action NUMBER (in C)
    httpcall UPSTREAM PATH BODY MILLISECONDS
    property PATH, setproperty PATH VALUE
    sharedget KEY, sharedset KEY VALUE any|last|stale     `last`: the number of the last `sharedget`
    log LEVEL TEXT                    trap, trap NAME: only if the request has that header

What says something logs its phase and itself, `->` and the result. In C each operation says its
status.
"""

from __future__ import annotations

from typing import Final

from tests.e2e.envoy.sent import (
    ANSWER_TWO,
    CASED,
    CHUNKS,
    COOKIES,
    DATED,
    EMPTY,
    GO_THEN_NOT,
    HEADER_EMPTY,
    HIGH,
    ONE,
    PLAIN,
    POST,
    QUERY,
    STREAM,
    TWO,
    UNREAD,
)
from tests.e2e.envoy.shapes import Answer, Case, Plugin, Request

RUST: Final[Plugin] = "differ-rust"
GO: Final[Plugin] = "go-every"
AS: Final[Plugin] = "differ-as"
C: Final[Plugin] = "differ-c"


# fmt: off
CASES: Final = (
    # header get
    Case("get-first-of-two", "header get", RUST,
         "request_headers: get request x-a; gettext request x-b", (TWO,)),
    Case("get-missing", "header get", RUST, "request_headers: get request x-none", (PLAIN,)),
    Case("get-ignores-case", "header get", RUST,
         "request_headers: get request X-UPPER; get request x-upper", (CASED,)),
    Case("get-host-is-authority", "header get", RUST,
         "request_headers: get request host; get request :authority", (PLAIN,)),
    Case("get-pseudo", "header get", RUST,
         "request_headers: get request :method; get request :path; get request :scheme", (QUERY,)),
    Case("get-all", "header get", RUST, "request_headers: arguments; pairs request", (TWO,)),
    Case("get-all-of-response", "header get", RUST,
         "response_headers: arguments; pairs response; get response x-a", (ANSWER_TWO,)),
    Case("get-request-in-response", "header get", RUST,
         "response_headers: get request x-a", (ONE,)),
    Case("get-request-in-response-status", "header get", C,
         "response_headers: get request x-a; pairs request", (ONE,)),
    Case("get-response-in-request", "header get", C,
         "request_headers: get response x-a; pairs response", (ONE,)),
    Case("get-in-log", "header get", RUST,
         "log: get request x-a; get response :status; pairs response", (DATED,)),
    Case("get-go", "header get", GO,
         "request_headers: get request x-a; get request x-none; pairs request", (TWO,)),
    Case("get-as", "header get", AS,
         "request_headers: get request x-a; get request x-none; pairs request", (TWO,)),
    Case("get-c", "header get", C,
         "request_headers: get request x-a; get request x-none; pairs request", (TWO,)),
    # header add
    Case("add-new", "header add", RUST,
         "request_headers: add request x-new 1; pairs request", (PLAIN,)),
    Case("add-second", "header add", RUST,
         "request_headers: add request x-a 3; get request x-a; pairs request", (ONE,)),
    Case("add-ignores-case", "header add", RUST,
         "request_headers: add request X-New One; pairs request", (CASED,)),
    Case("add-to-response", "header add", RUST,
         "response_headers: add response x-a 3; add response X-New 1; pairs response",
         (ANSWER_TWO,)),
    Case("add-go", "header add", GO,
         "request_headers: add request x-a 2\n"
         "response_headers: add response x-a 3", (ONE,)),
    Case("add-as", "header add", AS,
         "request_headers: add request x-a 2\n"
         "response_headers: add response x-a 3", (ONE,)),
    Case("add-c-cookies", "header add", C,
         "response_headers: add response set-cookie c=3; pairs response", (COOKIES,)),
    Case("add-c-bad-name", "header add", C,
         "request_headers: add request x%20y 1; pairs request", (PLAIN,)),
    Case("add-c-line-break", "header add", C,
         "request_headers: add request x-y 1%0d%0ax-z:%202; pairs request", (PLAIN,)),
    # header replace
    Case("replace-one", "header replace", RUST,
         "request_headers: replace request x-a 9; pairs request", (ONE,)),
    Case("replace-two-by-one", "header replace", RUST,
         "request_headers: replace request x-a 9; pairs request", (TWO,)),
    Case("replace-missing", "header replace", RUST,
         "request_headers: replace request x-new 9; pairs request", (ONE,)),
    Case("replace-ignores-case", "header replace", RUST,
         "request_headers: replace request X-UPPER Three; pairs request", (CASED,)),
    Case("replace-in-response", "header replace", RUST,
         "response_headers: replace response x-a 9; replace response x-new 1; pairs response",
         (ANSWER_TWO,)),
    Case("replace-go", "header replace", GO,
         "request_headers: replace request x-a 9\n"
         "response_headers: replace response x-a 9", (TWO,)),
    Case("replace-as", "header replace", AS,
         "request_headers: replace request x-a 9\n"
         "response_headers: replace response content-type text/html", (TWO,)),
    Case("replace-c", "header replace", C,
         "request_headers: replace request x-a 9\n"
         "response_headers: replace response X-Upper low; pairs response", (ANSWER_TWO,)),
    Case("replace-c-content-length", "header replace", C,
         "response_headers: replace response content-length 3; pairs response", (PLAIN,)),
    Case("replace-all", "header replace", RUST,
         "request_headers: setpairs request :method=GET :path=/new :authority=localhost "
         ":scheme=http x-forwarded-proto=http x-c=3; pairs request", (TWO,)),
    Case("replace-all-of-response", "header replace", RUST,
         "response_headers: setpairs response :status=202 x-c=3 x-c=4; pairs response",
         (ANSWER_TWO,)),
    # header remove
    Case("remove-one", "header remove", RUST,
         "request_headers: remove request x-b; pairs request", (TWO,)),
    Case("remove-all-of-a-name", "header remove", RUST,
         "request_headers: remove request x-a; pairs request", (TWO,)),
    Case("remove-missing", "header remove", RUST,
         "request_headers: remove request x-none; pairs request", (TWO,)),
    Case("remove-ignores-case", "header remove", RUST,
         "request_headers: remove request X-UPPER; pairs request", (CASED,)),
    Case("remove-from-response", "header remove", RUST,
         "response_headers: remove response x-a; remove response x-upper", (ANSWER_TWO,)),
    Case("remove-content-length", "header remove", RUST,
         "response_headers: remove response content-length; pairs response", (PLAIN,)),
    Case("remove-then-add", "header remove", C,
         "request_headers: remove request x-a; add request x-a 7; pairs request", (TWO,)),
    Case("remove-go", "header remove", GO,
         "request_headers: remove request x-a\n"
         "response_headers: remove response content-type", (TWO,)),
    Case("remove-as", "header remove", AS,
         "request_headers: remove request x-a\n"
         "response_headers: remove response content-type", (TWO,)),
    # pseudo-headers
    Case("path", "pseudo-headers", RUST,
         "request_headers: replace request :path /new%3Fq=1; get request :path", (QUERY,)),
    Case("path-with-escapes", "pseudo-headers", RUST,
         "request_headers: replace request :path /a%2520b/%2563?z=%2526; get request :path",
         (QUERY,)),
    Case("path-add", "pseudo-headers", RUST,
         "request_headers: add request :path /new; get request :path", (Request(path="/t"),)),
    Case("method", "pseudo-headers", RUST,
         "request_headers: replace request :method PUT; get request :method", (PLAIN,)),
    Case("authority", "pseudo-headers", RUST,
         "request_headers: replace request :authority example.org:8080; get request host; "
         "pairs request", (PLAIN,)),
    Case("host", "pseudo-headers", RUST,
         "request_headers: replace request host example.org; get request :authority; "
         "pairs request", (PLAIN,)),
    Case("host-add", "pseudo-headers", C,
         "request_headers: add request host example.org; pairs request", (PLAIN,)),
    Case("scheme", "pseudo-headers", RUST,
         "request_headers: replace request :scheme https; pairs request", (PLAIN,)),
    Case("status", "pseudo-headers", RUST,
         "response_headers: get response :status; replace response :status 418", (PLAIN,)),
    Case("status-out-of-range", "pseudo-headers", RUST,
         "response_headers: replace response :status 1000", (PLAIN,)),
    Case("status-no-number", "pseudo-headers", RUST,
         "response_headers: replace response :status abc", (PLAIN,)),
    Case("unknown-pseudo", "pseudo-headers", C,
         "request_headers: replace request :unknown 1; get request :unknown", (PLAIN,)),
    Case("replace-all-without-pseudo", "pseudo-headers", RUST,
         "request_headers: setpairs request x-forwarded-proto=http x-c=3; pairs request", (TWO,)),
    Case("remove-path", "pseudo-headers", C,
         "request_headers: remove request :path; get request :path", (PLAIN,)),
    Case("path-go", "pseudo-headers", GO,
         "request_headers: replace request :path /go; get request :path\n"
         "response_headers: replace response :status 201", (PLAIN,)),
    Case("path-as", "pseudo-headers", AS,
         "request_headers: replace request :path /as; get request :path\n"
         "response_headers: replace response :status 201", (PLAIN,)),
    # missing and empty values
    Case("empty-header", "missing and empty values", RUST,
         "request_headers: get request x-empty; pairs request\n"
         "response_headers: get response x-none", (HEADER_EMPTY,)),
    Case("empty-header-c", "missing and empty values", C,
         "request_headers: get request x-empty; get request x-missing", (HEADER_EMPTY,)),
    Case("empty-header-go", "missing and empty values", GO,
         "request_headers: get request x-empty; get request x-missing", (HEADER_EMPTY,)),
    Case("empty-header-as", "missing and empty values", AS,
         "request_headers: get request x-empty; get request x-missing", (HEADER_EMPTY,)),
    Case("add-empty", "missing and empty values", RUST,
         'request_headers: add request x-new ""\n'
         'response_headers: replace response content-type ""; get response content-type', (PLAIN,)),
    Case("empty-name", "missing and empty values", C,
         'request_headers: get request ""; add request "" 1; remove request ""', (PLAIN,)),
    Case("empty-body", "missing and empty values", C,
         "request_headers: arguments; read request 0 10\n"
         "response_headers: arguments\n"
         "response_body: arguments; read response 0 10", (EMPTY,)),
    Case("empty-pairs", "missing and empty values", C,
         "response_headers: setpairs response; pairs response", (ANSWER_TWO,)),
    Case("empty-shared-value", "missing and empty values", C,
         'request_headers: sharedget k; sharedset k "" any; sharedget k', (PLAIN,)),
    # local replies
    Case("reply-request-headers-rust", "local replies", RUST,
         "request_headers: reply 403 denied x-why=no x-why=never; pause\n"
         "response_headers: pairs response; add response x-seen 1", (PLAIN,)),
    Case("reply-response-headers-rust", "local replies", RUST,
         "response_headers: reply 502 denied x-why=no; pause", (PLAIN,)),
    Case("reply-request-headers-go", "local replies", GO,
         "request_headers: reply 403 denied x-why=no x-why=never; pause\n"
         "response_headers: pairs response; add response x-seen 1", (PLAIN,)),
    Case("reply-response-headers-go", "local replies", GO,
         "response_headers: reply 502 denied x-why=no; pause", (PLAIN,)),
    Case("reply-request-headers-as", "local replies", AS,
         "request_headers: reply 403 denied x-why=no x-why=never; pause\n"
         "response_headers: pairs response; add response x-seen 1", (PLAIN,)),
    Case("reply-response-headers-as", "local replies", AS,
         "response_headers: reply 502 denied x-why=no; pause", (PLAIN,)),
    Case("reply-request-headers-c", "local replies", C,
         "request_headers: reply 403 denied x-why=no x-why=never; pause\n"
         "response_headers: pairs response; add response x-seen 1", (PLAIN,)),
    Case("reply-response-headers-c", "local replies", C,
         "response_headers: reply 502 denied x-why=no; pause", (PLAIN,)),
    Case("reply-request-body-rust", "local replies", RUST,
         "request_body: reply 403 denied x-why=no; pause", (POST,)),
    Case("reply-request-body-go", "local replies", GO,
         "request_body: reply 403 denied x-why=no; pause", (POST,)),
    Case("reply-request-body-c", "local replies", C,
         "request_body: reply 403 denied x-why=no; pause", (POST,)),
    Case("reply-request-body-chunks", "local replies", RUST,
         "request_body: arguments; pause\n"
         "request_end: reply 413 denied", (CHUNKS,)),
    Case("reply-response-body", "local replies", RUST,
         "response_body: reply 502 denied x-why=no; pause", (PLAIN,)),
    Case("reply-response-body-c", "local replies", C,
         "response_body: reply 502 denied x-why=no; pause", (PLAIN,)),
    Case("reply-response-body-chunks", "local replies", RUST,
         "response_body: arguments\n"
         "response_end: reply 502 denied", (STREAM,)),
    Case("reply-and-continue", "local replies", RUST,
         "request_headers: reply 403 denied", (PLAIN,)),
    Case("reply-twice", "local replies", C,
         "request_headers: reply 403 first; reply 404 second; pause", (PLAIN,)),
    Case("reply-without-body", "local replies", RUST,
         'request_headers: reply 204 ""; pause', (PLAIN,)),
    Case("reply-empty-200", "local replies", RUST,
         'request_headers: reply 200 ""; pause', (PLAIN,)),
    Case("reply-content-type", "local replies", RUST,
         "request_headers: reply 200 {} content-type=application/json; pause", (PLAIN,)),
    Case("reply-content-length", "local replies", C,
         "request_headers: reply 200 hello content-length=3; pause", (PLAIN,)),
    Case("reply-head", "local replies", RUST,
         "request_headers: reply 403 denied; pause", (Request(method="HEAD"),)),
    Case("reply-status-1000", "local replies", C,
         "request_headers: reply 1000 denied; pause", (PLAIN,)),
    Case("reply-body-is-seen", "local replies", RUST,
         "request_headers: reply 403 denied; pause\n"
         "response_end: read response 0 100; write response 0 100 changed", (PLAIN,)),
    Case("reply-details", "local replies", RUST,
         "request_headers: reply 403 denied; pause\n"
         "log: property response.code; property response.code_details", (PLAIN,)),
    # bodies in one chunk
    Case("body-read", "bodies in one chunk", RUST,
         "request_more: pause\n"
         "request_end: read request 0 100\n"
         "response_more: pause\n"
         "response_end: read response 1 3", (POST,)),
    Case("body-replace", "bodies in one chunk", RUST,
         "request_more: pause\n"
         "request_end: write request 0 1000 new", (POST,)),
    Case("body-replace-longer", "bodies in one chunk", RUST,
         "request_more: pause\n"
         "request_headers: remove request content-length\n"
         "request_end: write request 0 1000 this%20is%20longer%20than%20before", (POST,)),
    Case("body-append", "bodies in one chunk", RUST,
         "request_more: pause\n"
         "request_headers: remove request content-length\n"
         "request_end: write request 1000 0 !", (POST,)),
    Case("body-prepend", "bodies in one chunk", RUST,
         "request_more: pause\n"
         "request_headers: remove request content-length\n"
         "request_end: write request 0 0 !", (POST,)),
    Case("body-truncate", "bodies in one chunk", RUST,
         "request_more: pause\n"
         "request_headers: remove request content-length\n"
         "request_end: keep request 5", (POST,)),
    Case("body-inject-in-the-middle", "bodies in one chunk", C,
         "request_more: pause\n"
         "request_headers: remove request content-length\n"
         "request_end: write request 5 1 -", (POST,)),
    Case("body-remove", "bodies in one chunk", C,
         "request_more: pause\n"
         "request_headers: remove request content-length\n"
         'request_end: write request 0 1000 ""', (POST,)),
    Case("body-read-beyond", "bodies in one chunk", C,
         "request_more: pause\n"
         "request_end: read request 5 1000; read request 100 10; read request 11 1", (POST,)),
    Case("body-of-response-replace", "bodies in one chunk", RUST,
         "response_headers: remove response content-length\n"
         "response_more: pause\n"
         "response_end: write response 0 1000 new%20text", (PLAIN,)),
    Case("body-of-response-keeps-length", "bodies in one chunk", RUST,
         "response_more: pause\n"
         "response_end: write response 0 1000 hi", (PLAIN,)),
    Case("body-go", "bodies in one chunk", GO,
         "request_headers: remove request content-length\n"
         "request_more: pause\n"
         "request_end: write request 1000 0 !\n"
         "response_headers: remove response content-length\n"
         "response_more: pause\n"
         "response_end: write response 0 0 >", (POST,)),
    Case("body-as", "bodies in one chunk", AS,
         "request_headers: remove request content-length\n"
         "request_more: pause\n"
         "request_end: write request 0 1000 new\n"
         "response_headers: remove response content-length\n"
         "response_more: pause\n"
         "response_end: keep response 2", (POST,)),
    Case("body-calls", "bodies in one chunk", RUST,
         "request_headers: arguments\n"
         "request_body: arguments\n"
         "response_headers: arguments\n"
         "response_body: arguments", (POST,)),
    # bodies in many chunks
    Case("chunks-read", "bodies in many chunks", RUST,
         "request_body: arguments; read request 0 100", (CHUNKS,)),
    Case("chunks-replace-each", "bodies in many chunks", RUST,
         "request_body: arguments\n"
         "request_more: write request 0 100 new", (CHUNKS,)),
    Case("chunks-append-each", "bodies in many chunks", RUST,
         "request_body: arguments\n"
         "request_more: write request 1000 0 !", (CHUNKS,)),
    Case("chunks-gather", "bodies in many chunks", RUST,
         "request_body: arguments\n"
         "request_more: pause\n"
         "request_end: read request 0 100; write request 0 100 gathered", (CHUNKS,)),
    Case("chunks-change-while-paused", "bodies in many chunks", RUST,
         "request_body: arguments\n"
         "request_more: write request 0 0 <; pause\n"
         "request_end: read request 0 100", (CHUNKS,)),
    Case("chunks-append-at-end", "bodies in many chunks", C,
         "request_body: arguments\n"
         "request_end: write request 1000 0 end", (CHUNKS,)),
    Case("chunks-of-response", "bodies in many chunks", RUST,
         "response_body: arguments; read response 0 100", (STREAM,)),
    Case("chunks-of-response-prepend", "bodies in many chunks", C,
         "response_body: arguments\n"
         "response_more: write response 0 0 >", (STREAM,)),
    Case("chunks-of-response-gather", "bodies in many chunks", RUST,
         "response_body: arguments\n"
         "response_more: pause\n"
         "response_end: read response 0 100; keep response 5", (STREAM,)),
    Case("chunks-of-response-go", "bodies in many chunks", GO,
         "response_body: arguments\n"
         "response_more: pause\n"
         "response_end: write response 0 100 gathered", (STREAM,)),
    Case("chunks-as", "bodies in many chunks", AS,
         "request_body: arguments\n"
         "request_more: pause\n"
         "request_end: write request 0 100 gathered", (CHUNKS,)),
    # pause and resume with a call-out
    Case("call-then-resume", "pause and resume with a call-out", RUST,
         "request_headers: httpcall upstream /echo ask; pause\n"
         "call: arguments; get call content-type; read call 0 100; resume request", (PLAIN,)),
    Case("call-changes-request", "pause and resume with a call-out", RUST,
         "request_headers: httpcall upstream /echo ask; pause\n"
         "call: get call :status; replace request x-a called; resume request", (ONE,)),
    Case("call-holds-body", "pause and resume with a call-out", RUST,
         "request_headers: httpcall upstream /echo ask; pause\n"
         "request_end: read request 0 100\n"
         "call: resume request", (POST,)),
    Case("call-then-reply", "pause and resume with a call-out", RUST,
         "request_headers: httpcall upstream /echo ask; pause\n"
         "call: reply 401 denied x-why=call", (PLAIN,)),
    Case("call-in-request-body", "pause and resume with a call-out", RUST,
         "request_more: pause\n"
         "request_end: httpcall upstream /echo ask; pause\n"
         "call: read request 0 100; resume request", (POST,)),
    Case("call-in-response", "pause and resume with a call-out", RUST,
         "response_headers: httpcall upstream /echo ask; pause\n"
         "call: get call :status; add response x-called 1; resume response", (PLAIN,)),
    Case("call-unknown-upstream", "pause and resume with a call-out", RUST,
         "request_headers: httpcall nowhere /echo ask", (PLAIN,)),
    Case("call-failed-status", "pause and resume with a call-out", RUST,
         "request_headers: httpcall upstream /500 ask; pause\n"
         "call: get call :status; read call 0 100; resume request", (PLAIN,)),
    Case("call-timeout", "pause and resume with a call-out", RUST,
         "request_headers: httpcall upstream /slow ask 200; pause\n"
         "call: arguments; get call :status; resume request", (PLAIN,)),
    Case("call-refused", "pause and resume with a call-out", RUST,
         "request_headers: httpcall refused /echo ask; pause\n"
         "call: arguments; get call :status; resume request", (PLAIN,)),
    Case("call-cut", "pause and resume with a call-out", RUST,
         "request_headers: httpcall upstream /cut ask; pause\n"
         "call: arguments; resume request", (PLAIN,)),
    Case("call-go", "pause and resume with a call-out", GO,
         "request_headers: httpcall upstream /echo ask; pause\n"
         "call: read call 0 100; replace request x-a called; resume request", (ONE,)),
    Case("call-as", "pause and resume with a call-out", AS,
         "request_headers: httpcall upstream /echo ask; pause\n"
         "call: read call 0 100; resume request", (ONE,)),
    Case("call-c", "pause and resume with a call-out", C,
         "request_headers: httpcall upstream /echo ask; pause\n"
         "call: arguments; get call :status; read call 0 100; resume request", (ONE,)),
    Case("call-reply-go", "pause and resume with a call-out", GO,
         "request_headers: httpcall upstream /echo ask; pause\n"
         "call: reply 401 denied", (PLAIN,)),
    # actions of the C++ SDK
    Case("action-end-of-request", "actions of the C++ SDK", C,
         "request_headers: action 2\n"
         "request_body: arguments", (POST,)),
    Case("action-end-of-response", "actions of the C++ SDK", C,
         "response_headers: action 2\n"
         "response_body: arguments", (PLAIN,)),
    Case("action-stop-all-and-buffer", "actions of the C++ SDK", C,
         "request_headers: httpcall upstream /echo ask; action 3\n"
         "call: resume request\n"
         "request_end: read request 0 100", (POST,)),
    Case("action-stop-all-and-watermark", "actions of the C++ SDK", C,
         "request_headers: httpcall upstream /echo ask; action 4\n"
         "call: resume request\n"
         "request_end: read request 0 100", (POST,)),
    Case("action-drop-parts", "actions of the C++ SDK", C,
         "request_body: arguments\n"
         "request_more: action 3\n"
         "request_end: read request 0 100", (CHUNKS,)),
    Case("action-drop-parts-of-response", "actions of the C++ SDK", C,
         "response_body: arguments\n"
         "response_more: action 3\n"
         "response_end: read response 0 100", (STREAM,)),
    Case("action-watermark", "actions of the C++ SDK", C,
         "request_body: arguments\n"
         "request_more: action 2\n"
         "request_end: read request 0 100", (CHUNKS,)),
    Case("action-unknown", "actions of the C++ SDK", C,
         "request_headers: httpcall upstream /echo ask; action 7\n"
         "call: resume request", (ONE,)),
    # shared data
    Case("shared-sequence-rust", "shared data", RUST,
         "request_headers: sharedget k; sharedset k one any; sharedget k; "
         "sharedset k two last; sharedset k three last; sharedget k", (PLAIN,)),
    Case("shared-sequence-go", "shared data", GO,
         "request_headers: sharedget k; sharedset k one any; sharedget k; "
         "sharedset k two last; sharedset k three last; sharedget k", (PLAIN,)),
    Case("shared-sequence-as", "shared data", AS,
         "request_headers: sharedget k; sharedset k one any; sharedget k; "
         "sharedset k two last; sharedset k three last; sharedget k", (PLAIN,)),
    Case("shared-sequence-c", "shared data", C,
         "request_headers: sharedget k; sharedset k one any; sharedget k; "
         "sharedset k two last; sharedset k three last; sharedget k", (PLAIN,)),
    Case("shared-stale", "shared data", RUST,
         "request_headers: sharedset k one any; sharedget k; sharedset k two stale; "
         "sharedget k", (PLAIN,)),
    Case("shared-number-for-a-missing-key", "shared data", C,
         "request_headers: sharedget k; sharedset k one stale; sharedget k", (PLAIN,)),
    Case("shared-race-of-two", "shared data", RUST,
         "request_headers: sharedget k\n"
         "response_headers: sharedset k mine last\n"
         "log: sharedget k\n"
         "request_headers: sharedset k other any", (PLAIN,)),
    Case("shared-survives-requests", "shared data", RUST,
         "request_headers: sharedget k; sharedset k kept last\n"
         "log: sharedget k", (PLAIN, PLAIN)),
    Case("shared-from-configure", "shared data", C,
         "configure: sharedset k start any\n"
         "request_headers: sharedget k", (PLAIN,)),
    # properties
    Case("properties-of-request", "properties", RUST,
         "request_headers: property request.path; property request.url_path; "
         "property request.query; property request.host; property request.scheme; "
         "property request.method; property request.protocol; property request.referer; "
         "property request.useragent",
         (Request(path="/p?q=1", headers=(("referer", "there"), ("user-agent", "me"))),)),
    Case("properties-of-request-missing", "properties", RUST,
         "request_headers: property request.query; property request.referer; "
         "property request.useragent; property request.id; property request.duration; "
         "property request.nothing", (PLAIN,)),
    Case("properties-headers", "properties", RUST,
         "request_headers: property request.headers.x-a; property request.headers.x-none; "
         "property request.headers.X-A", (TWO,)),
    Case("properties-sizes", "properties", RUST,
         "log: property request.size; property response.size; property response.code", (POST,)),
    Case("properties-of-response", "properties", RUST,
         "request_headers: property response.code\n"
         "response_headers: property response.code; property response.headers.x-b; "
         "property response.code_details", (ANSWER_TWO,)),
    Case("properties-of-plugin", "properties", RUST,
         "request_headers: property plugin_name; property plugin_root_id; "
         "property plugin_vm_id", (PLAIN,)),
    Case("properties-unknown", "properties", C,
         'request_headers: property no.such; property nothing; property ""', (PLAIN,)),
    Case("properties-tls", "properties", C,
         "request_headers: property connection.mtls; property connection.tls_version; "
         "property connection.requested_server_name", (PLAIN,)),
    Case("properties-set", "properties", RUST,
         "request_headers: setproperty mine one; property mine\n"
         "response_headers: property mine", (PLAIN,)),
    Case("properties-set-path", "properties", RUST,
         "request_headers: setproperty mine.deep one; property mine.deep", (PLAIN,)),
    Case("properties-go", "properties", GO,
         "request_headers: property request.path; property request.nothing\n"
         "log: property response.code", (PLAIN,)),
    Case("properties-as", "properties", AS,
         "request_headers: property request.path\n"
         "log: property response.code", (PLAIN,)),
    # large headers
    Case("large-header-in", "large headers", RUST,
         "request_headers: get request x-a", (Request(headers=(("x-a", "v" * 8000),)),)),
    Case("large-header-added", "large headers", RUST,
         "request_headers: add request x-new *16000\n"
         "response_headers: add response x-new *16000", (PLAIN,)),
    Case("large-many-headers", "large headers", RUST,
         "request_headers: arguments; remove request x-7",
         (Request(headers=tuple((f"x-{n}", str(n)) for n in range(60))),)),
    Case("large-header-c", "large headers", C,
         "request_headers: add request x-new *30000; get request x-new", (PLAIN,)),
    Case("large-reply-headers", "large headers", C,
         "request_headers: reply 403 denied x-why=no x-b=%78%78; pause\n"
         "response_headers: add response x-large *30000", (PLAIN,)),
    Case("large-response-header", "large headers", GO,
         "response_headers: get response x-a",
         (Request(answer=Answer(headers=(("x-a", "v" * 8000),))),)),
    # values that are not UTF-8
    Case("bytes-get", "values that are not UTF-8", RUST,
         "request_headers: get request x-a; pairs request\n"
         "response_headers: get response x-b", (HIGH,)),
    Case("bytes-get-as-text", "values that are not UTF-8", RUST,
         "request_headers: gettext request x-a", (HIGH,)),
    Case("bytes-set", "values that are not UTF-8", RUST,
         "request_headers: replace request x-new %ff%fe\n"
         "response_headers: add response x-new %80", (PLAIN,)),
    Case("bytes-c", "values that are not UTF-8", C,
         "request_headers: get request x-a; add request x-a %c3%28\n"
         "response_headers: get response x-b", (HIGH,)),
    Case("bytes-go", "values that are not UTF-8", GO,
         "request_headers: get request x-a\n"
         "response_headers: replace response x-new %ff", (HIGH,)),
    Case("bytes-path", "values that are not UTF-8", C,
         "request_headers: get request :path; property request.path",
         (Request(path="/caf%C3%A9?%ff"),)),
    Case("bytes-body", "values that are not UTF-8", RUST,
         "request_headers: remove request content-length\n"
         "request_more: pause\n"
         "request_end: read request 0 100; write request 1000 0 %00%ff",
         (Request(method="POST", chunks=(b"\x00\xff\xfe",)),)),
    # early end
    Case("end-client-leaves-in-request", "early end", RUST,
         "request_body: arguments\n"
         "log: log info ended",
         (Request(method="POST", chunks=(b"one ", b"two "), leaves="request"),)),
    Case("end-client-leaves-in-response", "early end", RUST,
         "response_body: arguments\n"
         "log: log info ended",
         (Request(answer=Answer(chunks=(b"one ", b"two ")), leaves="response"),)),
    Case("end-client-leaves-while-paused", "early end", C,
         "request_body: arguments\n"
         "request_more: pause\n"
         "log: log info ended",
         (Request(method="POST", chunks=(b"one ", b"two "), leaves="request"),)),
    Case("end-application-fails-at-once", "early end", RUST,
         "response_headers: get response :status\n"
         "log: log info ended", (Request(answer=Answer(status=0, chunks=(), cut=True)),)),
    Case("end-upstream-cuts-in-answer", "early end", RUST,
         "response_body: arguments\n"
         "log: log info ended", (Request(answer=Answer(chunks=(b"one ", b"two "), cut=True)),)),
    Case("end-upstream-cuts-while-held", "early end", RUST,
         "response_body: arguments\n"
         "response_more: pause\n"
         "log: log info ended", (Request(answer=Answer(chunks=(b"one ", b"two "), cut=True)),)),
    # traps
    Case("trap-request-headers", "traps", RUST, "request_headers: trap", (PLAIN,)),
    Case("trap-request-body", "traps", RUST, "request_body: trap", (POST,)),
    Case("trap-response-headers", "traps", RUST, "response_headers: trap", (PLAIN,)),
    Case("trap-response-body", "traps", RUST, "response_body: trap", (PLAIN,)),
    Case("trap-log", "traps", RUST, "log: trap", (PLAIN,)),
    Case("trap-call", "traps", RUST,
         "request_headers: httpcall upstream /echo ask; pause\n"
         "call: trap", (PLAIN,)),
    Case("trap-request-body-later", "traps", RUST,
         "request_body: arguments\n"
         "request_end: trap", (CHUNKS,)),
    Case("trap-response-body-later", "traps", C,
         "response_body: arguments\n"
         "response_end: trap", (STREAM,)),
    Case("trap-then-next-request", "traps", RUST,
         "request_headers: trap x-go; log info fine", GO_THEN_NOT),
    Case("trap-then-next-request-c", "traps", C,
         "request_headers: trap x-go; log info fine", GO_THEN_NOT),
    # In a response's headers as well Envoy makes the 503 of the trap, but then dies of the reply.
    Case("trap-after-reply", "traps", RUST,
         "request_headers: reply 403 denied x-why=no; trap", (PLAIN,)),
    Case("trap-after-reply-c", "traps", C,
         "request_headers: reply 403 denied x-why=no; trap", (PLAIN,)),
    Case("trap-go", "traps", GO, "request_headers: trap", (PLAIN,)),
    Case("trap-as", "traps", AS, "request_headers: trap", (PLAIN,)),
    Case("trap-c", "traps", C, "request_headers: trap", (PLAIN,)),
    # logs
    Case("log-levels", "logs", RUST,
         "request_headers: log trace said; log debug said; log info said; log warn said; "
         "log error said; log critical said", (PLAIN,)),
    Case("log-levels-go", "logs", GO,
         "request_headers: log trace said; log debug said; log info said; log warn said; "
         "log error said; log critical said", (PLAIN,)),
    Case("log-levels-as", "logs", AS,
         "request_headers: log trace said; log debug said; log info said; log warn said; "
         "log error said; log critical said", (PLAIN,)),
    Case("log-odd-text", "logs", C,
         'request_headers: log info ""; log info caf%c3%a9; log info a%20%20b%20', (PLAIN,)),
    Case("log-every-phase", "logs", C,
         "configure: log info configure\n"
         "request_headers: log info 1\n"
         "request_body: log info 2\n"
         "response_headers: log info 3\n"
         "response_end: log info 4\n"
         "log: log info 5", (PLAIN,)),
    # bodies in one chunk: that the application does not read
    Case("body-unread-refused", "bodies in one chunk", RUST,
         "request_body: reply 403 denied x-why=no; pause", (UNREAD,)),
    Case("body-unread-seen", "bodies in one chunk", RUST,
         "request_body: arguments", (UNREAD,)),
)
