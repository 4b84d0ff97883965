"""A real HDFS on loopback: one NameNode and two DataNodes, each its own JVM, in a folder of their own.

`scripts/hdfs` is its command line and the test suite imports it. Standard library only, since it runs before anything is
installed. All state is in the folder: `cluster.json` (ports), `conf/`, `name/`, `data1/`, `data2/`, `logs/`, `*.pid`.

Invariants: a process is signalled only if it was recorded here and its command line still carries this folder's name;
whoever changes the state holds the lock file; every operation may be repeated and mends what an interrupted one left.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parent
ROOT = SCRIPTS.parent
POM = SCRIPTS / "hdfs-pom.xml"
DEFAULT_DIRECTORY = ROOT / "build" / "hdfs"
DEFAULT_JARS = ROOT / "build" / "hadoop-jars"
HOST = "127.0.0.1"
DATANODES = (1, 2)
START_S = 120.0
STOP_S = 20.0
FIRST_PORT, LAST_PORT = 20000, 31000  # below the ports that the kernel hands out for outgoing connections

SETTINGS = {
    "dfs.replication": "2",
    "dfs.namenode.fs-limits.min-block-size": "65536",
    "dfs.namenode.safemode.extension": "0",
    "dfs.namenode.safemode.min.datanodes": "1",
    "dfs.namenode.datanode.registration.ip-hostname-check": "false",
    # A dead DataNode is noticed within seconds: 2 * recheck + 10 * heartbeat.
    "dfs.heartbeat.interval": "1",
    "dfs.namenode.heartbeat.recheck-interval": "2000",
    # With two DataNodes one of them is easily "too busy" beside the other, and a write fails.
    "dfs.namenode.redundancy.considerLoad": "false",
    # Without this a close waits half a second for the block report of the second replica.
    "dfs.namenode.file.close.num-committed-allowed": "1",
    # A DataNode that starts before its NameNode asks again after 100 ms rather than sleep 5 s.
    "ipc.client.connect.max.retries": "600",
    "ipc.client.connect.retry.interval": "100",
}
LOG4J = """log4j.rootLogger=INFO,console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.target=System.err
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{ISO8601} %p %c{2}: %m%n
"""


class ClusterError(Exception):
    """What a user is told, without a traceback."""


def fetch_jars(directory: Path | None = None) -> Path:
    """The folder of Hadoop's jars, filled by Maven when it isn't yet; MVCFS_HADOOP_JARS names one that is."""
    given = os.environ.get("MVCFS_HADOOP_JARS")
    if given:
        if not any(Path(given).glob("hadoop-hdfs-[0-9]*.jar")):
            raise ClusterError(f"MVCFS_HADOOP_JARS={given} holds no hadoop-hdfs jar")
        return Path(given)
    jars = directory or DEFAULT_JARS
    done = jars / ".complete"
    wanted = POM.read_text()
    jars.mkdir(parents=True, exist_ok=True)
    with _locked(jars / ".lock"):
        if done.exists() and done.read_text() == wanted:
            return jars
        for old in jars.glob("*.jar"):
            old.unlink()
        command = [_tool("mvn", "maven"), "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise ClusterError(f"Maven could not fetch the Hadoop jars:\n{(result.stdout + result.stderr)[-3000:]}")
        done.write_text(wanted)
    return jars


def _tool(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ClusterError(f"`{name}` is not installed; on Debian or Ubuntu: apt-get install {package}")
    return found


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Cluster:
    """One HDFS in one folder. Threads: none; several processes may use one folder at once."""

    def __init__(self, directory: Path = DEFAULT_DIRECTORY, *, base_port: int | None = None):
        self.directory = directory.resolve()
        self.base_port = base_port
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    # -- what there is ------------------------------------------------------------------------------------------------

    @property
    def ports(self) -> dict[str, int]:
        """Ports by name; chosen once, so that an address stays valid over restarts."""
        path = self.directory / "cluster.json"
        if not path.exists():
            raise ClusterError(f"no HDFS in {self.directory}; make one with: scripts/hdfs start")
        ports: dict[str, int] = json.loads(path.read_text())["ports"]
        return ports

    @property
    def url(self) -> str:
        """The address of its root, without a trailing slash."""
        return f"hdfs://{HOST}:{self.ports['namenode']}"

    def pid(self, role: str) -> int | None:
        """The process of `namenode`, `datanode1` or `datanode2`, or None when it isn't running."""
        try:
            pid = int((self.directory / f"{role}.pid").read_text())
            child = self._children.get(pid)
            if child is not None:
                child.poll()
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self._mark(role)) in arguments else None

    def live_datanodes(self) -> int:
        """How many DataNodes the NameNode believes in; -1 while it doesn't answer or is in safe mode."""
        state = self._jmx("namenode-http", "Hadoop:service=NameNode,name=FSNamesystemState")
        if not state or state.get("FSState") != "Operational":
            return -1
        return int(state["NumLiveDataNodes"])

    def _serves(self, datanode: str) -> bool:
        """Whether this very process has registered; the NameNode may still count the one that died before it."""
        state = self._jmx(f"{datanode}-http", "Hadoop:service=DataNode,name=DataNodeInfo")
        actors = json.loads((state or {}).get("BPServiceActorInfo") or "[]")
        return bool(actors) and all(
            actor.get("ActorState") == "RUNNING"
            and actor.get("NamenodeHaState") == "active"
            and int(actor.get("LastHeartbeat", 99)) <= 3
            for actor in actors
        )

    def _jmx(self, port: str, bean: str) -> dict[str, Any] | None:
        url = f"http://{HOST}:{self.ports[port]}/jmx?qry={bean}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=5) as answer:
                beans = json.load(answer)["beans"]
        except (OSError, ValueError):
            return None
        return beans[0] if beans else None

    def _mark(self, role: str) -> str:
        return f"-Dmvcfs.cluster={self.directory}:{role}"

    def admin(self, *arguments: str) -> None:
        """Runs `hdfs dfsadmin` with the arguments."""
        java, jars = _tool("java", "default-jre-headless"), fetch_jars()
        command = [
            java,
            "-cp",
            f"{self.directory / 'conf'}:{jars}/*",
            "org.apache.hadoop.hdfs.tools.DFSAdmin",
            *arguments,
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise ClusterError(f"dfsadmin {' '.join(arguments)}:\n{result.stderr[-3000:]}")

    # -- starting -----------------------------------------------------------------------------------------------------

    def start(self) -> str:
        """Starts what isn't running, waits until all of it works, returns the address."""
        java, jars = _tool("java", "default-jre-headless"), fetch_jars()
        with _locked(self.directory / "lock"):
            self._prepare(java, jars)
            for role in ("namenode", *(f"datanode{number}" for number in DATANODES)):
                self._launch(role, java, jars)
            self._wait()
        return self.url

    def start_namenode(self) -> None:
        """Starts the NameNode again and waits until it has left safe mode."""
        self._restart("namenode")

    def start_datanode(self, number: int) -> None:
        """Starts a DataNode again and waits until it has registered."""
        self._restart(f"datanode{_checked(number)}")

    def _restart(self, role: str) -> None:
        java, jars = _tool("java", "default-jre-headless"), fetch_jars()
        with _locked(self.directory / "lock"):
            if not self._formatted():
                raise ClusterError(f"no HDFS in {self.directory}; make one with: scripts/hdfs start")
            self._launch(role, java, jars)
            self._wait()

    def _formatted(self) -> bool:
        return (self.directory / "name" / "current" / "VERSION").exists()

    def _prepare(self, java: str, jars: Path) -> None:
        """Ports, configuration and a formatted NameNode; a half-made one is made anew."""
        for folder in ("logs", "conf/webapps/hdfs", "conf/webapps/datanode"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
        if not (self.directory / "cluster.json").exists():
            self._write("cluster.json", json.dumps({"ports": self._choose_ports()}))
        self._write("conf/log4j.properties", LOG4J)
        self._write("conf/core-site.xml", _site({"fs.defaultFS": self.url}))
        self._write(
            "conf/hdfs-site.xml",
            _site({**SETTINGS, "dfs.namenode.http-address": f"{HOST}:{self.ports['namenode-http']}"}),
        )
        if self._formatted():
            return
        for folder in ("name", *(f"data{number}" for number in DATANODES)):
            shutil.rmtree(self.directory / folder, ignore_errors=True)
        command = [*self._command("namenode", java, jars), "-format", "-nonInteractive", "-force"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise ClusterError(f"the NameNode could not be formatted:\n{result.stderr[-3000:]}")

    def _write(self, name: str, text: str) -> None:
        temporary = self.directory / f"{name}.new"
        temporary.write_text(text)
        temporary.rename(self.directory / name)

    def _choose_ports(self) -> dict[str, int]:
        names = ["namenode", "namenode-http"]
        names += [f"datanode{number}{kind}" for number in DATANODES for kind in ("", "-http", "-ipc")]
        if self.base_port is not None:
            return {name: self.base_port + index for index, name in enumerate(names)}
        ports: dict[str, int] = {}
        while len(ports) < len(names):
            port = random.randrange(FIRST_PORT, LAST_PORT)
            if port in ports.values():
                continue
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind((HOST, port))
                ports[names[len(ports)]] = port
        return ports

    def _command(self, role: str, java: str, jars: Path) -> list[str]:
        options = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true"]
        command = [java, *options, self._mark(role), "-cp", f"{self.directory / 'conf'}:{jars}/*"]
        ports = self.ports
        if role == "namenode":
            settings = {
                "dfs.namenode.rpc-address": f"{HOST}:{ports['namenode']}",
                "dfs.namenode.http-address": f"{HOST}:{ports['namenode-http']}",
                "dfs.namenode.name.dir": f"file://{self.directory / 'name'}",
            }
            command.append("org.apache.hadoop.hdfs.server.namenode.NameNode")
        else:
            settings = {
                "dfs.datanode.address": f"{HOST}:{ports[role]}",
                "dfs.datanode.http.address": f"{HOST}:{ports[f'{role}-http']}",
                "dfs.datanode.ipc.address": f"{HOST}:{ports[f'{role}-ipc']}",
                "dfs.datanode.data.dir": f"file://{self.directory / role.replace('node', '')}",
            }
            command.append("org.apache.hadoop.hdfs.server.datanode.DataNode")
        return command + [part for key, value in settings.items() for part in ("-D", f"{key}={value}")]

    def _launch(self, role: str, java: str, jars: Path) -> None:
        if self.pid(role) is not None:
            return
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HADOOP_")}
        with (self.directory / "logs" / f"{role}.log").open("ab") as log:
            child = subprocess.Popen(
                self._command(role, java, jars),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=environment,
                start_new_session=True,
            )
        self._children[child.pid] = child
        self._write(f"{role}.pid", str(child.pid))
        end = time.monotonic() + 5  # between fork and exec the command line is still ours
        while self.pid(role) is None and child.poll() is None and time.monotonic() < end:
            time.sleep(0.01)

    def _wait(self) -> None:
        """Waits until all that was started works together."""
        started = [role for role in self._roles() if self.pid(role) is not None]
        datanodes = [role for role in started if role != "namenode"]
        end = time.monotonic() + START_S
        while self.live_datanodes() < len(datanodes) or not all(self._serves(role) for role in datanodes):
            dead = [role for role in started if self.pid(role) is None]
            if dead or "namenode" not in started or time.monotonic() > end:
                role = dead[0] if dead else "namenode"
                reason = (
                    "ended" if dead else "does not run" if role not in started else f"is not ready after {START_S:g} s"
                )
                raise ClusterError(f"the {role} {reason}; its log {self._log(role)} ends with\n{self._tail(role)}")
            time.sleep(0.1)

    def _roles(self) -> list[str]:
        return ["namenode", *(f"datanode{number}" for number in DATANODES)]

    def _log(self, role: str) -> Path:
        return self.directory / "logs" / f"{role}.log"

    def _tail(self, role: str) -> str:
        try:
            return self._log(role).read_text(errors="replace")[-2000:]
        except OSError:
            return "(no log)"

    # -- stopping -----------------------------------------------------------------------------------------------------

    def signal(self, role: str, number: signal.Signals) -> bool:
        """Sends a signal to a process of this cluster; False when it isn't running."""
        pid = self.pid(role)
        if pid is None:
            return False
        os.kill(pid, number)
        return True

    def pause(self, role: str) -> None:
        """Stops a process with SIGSTOP and waits until each of its threads has stopped; `signal` SIGCONT ends it."""
        self.signal(role, signal.SIGSTOP)
        end = time.monotonic() + STOP_S
        while time.monotonic() < end:
            states = [
                path.read_text().rpartition(")")[2].split()[0]
                for path in Path(f"/proc/{self.pid(role)}").glob("task/*/stat")
            ]
            if all(state in "Tt" for state in states):
                return
            time.sleep(0.01)
        raise ClusterError(f"the {role} did not stop")

    def kill(self, role: str) -> None:
        """Ends a process with SIGKILL and waits until it is gone."""
        self.signal(role, signal.SIGKILL)
        self._wait_gone(role, STOP_S)

    def kill_datanode(self, number: int) -> None:
        """Ends a DataNode as a crash would."""
        self.kill(f"datanode{_checked(number)}")

    def kill_namenode(self) -> None:
        """Ends the NameNode as a crash would."""
        self.kill("namenode")

    def stop(self) -> None:
        """Ends all processes, in good order if they react."""
        if not self.directory.exists():
            return
        with _locked(self.directory / "lock"):
            for role in reversed(self._roles()):
                self.signal(role, signal.SIGTERM)
                self.signal(role, signal.SIGCONT)
            for role in reversed(self._roles()):
                if not self._wait_gone(role, STOP_S):
                    self.kill(role)
                (self.directory / f"{role}.pid").unlink(missing_ok=True)

    def wipe(self) -> None:
        """Ends all processes and removes all data; the lock file stays, since somebody may be waiting for it."""
        self.stop()
        for name in ("conf", "name", "logs", *(f"data{number}" for number in DATANODES)):
            shutil.rmtree(self.directory / name, ignore_errors=True)
        (self.directory / "cluster.json").unlink(missing_ok=True)

    def _wait_gone(self, role: str, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self.pid(role) is not None:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def status(self) -> tuple[bool, str]:
        """Whether all of it works, and a description for people."""
        pids = {role: self.pid(role) for role in self._roles()}
        live = self.live_datanodes() if pids["namenode"] else -1
        lines = [f"{role}: {'stopped' if pid is None else f'running, pid {pid}'}" for role, pid in pids.items()]
        lines.append(f"live DataNodes: {live if live >= 0 else 'unknown, the NameNode does not answer'}")
        return live == len(DATANODES) and all(pids.values()), "\n".join([self.url, *lines])


def _checked(number: int) -> int:
    if number not in DATANODES:
        raise ClusterError(f"there is no DataNode {number}; the DataNodes are {' and '.join(map(str, DATANODES))}")
    return number


def _site(settings: dict[str, str]) -> str:
    rows = "".join(
        f"  <property><name>{key}</name><value>{value}</value></property>\n" for key, value in settings.items()
    )
    return f'<?xml version="1.0"?>\n<configuration>\n{rows}</configuration>\n'
