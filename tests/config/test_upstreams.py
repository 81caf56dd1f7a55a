"""Upstreams and the hosts that plugins may name: what they become, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
import yaml

from wasm_middleware.config import Address, CalloutSettings, Settings, UpstreamSettings
from wasm_middleware.limits import KIB, MIB

from .conftest import Load, Mistakes
from .test_schema import SCHEMA, complaints


def upstream(load: Load, entry: str) -> UpstreamSettings:
    """The upstream that `entry` becomes."""
    [(name, settings)] = load(f"plugins: []\nupstreams:\n  up: {entry}\n").upstreams
    assert name == "up"
    return settings


def test_a_url_alone_has_the_documented_defaults(load: Load) -> None:
    settings = upstream(load, "http://127.0.0.1:9000")
    assert settings.url == Address("http", "127.0.0.1", 9000)
    assert settings.timeout == 5.0
    assert settings.max_in_flight == 1024
    assert settings.response_limit == MIB
    assert settings.ca_file is None


def test_every_field_is_read(load: Load, folder: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(folder / "ca.pem"))
    settings = upstream(
        load,
        "{url: https://auth.example, timeout: 250ms, max_in_flight: 7, response_limit: 3KB,"
        " ca_file: ca.pem}",
    )
    assert settings.url == Address("https", "auth.example", 443)
    assert settings.timeout == 0.25
    assert settings.max_in_flight == 7
    assert settings.response_limit == 3 * KIB
    assert settings.ca_file == folder / "ca.pem"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://127.0.0.1:9000/", "http://127.0.0.1:9000"),
        ("HTTP://Auth.Example", "http://auth.example:80"),
        ("https://auth.example", "https://auth.example:443"),
        ("https://auth_service:8443", "https://auth_service:8443"),
        ("http://[::1]:9000", "http://[::1]:9000"),
        ("http://[2001:DB8:0::1]", "http://[2001:db8::1]:80"),
        ("http://xn--bcher-kva.example", "http://xn--bcher-kva.example:80"),
        ("unix:/run/auth.sock", "unix:/run/auth.sock"),
        ("unix:///run/auth.sock", "unix:/run/auth.sock"),
    ],
)
def test_a_url_names_a_server(url: str, shown: str, load: Load) -> None:
    assert str(upstream(load, f"'{url}'").url) == shown
    assert str(upstream(load, f"{{url: '{url}'}}").url) == shown


def test_a_socket_is_relative_to_the_file(load: Load, folder: Path) -> None:
    assert upstream(load, "unix:run/auth.sock").url.path == folder / "run/auth.sock"


def test_names_are_any_text(load: Load) -> None:
    name = "outbound|80||httpbin.org"
    text = f"plugins: []\nupstreams: {{'{name}': 'http://a', 1.5: 'http://b', ü.1: 'http://c'}}\n"
    with pytest.raises(Exception, match=r"the key 1\.5 is not text"):
        load(text)

    names = [name for name, _ in load(text.replace("1.5: 'http://b', ", "")).upstreams]
    assert names == [name, "ü.1"]


def test_values_come_from_the_environment(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTH_URL", "http://auth:9000")
    monkeypatch.setenv("AUTH_PORT", "9001")
    assert str(upstream(load, "${AUTH_URL}").url) == "http://auth:9000"
    assert str(upstream(load, "http://auth:${AUTH_PORT}").url) == "http://auth:9001"
    assert (
        upstream(load, "\n    url: ${AUTH_URL}\n    max_in_flight: ${AUTH_PORT}").max_in_flight
        == 9001
    )


def test_without_the_keys_nothing_can_be_called(load: Load) -> None:
    for text in ("plugins: []\n", "plugins: []\nupstreams: {}\ncallouts: {}\n"):
        settings = load(text)
        assert settings.upstreams == ()
        assert settings.callouts.allow_hosts == frozenset()


def test_they_can_be_made_by_hand() -> None:
    settings = Settings.model_validate(
        {
            "upstreams": {"a": "http://a:1", "b": {"url": Address("http", "b", 2)}},
            "callouts": CalloutSettings.model_validate({"allow_hosts": ["c:3"]}),
        }
    )
    assert [str(entry.url) for _, entry in settings.upstreams] == ["http://a:1", "http://b:2"]
    assert settings.callouts.allow_hosts == {Address("http", "c", 3)}
    assert isinstance(hash(settings), int)


SCHEMES = "does not begin with http://, https:// or unix: (write http://127.0.0.1:9000)"
PATH = "has a path (remove it; the path is the plugin's :path)"
SOCKET = "(write unix:/run/auth.sock)"
USER = "holds a user or a password (remove them; a plugin sends them in a header of its own)"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", f"'' {SCHEMES}"),
        ("auth", f"'auth' {SCHEMES}"),
        ("127.0.0.1:9000", f"'127.0.0.1:9000' {SCHEMES}"),
        ("auth:9000", f"'auth:9000' {SCHEMES}"),
        ("//auth:9000", f"'//auth:9000' {SCHEMES}"),
        ("ftp://auth", f"'ftp://auth' {SCHEMES}"),
        ("grpc://auth", f"'grpc://auth' {SCHEMES}"),
        ("http+unix://%2Frun%2Fx.sock", f"'http+unix://%2Frun%2Fx.sock' {SCHEMES}"),
        ("http://", "'http://' has no host (write http://127.0.0.1:9000)"),
        ("http://:9000", "'http://:9000' has no host (write http://127.0.0.1:9000)"),
        ("http://a/base", f"'http://a/base' {PATH}"),
        ("http://a//", f"'http://a//' {PATH}"),
        ("http://a?b=c", f"'http://a?b=c' {PATH}"),
        ("http://a?", f"'http://a?' {PATH}"),
        ("http://a/#b", f"'http://a/#b' {PATH}"),
        ("http://a#", f"'http://a#' {PATH}"),
        ("http://a:0", "'http://a:0' has the port 0"),
        ("http://a:65536", "'http://a:65536' has no valid host and port"
         " (write http://127.0.0.1:9000)"),
        ("http://a:x", "'http://a:x' has no valid host and port (write http://127.0.0.1:9000)"),
        ("http://[::g]", "'http://[::g]' has no valid host and port"
         " (write http://127.0.0.1:9000)"),
        ("http://[::1", "'http://[::1' has no valid host and port (write http://127.0.0.1:9000)"),
        ("http://a b", "'http://a b' has no valid host (an international name begins with xn--)"),
        ("http://bücher.example", "'http://bücher.example' has no valid host"
         " (an international name begins with xn--)"),
        ("http://*.example", "'http://*.example' has no valid host"
         " (an international name begins with xn--)"),
        (" http://a", "' http://a' holds a space or a control character"),
        ("http://u@a", f"'http://…@a' {USER}"),
        ("http://u:hidden@a:80", f"'http://…@a:80' {USER}"),
        ("https://u:hid/den@a", "'https://…@a' has no valid host and port"
         " (write http://127.0.0.1:9000)"),
        ("https://u:hid@den@a", f"'https://…@a' {USER}"),
        ("u:hidden@a", f"'…@a' {SCHEMES}"),
        ("redis://:hidden@a", f"'redis://…@a' {SCHEMES}"),
        ("unix:", f"'unix:' has no path {SOCKET}"),
        ("unix://host/run/x.sock", f"'unix://host/run/x.sock' has a host {SOCKET}"),
        ("unix:/run/x.sock:/path", "'unix:/run/x.sock:/path' has a : in its path"
         " (the path of a request is the plugin's)"),
        ("http://unix:/run/x.sock:/", f"'http://unix:/run/x.sock:/' is nginx's form of a socket"
         f" {SOCKET}"),
    ],
)  # fmt: skip
def test_any_other_url_is_refused(url: str, message: str, mistakes: Mistakes) -> None:
    text = f"plugins: []\nupstreams:\n  up: '{url}'\n  up2: {{url: '{url}'}}\n"
    assert mistakes(text) == [
        f"plugins.yaml:3:7: upstreams.up: {message}",
        f"plugins.yaml:4:14: upstreams.up2.url: {message}",
    ]


def test_a_url_from_the_environment_is_not_shown(
    mistakes: Mistakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTH_URL", "ftp://hidden")
    [message] = mistakes("plugins: []\nupstreams: {up: '${AUTH_URL}'}\n")
    assert message == (
        "plugins.yaml:2:17: upstreams.up: the value of an environment variable does not begin with"
        " http://, https:// or unix: (write http://127.0.0.1:9000)"
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("5", "7: upstreams.up: expected a mapping, got 5 (with the keys url)"),
        ("", "6: upstreams.up: has no value, expected a mapping (with the keys url)"),
        ("[a]", "7: upstreams.up: expected a mapping, got a list (with the keys url)"),
        ("{}", "7: upstreams.up.url: is missing"),
        ("{uri: http://a}", "8: upstreams.up.uri: unknown key (did you mean url?)"),
        ("{url: 5}", "13: upstreams.up.url: expected a URL, got 5 (write http://127.0.0.1:9000)"),
        ("{url: http://a, timeout: 5}", "32: upstreams.up.timeout: 5 has no unit"
         " (write 50ms; the units are us, ms, s, m, h)"),
        ("{url: http://a, timeout: none}", "32: upstreams.up.timeout: expected a duration such as"
         " 50ms, got 'none' (write 50ms; the units are us, ms, s, m, h)"),
        ("{url: http://a, max_in_flight: 0}", "38: upstreams.up.max_in_flight: 0 is out of bounds,"
         " expected 1 to 10000"),
        ("{url: http://a, response_limit: 1}", "39: upstreams.up.response_limit: 1 has no unit"
         " (write 16MB; the units are B, KB, MB, GB)"),
        ("{url: http://a, ca_file: ca.pem}", "32: upstreams.up.ca_file: has no effect"
         " (write https:// in the url, or remove it)"),
        ("{url: unix:/a, ca_file: ca.pem}", "31: upstreams.up.ca_file: has no effect"
         " (write https:// in the url, or remove it)"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_explained(entry: str, message: str, mistakes: Mistakes) -> None:
    found = mistakes(f"plugins: []\nupstreams:\n  up: {entry}\n")
    assert f"plugins.yaml:3:{message}" in found


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("upstreams:", "11: upstreams: has no value, expected a mapping of names to URLs"
         " (write {auth: http://127.0.0.1:9000})"),
        ("upstreams: [http://a]", "12: upstreams: expected a mapping of names to URLs, got a list"
         " (write {auth: http://127.0.0.1:9000})"),
        ("upstreams: http://a", "12: upstreams: expected a mapping of names to URLs,"
         " got 'http://a' (write {auth: http://127.0.0.1:9000})"),
        ('upstreams: {"": http://a}',
         "13: upstreams.: an upstream's name is text without control characters"),
        ('upstreams: {"a\\nb": http://a}',
         "13: upstreams.a\\nb: an upstream's name is text without control characters"),
        ("callouts: [a]", "11: callouts: expected a mapping, got a list (with the keys"
         " allow_hosts)"),
        ("callouts: {allow_host: []}",
         "12: callouts.allow_host: unknown key (did you mean allow_hosts?)"),
        ("callouts: {allow_hosts: a:80}", "25: callouts.allow_hosts: expected a list such as"
         " [api.example.com:80], got 'a:80'"),
        ("callouts: {allow_hosts: [a]}", "26: callouts.allow_hosts.0: expected a host and a port,"
         " got 'a' (write api.example.com:80)"),
        ("callouts: {allow_hosts: ['a:80', 'http://a:80']}", "34: callouts.allow_hosts.1: expected"
         " a host and a port, got 'http://a:80' (write api.example.com:80)"),
        ("callouts: {allow_hosts: ['*.a:80']}", "26: callouts.allow_hosts.0: expected a host and a"
         " port, got '*.a:80' (name each host with its port)"),
        ("callouts: {allow_hosts: ['u:hidden@a:80']}", "26: callouts.allow_hosts.0: expected a"
         " host and a port, got '…@a:80' (write api.example.com:80)"),
        ("callouts: {allow_hosts: [5]}", "26: callouts.allow_hosts.0: expected a host and a port,"
         " got 5 (write api.example.com:80)"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_explained(line: str, message: str, mistakes: Mistakes) -> None:
    message = message.replace("\\n", "\n")
    assert "\n".join(mistakes(f"plugins: []\n{line}\n")) == f"plugins.yaml:2:{message}"


PLUGIN = "plugins:\n  - name: a\n    path: a.wasm\n    %s: x\n"
ROUTE = "plugins: []\nroutes:\n  - path: /x\n    %s: x\n"
TOP = "plugins: []\n%s: {a: http://a}\n"


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        (TOP, "upstream", "did you mean upstreams?"),
        (TOP, "callout", "did you mean callouts?"),
        (ROUTE, "upstreams", "did you mean upstream?"),
        (ROUTE, "upsteam", "did you mean upstream?"),
        (PLUGIN, "upstream", "did you mean upstreams, beside plugins?"),
        (PLUGIN, "upstreams", "did you mean upstreams, beside plugins?"),
        (PLUGIN, "upsteams", "did you mean upstreams, beside plugins?"),
        (PLUGIN, "callouts", "did you mean callouts, beside plugins?"),
        (PLUGIN, "routes", "did you mean routes, beside plugins?"),
        (ROUTE, "callouts", "did you mean callouts, beside plugins?"),
        (
            "plugins: []\ndefaults: {%s: x}\n",
            "upstreams",
            "did you mean upstreams, beside plugins?",
        ),
        (
            "plugins: []\ncallouts: {%s: x}\n",
            "upstreams",
            "did you mean upstreams, beside plugins?",
        ),
    ],
)
def test_a_key_that_stands_in_the_wrong_place_or_is_misspelt_is_understood(
    text: str, key: str, hint: str, mistakes: Mistakes, folder: Path
) -> None:
    (folder / "a.wasm").write_bytes(b"\0asm\1\0\0\0")
    [found] = mistakes(text % key)
    assert found.endswith(f"{key}: unknown key ({hint})")


def test_a_ca_file_is_looked_at(mistakes: Mistakes, load: Load, folder: Path) -> None:
    text = "plugins: []\nupstreams: {up: {url: https://a, ca_file: ca.pem}}\n"
    where = "plugins.yaml:2:43: upstreams.up.ca_file:"
    file = folder / "ca.pem"
    assert mistakes(text) == [f"{where} no such file: '{file}'"]
    assert load(text, check_files=False).upstreams[0][1].ca_file == file
    file.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    none = f"{where} '{file}' holds no certificate (expected one or more in PEM form)"
    assert mistakes(text) == [none]
    file.write_bytes(b"")
    assert mistakes(text) == [none]
    file.unlink()
    file.mkdir()
    assert mistakes(text) == [f"{where} can't read '{file}': Is a directory"]
    file.rmdir()
    trustme.CA().cert_pem.write_to_path(str(file))
    assert load(text).upstreams[0][1].ca_file == file


def test_hosts_are_servers_with_a_port(load: Load) -> None:
    text = (
        "plugins: []\ncallouts: {allow_hosts: ['API.example:80', 'a:443', '[::1]:8080', 'a:443']}\n"
    )
    assert load(text).callouts.allow_hosts == {
        Address("http", "api.example", 80),
        Address("https", "a", 443),
        Address("http", "::1", 8080),
    }


def test_a_route_that_names_an_upstream_is_still_served_by_the_app(load: Load) -> None:
    text = "plugins: []\nupstreams: {a: http://a}\nroutes:\n- {path: /x, upstream: a}\n"
    assert [str(warning) for warning in load(text).warnings] == [
        "plugins.yaml:4:24: routes.0.upstream: has no effect: the app is the upstream"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "upstreams: {}",
        "upstreams: {a: http://a, b: {url: https://b, timeout: 1s, ca_file: ca.pem}, c: 'unix:/x'}",
        "upstreams: {a: '${URL}', b: {url: '${URL}', max_in_flight: '${MOST}'}}",
        "callouts: {allow_hosts: ['a:80', '[::1]:80', '${HOST}:80']}",
    ],
)
def test_an_editor_takes_what_the_program_takes(text: str) -> None:
    assert list(complaints(yaml.safe_load(text), SCHEMA)) == []


@pytest.mark.parametrize(
    "text",
    [
        "upstreams: [http://a]",
        "upstreams: {a: 5}",
        "upstreams: {a: {}}",
        "upstreams: {a: {url: http://a, base: /x}}",
        "upstreams: {a: {url: ftp://a}}",
        "upstreams: {a: {url: http://u@a}}",
        "upstreams: {a: {url: http://a/b}}",
        "upstreams: {a: {url: http://a, timeout: 5}}",
        "callouts: {allow_hosts: [a]}",
        "callouts: {allow: []}",
    ],
)
def test_an_editor_marks_mistakes(text: str) -> None:
    assert list(complaints(yaml.safe_load(text), SCHEMA))


def test_defaults_are_shown_as_they_are_written() -> None:
    fields = SCHEMA["definitions"]["UpstreamSettings"]["properties"]  # type: ignore[index]
    assert {name: fields[name]["default"] for name in fields if "default" in fields[name]} == {
        "timeout": "5s",
        "max_in_flight": 1024,
        "response_limit": "1MB",
    }
