"""Engines: what can run a WebAssembly module. They know nothing of Proxy-Wasm."""
