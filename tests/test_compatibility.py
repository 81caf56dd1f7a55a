"""docs/compatibility.md says what is true: of the code, of the tests, and of its own files."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from tests.compatibility import words
from tests.compatibility.page import PAGE, ROOT, page
from tests.compatibility.proofs import PROOFS
from tests.compatibility.recording import CLAIMS, missing, record
from tests.compatibility.rows import Row, callbacks, dotted, host_calls, new_vm, wasi_calls
from wasm_middleware.abi.enums import AbiVersion, BufferType, DataStatus, HeadersStatus, MapType
from wasm_middleware.abi.signatures import CALLBACKS, HOST_CALLS, WASI_CALLS
from wasm_middleware.proxy_wasm import hostcalls, wasi
from wasm_middleware.proxy_wasm.properties import PATHS

ROWS = [*host_calls(), *callbacks()]


@functools.cache
def names_of_tests(file: Path) -> set[str]:
    """The names of the test functions of a file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, kinds)}


def test_the_file_is_what_the_code_and_the_tests_make() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "it is stale: run `make docs`"


def test_every_host_call_and_callback_has_a_row() -> None:
    assert [row.name for row in ROWS] == [*HOST_CALLS, *CALLBACKS]
    assert [name for name, _, _ in wasi_calls()] == [*WASI_CALLS]


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_row_says_what_is_done_and_names_a_test(row: Row) -> None:
    assert row.does
    assert row.proofs or row.status == "not"
    assert bool(row.why) is (row.status != "ok")


@pytest.mark.parametrize(
    "test", sorted({*CLAIMS, *(f"tests/{item.proof}" for item in words.DIFFERENCES)})
)
def test_a_test_that_is_named_exists(test: str) -> None:
    file, _, name = test.partition("::")
    assert name in names_of_tests(ROOT / file)


def test_five_rows_at_most_are_not_ok_and_each_says_what_that_is_due_to() -> None:
    gaps = [row for row in ROWS if row.status != "ok"]
    assert {row.status for row in gaps} == {words.OK_WITHOUT_TRAILERS, "partial", "not"}
    assert len([row for row in gaps if not row.counts_as_ok]) <= 5
    assert all(re.match("ASGI|the HTTP client", words.GAPS[row.name].cause) for row in gaps)


def test_a_host_call_that_is_not_implemented_could_not_be_ok() -> None:
    missing_calls = set(HOST_CALLS) - set(hostcalls.IMPLEMENTED)
    assert {row.name for row in ROWS if row.status == "not"} & set(HOST_CALLS) == missing_calls


def test_nothing_is_said_of_what_is_not_there() -> None:
    assert set(words.GAPS) <= {row.name for row in ROWS}
    assert set(words.HOST_CALLS) <= set(HOST_CALLS)
    assert set(words.CALLBACKS) == set(CALLBACKS)
    assert {item.calls for item in words.DIFFERENCES} <= {*HOST_CALLS, *CALLBACKS}
    assert set(words.WASI_CALLS) == set(wasi.IMPLEMENTED)
    assert set(PROOFS) <= {*HOST_CALLS, *CALLBACKS, *WASI_CALLS}


def test_every_property_has_a_type_and_every_other_is_not_there() -> None:
    assert list(words.PROPERTIES) == [dotted(path) for path in PATHS]
    assert set(words.PLUGIN_PROPERTIES) == set(map(dotted, new_vm().properties))
    there = set(words.PROPERTIES) | set(words.PLUGIN_PROPERTIES)

    for names in words.NO_PROPERTIES:
        for name in names.split(", "):
            pattern = re.escape(name).replace(r"\*", ".*")
            assert [path for path in there if re.fullmatch(pattern, path)] == []


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        (MapType, words.MAPS),
        (BufferType, words.BUFFERS),
        (HeadersStatus, words.HEADERS_STATUS),
        (DataStatus, words.DATA_STATUS),
    ],
)
def test_every_number_has_its_words(kinds: type[MapType], said: dict[str, str]) -> None:
    assert list(said) == [kind.name for kind in kinds]


def test_every_version_has_its_words() -> None:
    assert list(words.VERSIONS) == [str(version) for version in AbiVersion]


def test_links_lead_to_files_and_headings() -> None:
    text = page()
    headings = {
        "#" + heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.+)$", text, re.M)
    }

    for target in set(re.findall(r"\]\(([^)]+)\)", text)):
        assert target in headings or (PAGE.parent / target).resolve().is_file(), target


# What watches over the tests that are named


@pytest.fixture
def claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLAIMS, "tests/x.py::test_y", {"proxy_log", "proxy_on_log"})


@pytest.mark.usefixtures("claimed")
def test_a_test_shows_all_that_it_is_named_for() -> None:
    assert missing("tests/x.py::test_y", {"proxy_log", "other"}) == {"proxy_on_log"}
    assert missing("tests/x.py::test_y", {"proxy_log", "proxy_on_log"}) == set()
    assert missing("tests/x.py::test_other", set()) == set()


@pytest.mark.usefixtures("claimed")
def test_a_case_of_a_test_shows_something_of_it() -> None:
    assert missing("tests/x.py::test_y[one]", {"proxy_log"}) == set()
    assert missing("tests/x.py::test_y[one]", {"other"}) == {"proxy_log", "proxy_on_log"}


def test_what_a_vm_calls_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = record(monkeypatch)
    call = hostcalls.resolve(new_vm(), "env", "pthread_equal", "ii>i").call
    assert seen == set()
    assert call(1, 1) == 1
    assert seen == {"pthread_equal"}
