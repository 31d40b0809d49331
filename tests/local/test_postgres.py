"""The embedded Postgres: data that persist, a cluster of another version, a killed initdb, and root."""

import os
from pathlib import Path

import psycopg2
import pytest

from ctrip.errors import MisconfiguredError
from ctrip.local.postgres import answers, embedded_postgres
from tests.conftest import running

pytestmark = pytest.mark.infra


def ask(url: str, statement: str) -> object:
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone() if cursor.description else None
    finally:
        connection.close()


def test_data_persist_over_a_stop_and_only_a_socket_is_open(tmp_path: Path) -> None:
    program, url = embedded_postgres(tmp_path / "pg")
    with running(program, tmp_path):
        ask(url, "CREATE TABLE kept AS SELECT 7 AS number")
        assert ask(url, "SHOW listen_addresses") == ("",)
    assert not answers(url)
    assert (tmp_path / "pg" / "run").stat().st_mode & 0o777 == 0o700
    program, url = embedded_postgres(tmp_path / "pg")
    with running(program, tmp_path):
        assert ask(url, "SELECT number FROM kept") == (7,)


def test_a_folder_too_deep_for_a_socket_gets_one_in_tmp(tmp_path: Path) -> None:
    program, url = embedded_postgres(tmp_path / ("deep" * 25) / "pg", durable=False)
    assert "host=/tmp/ctrip-" in url
    with running(program, tmp_path):
        assert ask(url, "SELECT 1") == (1,)


def test_a_cluster_of_another_major_version_is_refused_in_words(tmp_path: Path) -> None:
    cluster = tmp_path / "pg" / "cluster"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("15\n")
    with pytest.raises(MisconfiguredError) as refused:
        embedded_postgres(tmp_path / "pg")
    assert "was written by Postgres 15; the installed one is 18" in refused.value.detail
    assert "DATA_DIR" in refused.value.detail
    assert "DATABASE_URL" in refused.value.detail


def test_a_killed_initdb_leaves_no_half_cluster(tmp_path: Path) -> None:
    unfinished = tmp_path / "pg" / "cluster.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    program, url = embedded_postgres(tmp_path / "pg", durable=False)
    with running(program, tmp_path):
        assert ask(url, "SELECT 1") == (1,)


def test_root_without_user_namespaces_where_nobody_cannot_go_is_told_three_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(MisconfiguredError, match=r"ordinary user, .*out of /root, or set DATABASE_URL"):
        embedded_postgres(closed / "pg", namespaces=False)
