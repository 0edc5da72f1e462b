"""The recording of flame graphs."""

import subprocess
from pathlib import Path

import pytest

from tests.bench import flame


def test_a_recorder_that_does_not_end_is_killed_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(flame, "DRAW_SECONDS", 0.1)
    command = ["sh", "-c", "trap '' INT; echo recording; while true; do sleep 1; done"]
    recorder = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert recorder.stdout is not None
    assert recorder.stdout.readline() == "recording\n"
    flame._end(recorder, tmp_path / "flame-1.svg")
    assert recorder.returncode == -9
    assert "no flame graph" in capsys.readouterr().out
