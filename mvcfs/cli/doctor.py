"""`mvcfs doctor`: what this machine lacks, and the command that mends it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from mvcfs.cli import exits
from mvcfs.cli.localstate import default_cache_dir, hadoop_conf_dir, prepare_cache_dir
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions
from mvcfs.cli.output import print_json, print_line, print_table
from mvcfs.cli.stores import open_store
from mvcfs.cli.units import format_size
from mvcfs.config import GIB
from mvcfs.errors import MvcfsError

HELP = """Check what this machine lacks to run mvcfs, and print the commands that mend it.

With a STORE its reachability is checked as well.

\b
Examples:
  mvcfs doctor
  mvcfs doctor hdfs://namenode:8020/models
"""

_PYTHON = (3, 11)
_LOW_SPACE_BYTES = 2 * GIB
_PROBE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at.

    Attributes:
        name: What it is.
        state: `missing` counts against the machine; `note` is something that only some uses need.
        detail: What was found.
        fix: The command that mends it, empty when there is nothing to mend.
    """

    name: str
    state: Literal["ok", "missing", "note"]
    detail: str
    fix: str = ""


def doctor(
    output: OutputOptions,
    stores: StoreOptions,
    common: CommonOptions,
    store: Annotated[str | None, typer.Argument(metavar="STORE", help="A store to reach, too.")] = None,
) -> None:
    """Runs all checks and prints them."""
    checks = list(_checks(stores, store))
    healthy = all(check.state != "missing" for check in checks)
    if output.json:
        print_json({"ok": healthy, "checks": [asdict(check) for check in checks]})
    else:
        print_table(("check", "state", "found"), [(check.name, check.state, check.detail) for check in checks])
        for check in checks:
            if check.fix:
                print_line(f"{check.name}: {check.fix}")
    if not healthy:
        raise typer.Exit(exits.FAILED)


def _checks(stores: StoreOptions, store: str | None) -> Iterator[Check]:
    simple: tuple[Callable[[], Check], ...] = (
        check_python,
        check_device,
        check_fusermount,
        check_mtab,
        check_libfuse,
        check_pyfuse3,
        check_allow_other,
        lambda: check_cache_dir(stores.cache_dir),
        lambda: check_hadoop_conf(hadoop_conf_dir(stores)),
        check_git,
        check_java,
    )
    for check in simple:
        yield check()
    if store is not None:
        yield check_store(store, stores)


def install_command(*packages: str) -> str:
    """The command that installs system packages here."""
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}apt-get update && {sudo}apt-get install -y {' '.join(packages)}"


def _probe(*command: str) -> str | None:
    """First line that a program prints, None where it isn't or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter((done.stdout or done.stderr).splitlines()), "")


def check_python() -> Check:
    """Python's version."""
    version = sys.version.split()[0]
    if tuple(sys.version_info[:2]) < _PYTHON:
        return Check("Python", "missing", f"{version}, 3.11 is needed", install_command("python3", "python3-venv"))
    return Check("Python", "ok", version)


def check_device(path: str = "/dev/fuse") -> Check:
    """The kernel's FUSE device, and whether this user may open it."""
    sudo = "" if os.geteuid() == 0 else "sudo "
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        fix = f"{sudo}modprobe fuse || {sudo}mknod -m 666 {path} c 10 229   (in a container: start it with --device {path})"
        return Check(path, "missing", "not there", fix)
    except PermissionError:
        return Check(
            path, "missing", "may not be opened", f"{sudo}chmod 666 {path}   (in a container: --cap-add SYS_ADMIN)"
        )
    except OSError as error:
        return Check(path, "missing", str(error.strerror), f"{sudo}modprobe fuse")
    return Check(path, "ok", "can be opened")


def check_fusermount() -> Check:
    """The program that mounts and unmounts for ordinary users."""
    found = shutil.which("fusermount3")
    if found is None:
        return Check("fusermount3", "missing", "not found", install_command("fuse3"))
    if os.geteuid() != 0 and not os.stat(found).st_mode & 0o4000:
        return Check("fusermount3", "missing", f"{found} is not setuid root", f"sudo chmod u+s {found}")
    return Check("fusermount3", "ok", _probe(found, "--version") or found)


def check_mtab(path: Path = Path("/etc/mtab")) -> Check:
    """The table of mounts that fusermount3 insists on; a bare container may lack it."""
    if path.exists():
        return Check(str(path), "ok", "there")
    sudo = "" if os.geteuid() == 0 else "sudo "
    detail, fix = "not there: ordinary users can't unmount", f"{sudo}ln -s /proc/self/mounts {path}"
    return Check(str(path), "note" if os.geteuid() == 0 else "missing", detail, fix)


def check_libfuse() -> Check:
    """The library that pyfuse3 loads."""
    found = _probe(
        sys.executable, "-c", "import ctypes; ctypes.CDLL('libfuse3.so.3'); print('libfuse3.so.3')"
    ) or _probe(sys.executable, "-c", "import ctypes; ctypes.CDLL('libfuse3.so.4'); print('libfuse3.so.4')")
    if found is None:
        return Check("libfuse", "missing", "libfuse3 can't be loaded", install_command("fuse3", "libfuse3-dev"))
    return Check("libfuse", "ok", found)


def check_pyfuse3() -> Check:
    """Python's binding to libfuse, tried in a process of its own since a broken one may crash."""
    if importlib.util.find_spec("pyfuse3") is None:
        fix = f"{install_command('libfuse3-dev', 'pkg-config', 'gcc', 'python3-dev')} && {sys.executable} -m pip install pyfuse3"
        return Check("pyfuse3", "missing", "not installed", fix)
    version = _probe(sys.executable, "-c", "import pyfuse3; print(pyfuse3.__version__)")
    if version is None:
        fix = f"{sys.executable} -m pip install --force-reinstall --no-cache-dir pyfuse3"
        return Check("pyfuse3", "missing", "can't be imported", fix)
    return Check("pyfuse3", "ok", version)


def check_allow_other(path: Path = Path("/etc/fuse.conf")) -> Check:
    """Whether an ordinary user's mount can be opened to others; root's always can."""
    name = "user_allow_other"
    if os.geteuid() == 0:
        return Check(name, "ok", "not needed by root")
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    if any(line.strip() == name for line in lines):
        return Check(name, "ok", f"in {path}")
    return Check(name, "note", f"not in {path}: only you see your mounts", f"echo {name} | sudo tee -a {path}")


def check_cache_dir(directory: Path | None) -> Check:
    """Whether local state can be kept, and the room for it."""
    path = directory or default_cache_dir()
    try:
        prepare_cache_dir(path)
        free = shutil.disk_usage(path).free
    except (MvcfsError, OSError) as error:
        return Check("cache directory", "missing", str(error), "choose another one with --cache-dir")
    if free < _LOW_SPACE_BYTES:
        detail = f"{path}: only {format_size(free)} free"
        return Check("cache directory", "missing", detail, "free some space, or choose another one with --cache-dir")
    return Check("cache directory", "ok", f"{path}: {format_size(free)} free")


def check_hadoop_conf(directory: Path | None) -> Check:
    """Whether Hadoop's configuration, where there is one, can be read."""
    name = "HADOOP_CONF_DIR"
    if directory is None:
        return Check(name, "note", "not set: fine for hdfs://host:port stores")
    core = directory / "core-site.xml"
    for path in (core, directory / "hdfs-site.xml"):
        try:
            ElementTree.parse(path)
        except FileNotFoundError:
            if path == core:
                return Check(
                    name, "missing", f"there is no {path}", f"set {name} to the folder with core-site.xml, or unset it"
                )
        except (OSError, ElementTree.ParseError) as error:
            return Check(name, "missing", f"{path}: {error}", f"mend {path}")
    return Check(name, "ok", str(directory))


def check_git() -> Check:
    """Git and git-lfs, which only exchange with plain Git needs."""
    version, lfs = _probe("git", "--version"), _probe("git-lfs", "version")
    if version is None:
        return Check("git", "note", "not found; git-import needs it", install_command("git", "git-lfs"))
    if lfs is None:
        return Check(
            "git", "note", f"{version}, no git-lfs, which git-import of an address needs", install_command("git-lfs")
        )
    return Check("git", "ok", f"{version}, {lfs.split(' ')[0]}")


def check_java() -> Check:
    """Java, which only the HDFS of the tests needs."""
    version = _probe("java", "-version")
    if version is None:
        fix = install_command("default-jdk-headless")
        return Check("Java", "note", "not found; only mvcfs's own tests need it", fix)
    return Check("Java", "ok", version)


def check_store(url: str, stores: StoreOptions) -> Check:
    """Whether a store answers within its deadlines and is one."""
    import trio

    from mvcfs.versions.store import Store

    async def look() -> str:

        storage = await open_store(url, stores)
        try:
            return (await Store.open(storage)).id
        finally:
            await storage.aclose()

    try:
        return Check("store", "ok", f"{url}: id {trio.run(look)}")
    except MvcfsError as error:
        return Check("store", "missing", f"{url}: {error}")
