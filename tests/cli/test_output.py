import io
import sys

from mvcfs.cli.output import Progress, describe_progress, print_error, print_line, print_table, printable


class Terminal(io.StringIO):
    def isatty(self):
        return True


def as_terminal(monkeypatch):
    """Called in the test itself: pytest puts its own stdout back between the phases of a test."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    return screen


def test_elsewhere_than_on_a_terminal_lines_are_plain_and_never_wrapped(capsys):
    print_table(("version", "message"), [("1", "m" * 500), ("12", "[bold]x[/bold]")])
    out = capsys.readouterr().out
    assert out.splitlines() == ["VERSION  MESSAGE", "1        " + "m" * 500, "12       [bold]x[/bold]"]


def test_a_terminal_gets_colour_but_no_markup_of_users(monkeypatch):
    terminal = as_terminal(monkeypatch)
    print_line("[red]not markup[/red]", style="bold")
    assert "\x1b[1m" in terminal.getvalue()
    assert "[red]not markup[/red]" in terminal.getvalue()


def test_control_characters_of_names_never_reach_the_terminal(monkeypatch):
    terminal = as_terminal(monkeypatch)
    print_line("a\x1b[2Jb\nc\x07")
    assert "\x1b[2J" not in terminal.getvalue()
    assert printable("a\x1b[2Jb\nc\r") == r"a\x1b[2Jb\nc\r"


def test_names_that_are_no_text_survive(monkeypatch):
    terminal = as_terminal(monkeypatch)
    print_line("x\udcffy")
    assert r"x\xffy" in terminal.getvalue()


def test_an_error_is_one_line(capsys):
    print_error("first\n  second")
    assert capsys.readouterr().err == "mvcfs: first second\n"


def test_progress_in_words():
    words = describe_progress(
        {"phase": "uploading", "done": 3, "total": 64, "done_bytes": 10**9, "total_bytes": 10**10}
    )
    assert words == "uploading 3 of 64, 1.0 GB of 10.0 GB (10%)"
    assert describe_progress({}) == "working"
    assert describe_progress({"done_bytes": 5, "total_bytes": 0}) == "working 5 B"


def test_progress_elsewhere_is_a_line_every_few_seconds(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("mvcfs.cli.output.time.monotonic", lambda: now[0])
    with Progress("commit") as progress:
        for second in range(10):
            now[0] = float(second)
            progress.update({"phase": "uploading", "done": second})
    assert capsys.readouterr().err.splitlines() == [f"mvcfs: commit: uploading {n}" for n in (3, 6, 9)]


def test_quiet_progress_says_nothing(capsys, monkeypatch):
    monkeypatch.setattr("mvcfs.cli.output.time.monotonic", lambda: 1e9)
    with Progress("commit", quiet=True) as progress:
        progress.update({"phase": "uploading"})
    assert capsys.readouterr() == ("", "")
