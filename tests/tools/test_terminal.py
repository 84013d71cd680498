"""Whatever a command's libraries print or warn of is no order to a terminal."""

import sys
import warnings

import pytest
from tqdm import tqdm

from tools.terminal import visible_output


def test_warnings_and_errors_are_visible_and_bars_move(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stderr
    with visible_output():
        sys.stderr.write(warnings.formatwarning("\x1b[31mred", UserWarning, "net", 1))  # as warnings are shown
        print("\x1b[2J", file=sys.stderr)
        with tqdm(total=2, mininterval=0) as bar:
            bar.update(2)
    told = capsys.readouterr().err
    assert "\x1b[31m" not in told and "\x1b[2J" not in told and "\\x1b[31mred" in told and "\r" in told
    assert sys.stderr is before
