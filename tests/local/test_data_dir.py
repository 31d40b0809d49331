"""One stack at a time on one folder."""

import subprocess
import time
from pathlib import Path

import pytest

from ctrip.errors import MisconfiguredError
from ctrip.local.data_dir import held
from ctrip.local.files import read_json, write_private_json
from ctrip.local.keys import keep_keys


def test_a_second_start_on_the_same_folder_is_refused_in_words(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(MisconfiguredError, match="another stack is running on"), held(tmp_path):
        pass
    with held(tmp_path):
        pass


def test_a_start_waits_for_the_children_that_a_killed_supervisor_left(tmp_path: Path) -> None:
    begun = time.monotonic()
    with held(tmp_path) as lock:
        child = subprocess.Popen(["sleep", "0.5"], pass_fds=(lock,))
    with held(tmp_path):
        assert time.monotonic() - begun > 0.4
    child.wait()


def test_the_keys_are_made_once_and_only_their_owner_may_read_them(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys = keep_keys(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert keep_keys(path) == keys
    assert keep_keys(tmp_path / "other.json") != keys
    assert keys.mnemonic not in repr(keys)
    assert keys.gas_key not in repr(keys)


def test_a_damaged_file_of_keys_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write_private_json(path, {"mnemonic": "half of it"})
    with pytest.raises(MisconfiguredError, match="must hold exactly"):
        keep_keys(path)
    assert read_json(path) == {"mnemonic": "half of it"}
