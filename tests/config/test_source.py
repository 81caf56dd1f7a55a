from __future__ import annotations

import pytest

from wasm_middleware.config import load_settings
from wasm_middleware.config.problems import Loc

from .conftest import Load

TEXT = """\
plugins:
  - name: a
    path: a.wasm
    phase: on_log
    config: {x: [1, 2]}
  - {name: b, path: a.wasm}
"""


@pytest.mark.parametrize(
    ("loc", "place"),
    [
        (("plugins", 0, "path"), "3:11: plugins.0.path"),
        (("plugins", 0, "config", "x", 1), "5:21: plugins.0.config.x.1"),
        (("plugins", 0, "timeout"), "2:5: plugins.0.timeout"),
        (("plugins", 0, "phase", 0), "4:12: plugins.0.phase"),
        (("plugins", 1), "6:5: plugins.1"),
        (("plugins", 7), "2:3: plugins"),
        (("routes",), "1:1: routes"),
    ],
)
def test_a_later_layer_reports_at_the_right_place(loc: Loc, place: str, load: Load) -> None:
    diagnostic = load(TEXT).source.diagnostic(loc, "is odd", "mend it")
    assert str(diagnostic) == f"plugins.yaml:{place}: is odd (mend it)"


def test_the_top_has_the_first_line_and_no_path(load: Load) -> None:
    assert str(load(TEXT).source.diagnostic((), "is odd")) == "plugins.yaml:1:1: is odd"


def test_what_an_option_replaced_is_reported_as_the_option(load: Load) -> None:
    source = load(TEXT, log_level="debug").source
    assert str(source.diagnostic(("log_level",), "is odd")) == "<options>: log_level: is odd"
    assert str(source.diagnostic(("plugins", 0), "is odd")).startswith("plugins.yaml:2:5:")


def test_a_dict_has_no_lines() -> None:
    source = load_settings({"plugins": []}).source
    assert str(source.diagnostic(("plugins",), "is odd")) == "<config>: plugins: is odd"


def test_a_plugin_is_found_by_its_name(load: Load) -> None:
    source = load(TEXT).source
    assert source.plugin("b") == ("plugins", 1)
    assert source.plugin("c") == ("plugins",)
