"""`unrolled doctor` tells the truth about this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unrolled.engines import ENGINES


@pytest.mark.slow
def test_it_names_versions_engines_and_the_cache(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "kept.npy").write_bytes(bytes(3 << 20))
    command = [sys.executable, "-m", "unrolled", "doctor", "--json"]
    environment = {**os.environ, "UNROLLED_CACHE": str(tmp_path)}
    found = json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)
    assert found["torch"] == torch.__version__ and set(found["engines"]) == set(ENGINES)
    assert found["cache"].startswith(f"{tmp_path}, ") and int(found["cache"].split(", ")[1].split()[0]) >= 3
    assert all(isinstance(ms, float) and ms > 0 for ms in found["engines"]["loop"].values())
