import json
import os

import pytest

from mvcfs import errors

LOG = {
    "versions": [
        {
            "version": 2,
            "commit": "a" * 40,
            "time_ns": 1_795_176_000_000_000_000,
            "author": "Ann",
            "email": "a@x",
            "message": "Second\n\nbody",
            "tags": ["v1"],
        },
        {
            "version": 1,
            "commit": "b" * 40,
            "time_ns": 1_795_175_000_000_000_000,
            "author": "Ann",
            "email": "a@x",
            "message": "First",
            "tags": [],
        },
    ]
}

DIFF = {"paths": [], "text": False, "attributes": False}


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["log", "/fake/models/llama/main"], ("log", {"mount_path": "llama/main", "limit": None})),
        (["log", "-n", "3", "/fake/models/llama/../llama/main/"], ("log", {"mount_path": "llama/main", "limit": 3})),
        (["info", "/fake/models/llama/main@42/x"], ("info", {"mount_path": "llama/main@42/x"})),
        (["info", "/fake/models"], ("info", {"mount_path": ""})),
        (["status", "/fake/models/llama"], ("status", {"mount_path": "llama"})),
        (
            ["branch", "/fake/models/llama", "exp", "--from", "main@42"],
            ("branch_create", {"mount_path": "llama", "name": "exp", "revision": "main@42"}),
        ),
        (["branch", "/fake/models/llama", "exp"], ("branch_create", {"mount_path": "llama", "name": "exp"})),
        (
            ["branch", "/fake/models/llama", "exp", "--delete"],
            ("branch_delete", {"mount_path": "llama", "name": "exp", "force": False}),
        ),
        (
            ["branch", "/fake/models/llama", "exp", "--undelete"],
            ("branch_undelete", {"mount_path": "llama", "name": "exp"}),
        ),
        (
            ["tag", "/fake/models/llama", "v1", "main@2", "-m", "M"],
            (
                "tag_create",
                {"mount_path": "llama", "name": "v1", "revision": "main@2", "message": "M", "uid": os.getuid()},
            ),
        ),
        (["tag", "/fake/models/llama", "v1", "--delete"], ("tag_delete", {"mount_path": "llama", "name": "v1"})),
        (
            ["branch", "/fake/models/llama", "exp", "-m", "try"],
            ("branch_rename", {"mount_path": "llama", "name": "exp", "new_name": "try"}),
        ),
        (
            ["branch", "/fake/models/llama", "exp", "--protect"],
            ("branch_protect", {"mount_path": "llama", "name": "exp", "protected": True}),
        ),
        (
            ["branch", "/fake/models/llama", "exp", "--unprotect"],
            ("branch_protect", {"mount_path": "llama", "name": "exp", "protected": False}),
        ),
        (
            ["alias", "/fake/models/llama", "best", "main@2", "-m", "Why"],
            (
                "alias_set",
                {"mount_path": "llama", "name": "best", "revision": "main@2", "message": "Why", "uid": os.getuid()},
            ),
        ),
        (
            ["alias", "/fake/models/llama", "best", "--delete"],
            ("alias_delete", {"mount_path": "llama", "name": "best", "message": None, "uid": os.getuid()}),
        ),
        (["undelete", "/fake/models/llama"], ("undelete", {"model": "llama"})),
        (
            [
                "git-export",
                "/fake/models/llama",
                "/nowhere/x.git",
                "--lfs",
                "tips",
                "--branch",
                "a",
                "--branch",
                "b",
                "--json",
            ],
            (
                "git_export",
                {
                    "mount_path": "llama",
                    "directory": "/nowhere/x.git",
                    "lfs": "tips",
                    "branches": ["a", "b"],
                    "force": False,
                },
            ),
        ),
        (
            ["git-import", "/usr", "/fake/models/llama", "--update", "--rename", "a=b", "--json"],
            (
                "git_import",
                {
                    "model": "llama",
                    "lfs": "all",
                    "allow_missing": False,
                    "update": True,
                    "renames": ["a=b"],
                    "no_fsck": False,
                    "source": "/usr",
                },
            ),
        ),
        (
            ["diff", "/fake/models/llama", "main@1", "v2", "--", "dir", "-x"],
            ("diff", {"mount_path": "llama", "revision": "main@1", "other": "v2", **DIFF, "paths": ["dir", "-x"]}),
        ),
        (
            ["diff", "/fake/models/llama/main@1", "/fake/models/llama/main@2", "--text"],
            ("diff", {"mount_path": "llama/main@1", "other_path": "llama/main@2", **DIFF, "text": True}),
        ),
        (
            ["log", "/fake/models/llama/main/f", "--since", "2026-01-01", "--author", "ann", "--stat"],
            (
                "log",
                {"mount_path": "llama/main/f", "limit": None, "since": "2026-01-01", "author": "ann", "stat": True},
            ),
        ),
        (["history", "-n", "2", "/fake/models/llama/main/f"], ("history", {"mount_path": "llama/main/f", "limit": 2})),
        (
            ["diff", "/fake/models/llama/main", "main@2"],
            ("diff", {"mount_path": "llama/main", "other": "main@2", **DIFF}),
        ),
    ],
)
def test_what_the_daemon_is_asked(daemon, mvcfs, arguments, asked):
    daemon.answers["log"] = {"versions": []}
    daemon.answers["history"] = {"versions": []}
    daemon.answers["diff"] = {"changes": [], "not_listed": 0}
    daemon.answers["git_export"] = daemon.answers["git_import"] = {"missing_lfs": []}
    code, _, err = mvcfs(*arguments)
    assert (code, err) == (0, "")
    assert daemon.asked == [asked]


def test_commit_names_the_user_who_asks(daemon, mvcfs):
    daemon.answers["commit"] = {
        "version": 3,
        "branch": "main",
        "commit": "c" * 40,
        "unchanged": False,
        "conflict": False,
    }
    code, out, _ = mvcfs("commit", "/fake/models/llama/main", "-m", "Best")
    assert code == 0
    assert out == "version 3 of main: cccccccccc\n"
    assert daemon.asked == [("commit", {"mount_path": "llama/main", "message": "Best", "uid": os.getuid()})]


def test_a_commit_that_met_another_hosts_exits_with_its_own_code(daemon, mvcfs):
    daemon.answers["commit"] = {"version": 1, "branch": "main-conflict-h", "commit": "c" * 40, "conflict": True}
    code, out, err = mvcfs("commit", "/fake/models/llama/main", "-m", "Best")
    assert (code, out) == (4, "")
    assert "main-conflict-h" in err
    assert err.count("\n") == 1


def test_a_commit_of_nothing_is_no_error(daemon, mvcfs):
    daemon.answers["commit"] = {"version": 3, "branch": "main", "commit": "c" * 40, "unchanged": True}
    code, out, _ = mvcfs("commit", "/fake/models/llama/main", "-m", "Best")
    assert (code, out) == (0, "nothing to commit: main is at version 3\n")


def test_the_log_is_a_line_a_version_where_no_terminal_is(daemon, mvcfs):
    daemon.answers["log"] = LOG
    code, out, _ = mvcfs("log", "/fake/models/llama/main")
    lines = out.splitlines()
    assert code == 0
    assert [line.split() for line in lines[1:]] == [
        ["2", "aaaaaaaaaa", "2026-11-20", "12:00:00", "Ann", "Second", "(v1)"],
        ["1", "bbbbbbbbbb", "2026-11-20", "11:43:20", "Ann", "First"],
    ]
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("arguments", "command", "answer"),
    [
        (["log", "/fake/models/m/main"], "log", LOG),
        (["info", "/fake/models/m/main"], "info", {"model": "m", "state": "clean", "size_bytes": 7}),
        (["branch", "/fake/models/m"], "branches", {"branches": [{"branch": "main", "version": 1, "tip": None}]}),
        (["tag", "/fake/models/m"], "tags", {"tags": [{"tag": "v1", "commit": "c" * 40, "time_ns": 0}]}),
        (["commit", "/fake/models/m/main", "-m", "x"], "commit", {"version": 1, "branch": "main", "commit": "c" * 40}),
        (["undelete", "/fake/models/m"], "undelete", {"model": "m"}),
    ],
)
def test_json_is_the_engines_answer(daemon, mvcfs, arguments, command, answer):
    daemon.answers[command] = answer
    code, out, err = mvcfs(*arguments, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == answer
    assert mvcfs(*arguments)[0] == 0


def test_json_of_a_name_that_is_no_text_is_json(daemon, mvcfs):
    daemon.answers["info"] = {"path": "a\udcff"}
    code, out, _ = mvcfs("info", "/fake/models/m/main/a\udcff", "--json")
    assert (code, json.loads(out)) == (0, {"path": "a\udcff"})


def test_status_of_all_mounts_goes_on_past_a_dead_one(daemon, mvcfs):
    daemon.answers["status"] = errors.NotFound("no daemon")
    code, out, _ = mvcfs("status", "--json")
    assert code == 0
    assert json.loads(out) == {"mounts": [{"mountpoint": "/fake/models", "state": "unreachable", "error": "no daemon"}]}


def test_status_in_words(daemon, mvcfs):
    row = {"model": "m", "branch": "main", "version": 3, "changed_files": 2, "changed_bytes": 10**9, "ignored_files": 1}
    daemon.answers["status"] = {
        "store": "hdfs://nn/m",
        "state": "ok",
        "staging": {"used_bytes": 10**9, "limit_bytes": 10**11},
        "models": [row | {"oldest_unpublished_s": 75.0, "conflict_branch": "main-conflict-h", "last_error": None}],
    }
    code, out, _ = mvcfs("status")
    assert code == 0
    assert "hdfs://nn/m on /fake/models: ok" in out
    assert "2 (1.0 GB)" in out
    assert "main-conflict-h" in out


def test_status_says_that_changes_of_a_protected_branch_wait(daemon, mvcfs):
    row = {"model": "m", "branch": "main", "version": 3, "changed_files": 2, "protected": True}
    daemon.answers["status"] = {"store": "hdfs://nn/m", "models": [row]}
    assert "protected: the changes wait" in mvcfs("status")[1]


def test_protecting_a_branch_with_changes_says_that_they_wait(daemon, mvcfs):
    daemon.answers["branch_protect"] = {"model": "m", "branch": "main", "protected": True, "changed_files": 2}
    code, out, err = mvcfs("branch", "/fake/models/m", "main", "--protect")
    assert (code, out) == (0, "branch main is protected\n")
    assert "2 files of m/main are in no version" in err
    assert "--override-protection" in err


def test_branches_and_aliases_in_words(daemon, mvcfs):
    row = {"branch": "main", "version": 3, "tip": "a" * 40, "age_s": 90.0, "ahead": 0, "behind": 2, "protected": True}
    far = {
        **row,
        "branch": "far",
        "behind": 10_000,
        "ahead_behind_complete": False,
        "changed_files": 1,
        "changed_bytes": 5,
    }
    empty = {"branch": "new", "version": 0, "tip": None, "age_s": None, "ahead": None, "behind": None}
    daemon.answers["branches"] = {"default": "main", "branches": [row, far, empty], "deleted": ["old"]}
    lines = [line.split() for line in mvcfs("branch", "/fake/models/m")[1].splitlines()[1:]]
    assert lines[0][:3] == ["main", "3", "a" * 10]
    assert lines[0][-4:] == ["0", "2", "default,", "protected"]
    assert "10000+" in lines[1]
    assert lines[2] == ["new", "0"]
    assert lines[3] == ["old", "deleted"]
    move = {"commit": "b" * 40, "branch": "main", "version": 2, "time_ns": 10**18, "who": "Ada", "why": "Best\nof all"}
    daemon.answers["aliases"] = {"aliases": [{"alias": "best", **move}], "removed": []}
    assert "best   main@2   bbbbbbbbbb  2001-09-09 01:46:40  Ada  Best" in mvcfs("alias", "/fake/models/m")[1]
    daemon.answers["alias_log"] = {"moves": [{**move, "commit": None, "deleted": True, "version": None}, move]}
    assert [line.split()[0] for line in mvcfs("log", "--alias", "best", "/fake/models/m")[1].splitlines()] == [
        "VERSION", "deleted", "main@2",
    ]  # fmt: skip


def test_fsck_with_problems_exits_as_damaged(daemon, mvcfs, monkeypatch):
    from mvcfs.cli import place

    monkeypatch.setattr(place, "mount_at", lambda path: place.list_mounts()[0])
    daemon.answers["fsck"] = {
        "problems": [{"model": "m", "file": "packs/1", "text": "is gone", "versions": ["main@1"]}],
        "counts": {"packs": 3},
    }
    code, out, err = mvcfs("fsck", "/fake/models", "--data")
    assert code == 5
    assert "m: packs/1: is gone (needed by main@1)" in out
    assert "checked 3 packs" in out
    assert err == "mvcfs: 1 problem in /fake/models\n"
    assert daemon.asked == [("fsck", {"data": True})]


@pytest.mark.parametrize(
    ("error", "code"),
    [(errors.NotFound("no branch x"), 3), (errors.Busy("b"), 11), (errors.Transient("t"), 7), (KeyError("bug"), 1)],
)
def test_an_error_of_the_daemon_is_a_line_and_a_code(daemon, mvcfs, error, code):
    daemon.answers["log"] = error
    found, out, err = mvcfs("log", "/fake/models/m/x")
    assert (found, out) == (code, "")
    assert err.startswith("mvcfs: ")
    assert err.count("\n") == 1


def test_debug_shows_the_traceback(daemon, mvcfs):
    daemon.answers["log"] = errors.NotFound("no branch x")
    assert "Traceback" in mvcfs("log", "--debug", "/fake/models/m/x")[2]
    assert "Traceback" in mvcfs("--debug", "log", "/fake/models/m/x")[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ["branch", "/fake/models/m", "x", "--delete", "--undelete"],
        ["branch", "/fake/models/m", "--delete"],
        ["branch", "/fake/models/m", "x", "--delete", "--from", "main"],
        ["tag", "/fake/models/m", "--delete"],
        ["tag", "/fake/models/m", "v1", "main", "--delete"],
        ["tag", "/fake/models/m", "-m", "x"],
        ["branch", "/fake/models/m", "--protect"],
        ["branch", "/fake/models/m", "x", "--protect", "--unprotect"],
        ["branch", "/fake/models/m", "x", "-m", "y", "--delete"],
        ["alias", "/fake/models/m", "best", "main"],
        ["alias", "/fake/models/m", "best", "main", "-m", " "],
        ["alias", "/fake/models/m", "best", "-m", "x"],
        ["alias", "/fake/models/m", "--delete"],
        ["alias", "/fake/models/m", "best", "main", "-m", "x", "--delete"],
        ["undelete", "/fake/models"],
        ["log"],
        ["log", "/fake/models/m/main", "-n", "0"],
        ["log", "/fake/models/m/main", "-n", "x"],
        ["nonsense"],
        ["log", "--nonsense", "/fake/models/m/main"],
        ["log", "--store", "x", "../up"],
        ["commit", "/fake/models/m/main"],
        [],
    ],
)
def test_wrong_usage_is_said_before_anybody_is_asked(daemon, mvcfs, arguments):
    code, out, err = mvcfs(*arguments)
    assert code in (2, 3)
    assert code == 2 or "../up" in arguments
    assert (out, daemon.asked) == ("", [])
    assert err


def test_a_path_outside_of_mounts_says_what_to_do(daemon, mvcfs):
    code, _, err = mvcfs("log", "/etc")
    assert code == 3
    assert "--store" in err


def test_symlinks_lead_to_a_mount_without_touching_it(daemon, mvcfs, tmp_path):
    (tmp_path / "link").symlink_to("/fake/models/llama")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert mvcfs("info", str(tmp_path / "link" / "main@1"))[0] == 0
    assert daemon.asked == [("info", {"mount_path": "llama/main@1"})]
    assert mvcfs("info", str(tmp_path / "loop"))[0] == 2


def test_commit_needs_a_mount(mvcfs):
    code, _, err = mvcfs("commit", "--store", "x", "m/main", "-m", "x")
    assert code == 2
    assert "--store" in err


EDITED = {
    "branch": "main",
    "version": 7,
    "commit": "e" * 40,
    "published": True,
    "unchanged": False,
    "conflicts": [],
    "unresolved": 0,
}
CLASH = {
    "path": "model.bin",
    "theirs_path": None,
    "kind": "changed",
    "ours": {"kind": "file", "size_bytes": 90_000, "time_ns": 1_795_176_000_000_000_000},
    "theirs": None,
    "choice": None,
}
NO_SIDES = {"take": None, "choices": {}}
BY_HAND = {"message": "", "dry_run": False, "uid": os.getuid()}


@pytest.mark.parametrize(
    ("arguments", "command", "asked"),
    [
        (["merge", "/fake/models/llama/main", "exp"], "merge", {**NO_SIDES, "revision": "exp", **BY_HAND}),
        (
            [
                "merge",
                "/fake/models/llama/main",
                "exp",
                "--theirs",
                "--choose",
                "a=b=ours",
                "--choose",
                "c=both",
                "-m",
                "M",
            ],
            "merge",
            {"take": "theirs", "choices": {"a=b": "ours", "c": "both"}, "revision": "exp", **BY_HAND, "message": "M"},
        ),
        (
            ["revert", "/fake/models/llama/main", "42", "--keep-both", "--dry-run"],
            "revert",
            {"take": "both", "choices": {}, "revision": "42", **BY_HAND, "dry_run": True},
        ),
        (["restore", "/fake/models/llama/main", "--from", "v1"], "restore", {"revision": "v1", **BY_HAND}),
    ],
)
def test_edits_of_a_branch(daemon, mvcfs, arguments, command, asked):
    daemon.answers[command] = EDITED
    code, out, err = mvcfs(*arguments)
    assert (code, err) == (0, "")
    assert "version 7 of main, eeeeeeeeee" in out
    assert daemon.asked == [(command, {"mount_path": "llama/main", **asked})]


def test_conflicts_that_are_left_are_listed_and_have_their_exit_code(daemon, mvcfs):
    daemon.answers["merge"] = EDITED | {"published": False, "unresolved": 1, "conflicts": [CLASH]}
    code, out, err = mvcfs("merge", "/fake/models/llama/main", "exp")
    assert code == 4
    assert "model.bin  changed on both sides  90.0 kB, 2026-11-20 12:00:00  -" in out
    assert "1 conflict, nothing was changed" in err
    code, out, err = mvcfs("merge", "/fake/models/llama/main", "exp", "--json")
    assert code == 4
    assert json.loads(out)["conflicts"] == [CLASH]


@pytest.mark.parametrize(
    "more", [["--ours", "--theirs"], ["--choose", "a"], ["--choose", "a=mine"], ["--choose", "=ours"]]
)
def test_a_side_that_is_none_is_refused_at_once(daemon, mvcfs, more):
    code, _, err = mvcfs("merge", "/fake/models/llama/main", "exp", *more)
    assert code == 2
    assert err
    assert daemon.asked == []
