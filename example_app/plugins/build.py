"""Build the plugins from their sources: `python example_app/plugins/build.py [names...]`.

Each folder of the table becomes a .wasm file beside it, listed in the SHA256SUMS of that place.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TESTS = ROOT / "tests" / "plugins"

Build = Callable[[Path, Path], None]
"""Builds a folder of sources into a .wasm file."""


class MissingToolError(Exception):
    """A language's tools are not all there; the message says what to install."""


def run(argv: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None) -> None:
    subprocess.run(argv, cwd=cwd, env={**os.environ, **(env or {})}, check=True)


def ask(*argv: str | Path) -> str:
    """What a tool answers, or nothing if it is missing or fails."""
    try:
        answer = subprocess.run(argv, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout.strip()


def rust() -> Build:
    for cargo in filter(None, [shutil.which("cargo"), shutil.which("cargo", path="/usr/bin")]):
        if build := rust_of(Path(cargo)):
            return build
    raise MissingToolError(
        "Rust for wasm32-wasip1: `rustup target add wasm32-wasip1`; or, on Debian, "
        "`apt-get install rustc-web cargo-web rust-web-src lld wasi-libc`"
    )


def rust_of(cargo: Path) -> Build | None:
    """Needs a Rust that has the target, or one that has the sources of its standard library."""
    target = "wasm32-wasip1"
    rustc = cargo.with_name("rustc")
    std = ask(rustc, "--print", "target-libdir", "--target", target)
    std_source = Path(ask(rustc, "--print", "sysroot"), "lib/rustlib/src/rust")
    wasi_libc = Path("/usr/lib/wasm32-wasi")
    wasm_ld = shutil.which("wasm-ld")
    options: list[str] = []
    flags: list[str] = []
    env = {"RUSTC": str(rustc), "CARGO_TARGET_DIR": str(HERE / "target")}
    if not std:
        return None
    if not Path(std).is_dir():
        if not (std_source.is_dir() and wasi_libc.is_dir() and wasm_ld):
            return None
        options = ["-Zbuild-std=std,panic_abort"]
        flags = [f"-Clinker={wasm_ld}", "-Clink-self-contained=no", f"-L{wasi_libc}"]
        env["RUSTC_BOOTSTRAP"] = "1"

    def build(folder: Path, wasm: Path) -> None:
        run([cargo, "fetch", "--locked"], cwd=folder, env=env)
        # Panics name their source file; the built file must not tell where that was.
        crates = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"), "registry/src")
        places = {std_source: "rust", **dict.fromkeys(crates.glob("*"), "crates")}
        remap = [f"--remap-path-prefix={place}={name}" for place, name in places.items()]
        run(
            [cargo, "build", "--release", "--locked", "--target", target, *options],
            cwd=folder,
            env={**env, "CARGO_ENCODED_RUSTFLAGS": "\x1f".join([*flags, *remap])},
        )
        built = Path(env["CARGO_TARGET_DIR"], target, "release", folder.name.replace("-", "_"))
        shutil.copyfile(built.with_suffix(".wasm"), wasm)

    return build


def go() -> Build:
    version = re.search(r"go(\d+)\.(\d+)", ask("go", "version"))
    if version is None or (int(version[1]), int(version[2])) < (1, 24):
        raise MissingToolError("Go 1.24 or later; on Debian 13 or later, `apt-get install golang`")
    options = ["-trimpath", "-buildvcs=false", "-buildmode=c-shared", "-ldflags=-s -w -buildid="]

    def build(folder: Path, wasm: Path) -> None:
        env = {"GOOS": "wasip1", "GOARCH": "wasm"}
        run(["go", "build", *options, "-o", wasm, "."], cwd=folder, env=env)

    return build


def assemblyscript() -> Build:
    version = re.match(r"v(\d+)", ask("node", "--version"))
    if version is None or int(version[1]) < 20 or not shutil.which("npm"):
        raise MissingToolError(
            "Node.js 20 or later with npm; on Debian 13 or later, `apt-get install nodejs npm`"
        )
    options = ["--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]

    def build(folder: Path, wasm: Path) -> None:
        run(["npm", "install", *options], cwd=folder)
        run(["node_modules/.bin/asc", "--outFile", wasm], cwd=folder)

    return build


def c() -> Build:
    clang = ["clang", "--target=wasm32-wasi", "-mexec-model=reactor"]
    needed = [
        ask(*clang, "-print-file-name=crt1-reactor.o"),
        ask(*clang, "-print-libgcc-file-name"),
    ]
    if not shutil.which("wasm-ld") or not all(Path(path).is_file() for path in needed):
        raise MissingToolError(
            "clang, lld and a C library for WASI; on Debian 12, "
            "`apt-get install clang lld wasi-libc libclang-rt-14-dev-wasm32`"
        )
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"]
    linking = ["-Wl,--strip-all", "-Wl,--export=malloc"]

    def build(folder: Path, wasm: Path) -> None:
        sources = sorted(path.name for path in folder.glob("*.c"))
        options = ["-O2", *warnings, f"-I{HERE / 'include'}", *linking, "-o", str(wasm)]
        run([*clang, *options, *sources], cwd=folder)

    return build


PLUGINS = {
    HERE / "access-log": rust,
    HERE / "add-header": rust,
    HERE / "json-validator": assemblyscript,
    HERE / "jwt-auth": go,
    HERE / "rate-limit": rust,
    HERE / "redact": c,
    HERE / "security-headers": c,
    TESTS / "differ-as": assemblyscript,
    TESTS / "differ-c": c,
    TESTS / "differ-rust": rust,
    TESTS / "every-callback": rust,
    TESTS / "foreign-calls": rust,
    TESTS / "go-every": go,
    TESTS / "statuses-rust": rust,
    TESTS / "grpc-client": rust,
    TESTS / "ws-filter": rust,
}


def main(names: list[str]) -> int:
    known = [folder.name for folder in PLUGINS]
    if unknown := [name for name in names if name not in known]:
        print(f"no such plugin: {', '.join(unknown)} (there are {', '.join(known)})")
        return 2
    wanted = {f: language for f, language in PLUGINS.items() if not names or f.name in names}

    builds: dict[Callable[[], Build], Build] = {}
    missing = []
    for language in dict.fromkeys(wanted.values()):
        try:
            builds[language] = language()
        except MissingToolError as error:
            missing.append(f"missing: {error}")
    if missing:
        print("\n".join(missing))
        return 2

    for folder, language in wanted.items():
        started = time.monotonic()
        wasm = folder.with_suffix(".wasm")
        try:
            builds[language](folder, wasm)
        except subprocess.CalledProcessError as error:
            print(f"{folder.name}: {error}")
            return 1
        wasm.chmod(0o644)
        if place := leaked_place(wasm):
            print(f"{folder.name}: the built file names a place of this machine, {place}")
            return 1
        seconds = time.monotonic() - started
        print(f"{folder.name:18} {wasm.stat().st_size:>9,} bytes {seconds:6.1f} s", flush=True)

    for place in dict.fromkeys(folder.parent for folder in PLUGINS):
        write_checksums(place)
    return 0


def leaked_place(wasm: Path) -> Path | None:
    content = wasm.read_bytes()
    places = (ROOT, Path.home())
    return next((place for place in places if os.fsencode(f"{place}/") in content), None)


def write_checksums(place: Path) -> None:
    lines = [
        f"{hashlib.sha256(wasm.read_bytes()).hexdigest()}  {wasm.name}\n"
        for wasm in sorted(place.glob("*.wasm"))
    ]
    (place / "SHA256SUMS").write_text("".join(lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
