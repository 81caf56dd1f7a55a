"""The compatibility table: `python -m tests.compatibility` writes docs/compatibility.md.

Theory of operation
-------------------
Everything that the code knows comes from the code: names, types and versions from the tables of
`wasm_middleware.abi`, what is there from `hostcalls.IMPLEMENTED` and from watching which callbacks
a VM looks for, what it does from docstrings. `words` has what the code does not say, and `proofs`
names the tests that show each row. `tests/test_compatibility.py` fails when the file on disk is not
what this makes, or when a named test does not exist; and while such a test runs, `recording` sees
whether it makes the call that it is named for.
"""
