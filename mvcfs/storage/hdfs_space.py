"""How much room an HDFS cluster has, as its NameNode's web server says.

The client speaks no call for it, and the number is for `df` only: whatever keeps the NameNode from answering within
moments (no such server, another port, a login it wants) makes it unknown, never an error. For a thread.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

_BEAN = "Hadoop:service=NameNode,name=FSNamesystemState"
_DEFAULT_PORT = 9870
_ANSWER_WITHIN_S = 3.0
_MOST_BYTES = 1 << 20
_ADDRESS = "dfs.namenode.http-address"
_CONFIG_FILES = ("core-site.xml", "hdfs-site.xml")


def cluster_space(authority: str, hadoop_conf_dir: str | None) -> tuple[int, int] | None:
    """The cluster's capacity and what is left of it, in bytes of disk, replicas counted; None if it can't be told.

    Args:
        authority: `host:port` of the NameNode, or the nameservice.
        hadoop_conf_dir: Hadoop's configuration, which may name the address of the web server.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for address in _web_addresses(authority, hadoop_conf_dir):
        try:
            with opener.open(f"http://{address}/jmx?qry={_BEAN}", timeout=_ANSWER_WITHIN_S) as answer:
                (bean,) = json.loads(answer.read(_MOST_BYTES))["beans"]
                total, left = int(bean["CapacityTotal"]), int(bean["CapacityRemaining"])
        except (OSError, urllib.error.URLError, http.client.HTTPException, ValueError, KeyError, TypeError):
            continue
        if total > 0 <= left:
            return total, left
    return None


def configured_replication(hadoop_conf_dir: str | None) -> int | None:
    """`dfs.replication` of Hadoop's configuration, None where it says none."""
    text = _settings(hadoop_conf_dir).get("dfs.replication", "")
    return int(text) if text.isdecimal() and int(text) > 0 else None


def _web_addresses(authority: str, hadoop_conf_dir: str | None) -> Iterator[str]:
    settings = _settings(hadoop_conf_dir)
    host, _, port = authority.rpartition(":") if ":" in authority else (authority, "", "")
    names = settings.get(f"dfs.ha.namenodes.{authority}", "")
    for name in filter(None, (part.strip() for part in names.split(","))):
        address = settings.get(f"{_ADDRESS}.{authority}.{name}")
        if address:
            yield address
    named = settings.get(_ADDRESS)
    if named:
        where, _, web_port = named.rpartition(":")
        yield f"{host}:{web_port}" if where in ("", "0.0.0.0") else named
    if port or not names:
        yield f"{host}:{_DEFAULT_PORT}"


def _settings(hadoop_conf_dir: str | None) -> dict[str, str]:
    """The properties of Hadoop's configuration; what can't be read says nothing."""
    found: dict[str, str] = {}
    for name in _CONFIG_FILES if hadoop_conf_dir else ():
        try:
            root = ElementTree.parse(Path(str(hadoop_conf_dir)) / name).getroot()
        except (OSError, ElementTree.ParseError):
            continue
        for entry in root.iter("property"):
            key, value = entry.findtext("name"), entry.findtext("value")
            if key and value:
                found[key.strip()] = value.strip()
    return found
