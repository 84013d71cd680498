"""A foreign bundle's configuration: all of it comes from the bundle, and all that it calls can be read beforehand."""

import json

import pytest

from common.errors import AmalgamationError, ConfigError, ExpertError
from common.experts.bundle_config import bundle_parser, calls_of


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes a bundle's configuration; one stands in another folder, with files of the same names."""
    root = tmp_path / "zoo"
    (root / "configs").mkdir(parents=True)
    payload = {"net": {"_target_": "os.system", "command": "touch ran"}}
    for name in ("outside.json", "configs/inner.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(payload))
    (root / "configs" / "inner.json").write_text(json.dumps({"net": [{"_target_": "UNet", "x": "@width"}], "n": 3}))
    monkeypatch.chdir(tmp_path)

    def write(**config):
        (root / "configs" / "inference.json").write_text(json.dumps(config))
        return root / "configs" / "inference.json", root

    return write


def test_a_part_of_another_file_of_the_bundle_is_read_from_there_wherever_one_stands(written):
    parser = bundle_parser(*written(width=2, network_def="%configs/inner.json::net#0", n=["%configs/inner.json#n"]))
    assert parser.get("network_def") == {"_target_": "UNet", "x": "@width"} and parser.get("n") == [3]
    assert calls_of(parser) == ["call      UNet"]


@pytest.mark.parametrize(
    "config",
    [
        {"network_def": "%outside.json::net"},
        {"network_def": "%../outside.json::net"},
        {"network_def": "%{here}/outside.json"},
        {"a": [{"b": "%{here}/outside.json::net"}]},
        {"a": {"{here}/outside.json": "%#net"}},  # a place within itself, put together to the name of a file
        {"a": "%#../outside.json::net"},
        {"a": "%configs/none.JSON"},
        {"a": "%configs/inner.json::other"},
        {"a": "%x\n{here}/outside.json::net"},
        {"a": {}, "a::b": "%outside.json::net"},
    ],
)
def test_a_file_out_of_the_bundle_is_refused(written, tmp_path, config):
    file, root = written(**json.loads(json.dumps(config).replace("{here}", str(tmp_path))))
    with pytest.raises(ExpertError, match=r"outside of the bundle|does not have|file's name|no such part"):
        bundle_parser(file, root)


def test_files_in_files_and_too_many_of_them_are_refused(written):
    file, root = written(a=["%configs/big.json"] * 100)
    (root / "configs" / "big.json").write_text(json.dumps("x" * 200_000).join(('{"a": ', "}")))
    with pytest.raises(ExpertError, match="reads too much"):
        bundle_parser(file, root)
    for inner in ({"a": ["%configs/inner.json"]}, {"a": {"b.json": 1}}):
        (root / "configs" / "big.json").write_text(json.dumps(inner))
        with pytest.raises(ExpertError, match=r"names a further one|file's name"):
            bundle_parser(file, root)
    (root / "configs" / "inference.json").write_text('{"a::b": 1}')
    with pytest.raises(ConfigError, match="cannot be read"):
        bundle_parser(file, root)


@pytest.mark.parametrize(
    "config, line",
    [
        ({"net": {"_target_": "Linear"}, "net::_target_": "os.system"}, "call      os.system"),
        ({"name": "os.system", "net": {"_target_": "%name"}}, "call      %name = os.system"),
        ({"name": "os.system", "net": {"_target_": "@name"}}, "call      @name = os.system"),
        ({"n": ["os.system"], "net": {"a": {"_target_": "@#b", "b": "%n#0"}}}, "call      @#b = %n#0 = os.system"),
        ({"net": {"_target_": "@none"}}, "call      @none = something that cannot be seen here"),
        ({"net": {"_target_": "$__import__('os').system"}}, "evaluate  __import__('os').system"),
        ({"a": "@b", "b": {"_target_": "@c"}, "c": "@c"}, "call      " + " = ".join(["@c"] * 20)),
        ({"a": "%b::c"}, "read      b::c"),
        ({"a": {"_target_": "x\x1b[31m"}}, "call      x\\x1b[31m"),
    ],
)
def test_what_a_configuration_calls_is_listed_by_its_name(written, config, line):
    file, root = written(**config)
    try:
        found = calls_of(bundle_parser(file, root))
    except AmalgamationError as error:
        pytest.fail(str(error))
    assert line in found, found
