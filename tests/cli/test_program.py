"""The installed program itself, as a process."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

from mvcfs.cli.app import build_command
from mvcfs.cli.exits import MEANINGS

COMMANDS = tuple(build_command(fancy=False).commands)
MVCFS = str(Path(sys.executable).with_name("mvcfs"))


def run(*arguments, **variables):
    return subprocess.run(
        [MVCFS, *arguments], capture_output=True, text=True, timeout=60, check=False, env=os.environ | variables
    )


def test_help_lists_every_command_and_exit_code():
    shown = run("--help").stdout
    for name in COMMANDS:
        assert f"\n  {name} " in shown
    for code, meaning in MEANINGS:
        assert f"{code}  {meaning}" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples_and_is_in_the_page(command):
    done = run(command, "--help")
    assert done.returncode == 0
    assert f"  mvcfs {command} " in done.stdout or f"  mvcfs {command}\n" in done.stdout
    assert f"| `{command} " in (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nonsense"], 2),
        (["log"], 2),
        (["log", "/"], 3),
        (["umount", "/"], 3),
        (["log", "/", "--config", "/nonexistent.toml"], 3),
        (["mount", "/nonexistent/store", "/nonexistent/mnt", "-o", "bogus"], 2),
    ],
)
def test_an_error_is_one_line_without_a_traceback(arguments, code):
    done = run(*arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith("mvcfs: ")
    assert done.stderr.count("\n") == 1


def test_doctor_as_json():
    done = run("doctor", "--json")
    document = json.loads(done.stdout)
    assert document["ok"] is (done.returncode == 0)
    assert {"name", "state", "detail", "fix"} == set(document["checks"][0])
    assert {each["state"] for each in document["checks"]} <= {"ok", "missing", "note"}


def test_version():
    assert run("--version").stdout.startswith("mvcfs ")


def test_completion_of_commands():
    words = run(_MVCFS_COMPLETE="complete_bash", COMP_WORDS="mvcfs bra", COMP_CWORD="1").stdout.split()
    assert words == ["branch"]


def test_a_closed_pipe_is_no_traceback():
    done = subprocess.run(
        f"{MVCFS} --help | head -c 1", shell=True, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr


def test_colour_on_a_terminal_and_none_elsewhere():
    assert "\x1b[" not in run("doctor").stdout
    variables = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "CI"}} | {"TERM": "xterm-256color"}
    ours, theirs = pty.openpty()
    with subprocess.Popen([MVCFS, "doctor"], stdout=theirs, stderr=theirs, env=variables) as process:
        os.close(theirs)
        shown = b""
        while select.select([ours], [], [], 60)[0]:
            try:
                more = os.read(ours, 65536)
            except OSError:
                break
            if not more:
                break
            shown += more
        process.wait(60)
    os.close(ours)
    assert b"\x1b[1m" in shown
