"""The host core: the Proxy-Wasm ABI, sans-I/O.

Nothing here knows a socket, a loop, a clock or an engine. A guest's calls are answered from memory
(headers, buffers, properties), through a port (shared data, metrics, clock, entropy), or noted as
an intent that the shell carries out once the guest has returned (a local reply, a resume).

Read `vm` for one instance and its contexts, `stream` for one request through a chain of plugins,
`flow` for one direction of it, and `hostcalls` for what guests may call.
"""
