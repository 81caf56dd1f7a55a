"""Every hard cap in one place, each with its reason. Sizes are bytes, times are seconds."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# What one guest may use, unless its plugin says otherwise.

#: Envoy allows 1 GiB; a filter needs a few. Emscripten starts at exactly 16 MiB.
DEFAULT_MEMORY_LIMIT: Final = 16 * MIB
#: A 32-bit memory ends here.
MAX_MEMORY_LIMIT: Final = 4 * GIB
#: A filter takes well under a millisecond; one that spins costs its request, and little more.
DEFAULT_TIMEOUT: Final = 0.050
#: Starting a guest may parse rules or build tables, once, before it serves anybody.
START_TIMEOUT: Final = 10.0
#: As long as Envoy's default stream idle timeout is in most deployments, in tens of seconds.
DEFAULT_PAUSE_TIMEOUT: Final = 30.0
#: Loom's body cap. More than this, paused in memory, is an attack or a missing `phase`.
DEFAULT_BODY_LIMIT: Final = 10 * MIB
#: Function tables grow on the host's heap; the largest Go module seen has 11,000 entries.
MAX_TABLE_ELEMENTS: Final = 1_000_000
#: Toolchains make one table, and one more for references; each has its own elements.
MAX_TABLES: Final = 4
#: Guest stack. wasmtime's own default; deep recursion then traps well inside the thread's 8 MiB.
MAX_WASM_STACK: Final = 512 * KIB
#: What host calls have on top of it where a guest runs on a stack of its own: Python, whatever an
#: application's foreign function or its log handlers call. It is reserved, not used.
HOST_STACK: Final = 4 * MIB
#: How long a guest's allocator may take that a host call has called, of the processor's time: the
#: event loop waits for it. It takes microseconds.
MAX_INNER_TIME: Final = 0.001
#: How long one host call may wait for its result inside of a guest's call: a function of the
#: application's that never returns must not keep a request for ever.
MAX_HOST_WAIT: Final = 30.0

# What one host call may move.

#: proxy-wasm-cpp-host `limits.h`: pairs that a guest hands over.
MAX_PAIRS_BYTES: Final = MIB
MAX_PAIRS: Final = 1024
#: Header names that are known to be names are kept in a cache. Servers take 8 KiB for a line.
MAX_HEADER_NAME_BYTES: Final = 4 * KIB
#: As much as any server takes for all headers of a request.
MAX_HEADER_VALUE_BYTES: Final = 64 * KIB
#: One map, however many calls a guest fills it by; four times that. What the other side sent may
#: be larger, and stays.
MAX_HEADERS_BYTES: Final = 256 * KIB
#: A key of shared data, the name of a queue.
MAX_KEY_BYTES: Final = 64 * KIB
#: `grpc-message` of a local reply, before it is percent-encoded.
MAX_GRPC_MESSAGE_BYTES: Final = 4 * KIB
#: One log line; the rest is cut off, and said so.
MAX_LOG_BYTES: Final = 16 * KIB
#: Lines of one plugin within a second, the host's about it among them. A line takes 10 to 20 us,
#: so that this many take some percent of a processor; a guest could write 50,000.
DEFAULT_LOG_RATE: Final = 1_000
MAX_LOG_RATE: Final = 1_000_000
#: One value, and one header map, in a line of the explain log: enough to know which one it was.
MAX_TRACED_BYTES: Final = 200
MAX_TRACED_PAIRS: Final = 20
#: proxy-wasm-cpp-host `random_get`; more is EINVAL.
MAX_RANDOM_BYTES: Final = 64 * KIB
#: A path is a few words; a longer one is never answered.
MAX_PROPERTY_PATH_BYTES: Final = 4 * KIB
#: The name of a foreign function.
MAX_FOREIGN_NAME_BYTES: Final = KIB
#: What it is given and what it gives: as large as a body. Compressed zeros grow a thousandfold.
MAX_FOREIGN_ARGUMENTS_BYTES: Final = 10 * MIB
MAX_FOREIGN_RESULT_BYTES: Final = 10 * MIB
#: A key that a guest signs or verifies with; RSA of 8,192 bits takes 6.4 KB in PEM. Larger ones
#: take seconds to check.
MAX_CRYPTO_KEY_BYTES: Final = 8 * KIB
#: Private keys that are kept, so that each is checked once.
MAX_CRYPTO_KEYS: Final = 16
#: A body that a guest answers with by itself.
MAX_LOCAL_RESPONSE_BYTES: Final = 10 * MIB

# What a guest may have under way.

#: Calls to upstreams that one instance waits for; each holds its request in memory.
MAX_PENDING_CALLS: Final = 10_000
#: The body of such a call.
MAX_CALL_BODY_BYTES: Final = 10 * MIB
#: How long an upstream may take, where neither the call nor the upstream's entry says; and the most
#: that a call may ask for, whose place among those under way nobody else gets meanwhile.
DEFAULT_CALL_TIMEOUT: Final = 5.0
MAX_CALL_TIMEOUT: Final = 3600.0
#: Calls to one upstream at a time: Envoy's `max_requests` of a circuit breaker. Each has a
#: connection, and where a process has fewer files than that, those that get none are answered 503.
DEFAULT_CALLS_IN_FLIGHT: Final = 1024
MAX_CALLS_IN_FLIGHT: Final = 10_000
#: The body of an answer: an instance has to have room for it.
DEFAULT_CALL_RESPONSE_BYTES: Final = MIB
#: A gRPC message, either way: what gRPC itself takes by default.
MAX_GRPC_CALL_BYTES: Final = 4 * MIB
#: Messages of one gRPC stream that its upstream has not taken yet.
MAX_GRPC_QUEUED_BYTES: Final = 16 * MIB
#: Messages of a connection that a plugin pauses; one without content takes room too.
MAX_GATHERED_MESSAGES: Final = 10_000
#: Ticks more often than this would leave the event loop no time for requests.
MIN_TICK_PERIOD: Final = 0.010
#: What a root context may have left to do when its plugin is unloaded (`proxy_done`).
DONE_TIMEOUT: Final = 5.0
#: How long what was cancelled may take to end when a service stops: it may be sending to a client
#: that does not read. Servers and what supervises them kill a process after some 10 to 30 s.
END_TIMEOUT: Final = 5.0

# How many instances a plugin has, and how they are replaced.

#: A paused or waiting request holds none, only a suspended call does: few need more.
DEFAULT_INSTANCES: Final = 8
#: Each has 4 GiB of addresses, of the 128 TiB that a process has.
MAX_INSTANCES: Final = 1_000
#: Requests that wait until an instance of one plugin is free, and for how long. Those behind would
#: be answered when their clients have given up.
MAX_INSTANCE_WAITERS: Final = 1_000
MAX_INSTANCE_WAIT: Final = 5.0
#: How long an instance beyond `min` is kept that nobody uses: the next rush may come at once.
INSTANCE_IDLE: Final = 60.0
#: Seconds between two starts of what fails again and again: at first, and at most (Envoy's
#: `reload_config` begins with as many).
FIRST_RESTART: Final = 1.0
LAST_RESTART: Final = 60.0
#: An instance that has lived for so long was of use, whoever it served.
SOUND_AFTER: Final = 10.0
#: So many failed starts in a row take some minutes; there is no reason to hope any more.
MAX_FAILED_STARTS: Final = 10

# What all guests of one vm_id or one plugin share.

#: Keys are never evicted, as in Envoy; so their number and size have an end.
MAX_SHARED_DATA_KEYS: Final = 100_000
MAX_SHARED_DATA_BYTES: Final = 64 * MIB
#: Guests may define metrics at run time, even by user name: each is kept for ever.
MAX_METRICS_PER_PLUGIN: Final = 1_000
MAX_METRIC_NAME_BYTES: Final = 512
#: What a stream's plugins may hand to each other through `proxy_set_property`.
MAX_STREAM_PROPERTIES_BYTES: Final = MIB
#: All of them are looked at when one is set.
MAX_STREAM_PROPERTIES: Final = 1_000
#: Queues and the messages waiting in each; a message without content takes room too.
MAX_QUEUES: Final = 1_000
MAX_QUEUE_BYTES: Final = 16 * MIB
QUEUE_MESSAGE_OVERHEAD: Final = 64

# What the host reads before it knows what it reads.

#: A module file; the largest real filter seen (Coraza with its rules) has 14 MB.
MAX_MODULE_BYTES: Final = 64 * MIB
#: What a module exports; plugins have some 40. wasmtime lists them in a time that grows by the
#: square: 25 ms for 1,000 and ten seconds for 20,000, at each instance, in the event loop.
MAX_EXPORTS: Final = 1_000
#: What it imports; plugins have some 60. Each is linked anew for each instance, in the event loop:
#: 1,000 take 20 ms.
MAX_IMPORTS: Final = 1_000
#: What is read of a module in Python before it is compiled: types, imports, functions, exports
#: and their values. The largest Go module seen has some 30,000; this many take a second or two.
MAX_MODULE_ITEMS: Final = 200_000
#: Compiling a module that nobody vouches for, in a process of its own: seconds, and the address
#: space of that process. 3.5 MB of Go take some 2 s and 150 MiB; 22 KB that mean harm, minutes.
MAX_COMPILE_TIME: Final = 60
MAX_COMPILE_MEMORY: Final = 2 * GIB
#: A configuration file, and the nesting in it.
MAX_CONFIG_BYTES: Final = 4 * MIB
#: Names in a module that end up in messages are cut here.
MAX_NAME_IN_MESSAGE: Final = 200
