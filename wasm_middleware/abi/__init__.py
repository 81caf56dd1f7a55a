"""The Proxy-Wasm specification as data: what any host and any guest agree on.

Nothing here does anything: numbers (`enums`), signatures (`signatures`), and the two wire formats
(`pairs`, `properties`). Versions 0.1.0, 0.2.0 and 0.2.1 are covered, and the marker 0_2_100 that
one vendor's Go SDK exports, which is 0.2.1 in all but name.
"""
