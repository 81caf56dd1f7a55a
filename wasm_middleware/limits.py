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

# What one host call may move.

#: proxy-wasm-cpp-host `limits.h`: pairs that a guest hands over.
MAX_PAIRS_BYTES: Final = MIB
MAX_PAIRS: Final = 1024
#: Header names that are known to be names are kept in a cache. Servers take 8 KiB for a line.
MAX_HEADER_NAME_BYTES: Final = 4 * KIB
#: As much as any server takes for all headers of a request.
MAX_HEADER_VALUE_BYTES: Final = 64 * KIB
#: A key of shared data, the name of a queue.
MAX_KEY_BYTES: Final = 64 * KIB
#: `grpc-message` of a local reply, before it is percent-encoded.
MAX_GRPC_MESSAGE_BYTES: Final = 4 * KIB
#: One log line; the rest is cut off, and said so.
MAX_LOG_BYTES: Final = 16 * KIB
#: proxy-wasm-cpp-host `random_get`; more is EINVAL.
MAX_RANDOM_BYTES: Final = 64 * KIB
#: A path is a few words; a longer one is never answered.
MAX_PROPERTY_PATH_BYTES: Final = 4 * KIB
#: A body that a guest answers with by itself.
MAX_LOCAL_RESPONSE_BYTES: Final = 10 * MIB

# What all guests of one vm_id or one plugin share.

#: Keys are never evicted, as in Envoy; so their number and size have an end.
MAX_SHARED_DATA_KEYS: Final = 100_000
MAX_SHARED_DATA_BYTES: Final = 64 * MIB
#: Guests may define metrics at run time, even by user name: each is kept for ever.
MAX_METRICS_PER_PLUGIN: Final = 1_000
MAX_METRIC_NAME_BYTES: Final = 512
#: What a stream's plugins may hand to each other through `proxy_set_property`.
MAX_STREAM_PROPERTIES_BYTES: Final = MIB
#: Queues and the messages waiting in each; a message without content takes room too.
MAX_QUEUES: Final = 1_000
MAX_QUEUE_BYTES: Final = 16 * MIB
QUEUE_MESSAGE_OVERHEAD: Final = 64

# What the host reads before it knows what it reads.

#: A module file; the largest real filter seen (Coraza with its rules) has 14 MB.
MAX_MODULE_BYTES: Final = 64 * MIB
#: A configuration file, and the nesting in it.
MAX_CONFIG_BYTES: Final = 4 * MIB
#: Names in a module that end up in messages are cut here.
MAX_NAME_IN_MESSAGE: Final = 200
