"""A store that is named by a nameservice of Hadoop's configuration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.hdfs_service import Cluster
from tests.mount.harness import Mount, mvcfs

pytestmark = [pytest.mark.hdfs, pytest.mark.mount]


def test_a_mount_by_a_nameservice_from_a_relative_configuration_folder(
    hdfs_url: str, hdfs_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "dfs.nameservices": "models",
        "dfs.ha.namenodes.models": "nn1,nn2",
        "dfs.namenode.rpc-address.models.nn1": "127.0.0.1:9",
        "dfs.namenode.rpc-address.models.nn2": hdfs_cluster.url.removeprefix("hdfs://"),
        "dfs.namenode.http-address.models.nn2": f"127.0.0.1:{hdfs_cluster.ports['namenode-http']}",
    }
    rows = "".join(
        f"<property><name>{name}</name><value>{value}</value></property>" for name, value in settings.items()
    )
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "hdfs-site.xml").write_text(f"<configuration>{rows}</configuration>")
    (tmp_path / "conf" / "core-site.xml").write_text("<configuration></configuration>")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HADOOP_CONF_DIR", "conf")
    url = "hdfs://models" + hdfs_url.removeprefix(hdfs_cluster.url) + "/store"
    mvcfs("init", url)
    mount = Mount(url, tmp_path)
    try:
        mount.start()
        (mount.point / "m").mkdir()
        (mount.point / "m/main/f").write_text("by name")
        assert mount.commit()["version"] == 1
        assert (mount.snapshot(1) / "f").read_text() == "by name"
        room = os.statvfs(mount.point)
        assert 0 < room.f_bavail * room.f_frsize < 1 << 50
        mount.umount()
    finally:
        mount.close()
