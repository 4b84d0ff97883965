from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from mvcfs.storage.address import open_storage
from mvcfs.storage.hdfs_space import cluster_space, configured_replication
from tests.hdfs_service import Cluster


class _Answers(BaseHTTPRequestHandler):
    body = b""

    def do_GET(self) -> None:
        self.send_response(200 if self.body else 401)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def web() -> Iterator[tuple[str, type[_Answers]]]:
    handler = type("_Own", (_Answers,), {})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", handler
    server.shutdown()
    thread.join()
    server.server_close()


def conf(folder: Path, **settings: str) -> str:
    rows = "".join(
        f"<property><name>{name.replace('__', '.')}</name><value>{value}</value></property>"
        for name, value in settings.items()
    )
    (folder / "hdfs-site.xml").write_text(f"<configuration>{rows}</configuration>")
    return str(folder)


def test_the_namenode_of_the_configuration_is_asked(web: tuple[str, type[_Answers]], tmp_path: Path) -> None:
    address, handler = web
    folder = conf(tmp_path, **{"dfs.namenode.http-address": address})
    handler.body = json.dumps({"beans": [{"CapacityTotal": 100, "CapacityRemaining": 40}]}).encode()
    assert cluster_space("127.0.0.1:1", folder) == (100, 40)


def test_the_namenodes_of_a_nameservice_are_asked_one_after_another(
    web: tuple[str, type[_Answers]], tmp_path: Path
) -> None:
    address, handler = web
    folder = conf(
        tmp_path,
        **{
            "dfs.ha.namenodes.ns": "gone, here",
            "dfs.namenode.http-address.ns.gone": "127.0.0.1:1",
            "dfs.namenode.http-address.ns.here": address,
        },
    )
    handler.body = json.dumps({"beans": [{"CapacityTotal": 7, "CapacityRemaining": 0}]}).encode()
    assert cluster_space("ns", folder) == (7, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"beans": []}',
        b'{"beans": [{"CapacityTotal": "x", "CapacityRemaining": 1}]}',
        b'{"beans": [{"CapacityTotal": 0, "CapacityRemaining": 0}]}',
    ],
)
def test_a_strange_answer_leaves_room_unknown(web: tuple[str, type[_Answers]], tmp_path: Path, body: bytes) -> None:
    address, handler = web
    handler.body = body
    assert cluster_space("127.0.0.1:1", conf(tmp_path, **{"dfs.namenode.http-address": address})) is None


def test_replication_is_read_from_the_configuration(tmp_path: Path) -> None:
    assert configured_replication(None) is None
    assert configured_replication(str(tmp_path)) is None
    assert configured_replication(conf(tmp_path, **{"dfs.replication": "2"})) == 2
    assert configured_replication(conf(tmp_path, **{"dfs.replication": "many"})) is None
    (tmp_path / "hdfs-site.xml").write_text("<configuration>")
    assert configured_replication(str(tmp_path)) is None


@pytest.mark.hdfs
async def test_a_store_on_hdfs_has_the_room_that_its_cluster_has(hdfs_url: str, hdfs_cluster: Cluster) -> None:
    settings = str(hdfs_cluster.directory / "conf")
    cluster = cluster_space(hdfs_url.removeprefix("hdfs://").partition("/")[0], settings)
    assert cluster is not None
    storage = await open_storage(hdfs_url, hadoop_conf_dir=settings)
    await storage.write_file("f", b"x" * 1000)
    space = await storage.space()
    await storage.aclose()
    assert space.free_bytes == pytest.approx(cluster[1] / 2, rel=0.2)
    assert space.total_bytes == pytest.approx(cluster[0] / 2, rel=0.2)
