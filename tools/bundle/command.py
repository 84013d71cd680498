"""``python -m tools bundle``: look at a bundle before you run it, pack it, publish it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.command_words import shown_place
from common.errors import ConfigError

from ..bundle_files import Configuration, bundle_folders, configurations, find_bundle, read_json, walk
from ..terminal import say
from .checks import check_bundle, merged, statements
from .zip import MAX_BYTES, MAX_FILES, unpack

__all__ = ["Bundle", "verify_network"]


def verify_network(folder: Path, **overrides: Any) -> None:
    """The zoo's ``verify_net_in_out`` on the CPU: builds ``network_def`` and feeds it one random tensor.

    Args:
        folder: the bundle.
        overrides: configuration ids and values, for example ``_meta_::network_data_format::…`` for a smaller input.

    Raises:
        ConfigError: when the output's channels or type differ from ``metadata.json``.
    """
    from monai.bundle import verify_net_in_out

    arguments: dict[str, Any] = {
        "net_id": "network_def",
        "meta_file": str(folder / "configs" / "metadata.json"),
        "config_file": str(folder / "configs" / "inference.json"),
        "device": "cpu",
        "bundle_root": str(folder),
    }
    try:
        verify_net_in_out(**arguments, **overrides)
    except (ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"the network does not do what metadata.json says: {error}",
            where=folder,
            hint="compare network_data_format with network_def in configs/inference.json",
        ) from error


class Bundle:
    """Check bundles, pack them for the model zoo, unpack and publish them."""

    def list(self) -> None:
        """Name the bundles of this collection with version and task."""
        for folder in bundle_folders():
            path = folder / "configs" / "metadata.json"
            meta = read_json(path) if path.is_file() else {}
            say(f"{folder.name:<22} {meta.get('version', '-'):<8} {meta.get('task', '(no metadata)')}")

    def show(self, bundle: str, config: str = "train") -> None:
        """List what running a bundle would call and evaluate, without doing it.

        Args:
            bundle: name or folder.
            config: a file name without ``.json``, or ``base+overlay``, for example ``train+smoke``.
        """
        folder = find_bundle(bundle)
        known = {c.name: c for c in configurations(folder)}
        known |= {c.files[-1].stem: c for c in known.values()}
        if config not in known:
            raise ConfigError(f"no configuration {config!r}", where=folder, expected=", ".join(sorted(known)))
        self._show(known[config])

    @staticmethod
    def _show(configuration: Configuration) -> None:
        say(f"{configuration.name}: {' + '.join(map(shown_place, configuration.files))}")
        content = merged(configuration)
        for where, value in walk(content):
            if isinstance(value, dict) and "_target_" in value:
                say(f"  call      {where} = {value['_target_']}")
        for where, text in statements(content):
            say(f"  evaluate  {where} = {text[1:]}")

    def check(self, bundle: str = "all", *, quiet: bool = False, run: bool = False) -> None:
        """Check one bundle or ``all`` against the zoo's rules and ours.

        Lists every ``_target_`` and every ``$`` expression of the bundle (it is code: MONAI evaluates it), then every
        finding. Nothing of the bundle is executed unless ``run`` is given.

        Args:
            bundle: name, folder or ``all``.
            quiet: show the findings only.
            run: also build the network and feed it (the zoo's ``verify_net_in_out``). Only for bundles you trust.

        Raises:
            ConfigError: when there is at least one error, after all were printed.
        """
        folders = bundle_folders() if bundle == "all" else [find_bundle(bundle)]
        errors = 0
        for folder in folders:
            findings = check_bundle(folder)
            if not quiet and not any(f.check == "strings" for f in findings):
                for configuration in (c for c in configurations(folder) if len(c.files) == 1):
                    self._show(configuration)
            for finding in findings:
                say(f"{folder.name}: {finding.severity}: {finding.check}: {finding.where}: {finding.problem}")
            wrong = sum(f.severity == "error" for f in findings)
            say(f"{folder.name}: {wrong} errors, {len(findings) - wrong} pieces of advice")
            errors += wrong
            if run and not wrong:
                verify_network(folder)
                say(f"{folder.name}: the network takes and gives what metadata.json says")
        if errors:
            raise ConfigError(f"{errors} errors in {len(folders)} bundles", hint="mend what is listed above")

    def pack(
        self, bundle: str = "all", *, out: str = "dist", weights: str | None = None, weights_url: str | None = None,
        weights_licence: str | None = None, torchscript: bool = False, force: bool = False,
    ) -> None:  # fmt: skip
        """Write a self-contained folder and ``<bundle>_v<version>.zip``, the same bytes each time.

        The code that the bundle names is read from its configurations and imports, renamed to ``<bundle>_bundle`` and
        put beside them. Nothing of the collection is needed to run the folder.

        Args:
            bundle: name, folder or ``all``.
            out: the folder to write into.
            weights: weights to ship; the bundle's own ``models/model.pt`` by default, none if it has none.
            weights_url: leave the weights out and write ``large_files.yml`` with this address and their sha256.
            weights_licence: one sentence that says under what the weights may be passed on.
            torchscript: also write ``models/model.ts``, checked against the network on three inputs.
            force: replace folders that are there.
        """
        from .pack import pack_bundle

        folders = bundle_folders() if bundle == "all" else [find_bundle(bundle)]
        if len(folders) > 1 and (weights or weights_url):
            raise ConfigError("weights belong to one bundle", where="--weights", hint="name the bundle")
        for folder in folders:
            done = pack_bundle(
                folder, out, weights=weights, weights_url=weights_url, weights_licence=weights_licence,
                torchscript=torchscript, force=force,
            )  # fmt: skip
            say(f"{done.zip}: {done.modules} modules, {done.weights}")
            say(f"{done.folder}: the same, unpacked")

    def unpack(self, file: str, out: str, *, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> None:
        """Unpack a bundle's zip; links, paths out of the folder and bombs are refused. Nothing of it is run.

        Args:
            file: the zip.
            out: the folder to unpack into.
            max_files: entries that are accepted.
            max_bytes: bytes, unpacked, that are accepted.
        """
        folder = unpack(file, out, max_files=max_files, max_bytes=max_bytes)
        say(f"{folder}: look at it with python -m tools bundle check {shown_place(folder)} before you run it")

    def push(self, folder: str, repo: str, *, private: bool = True, latest: bool = False, yes: bool = False) -> None:
        """Send a packed folder to a Hugging Face repository, as ``monai.bundle.push_to_hf_hub`` does.

        Only what was packed is sent. The token is the one that ``hf auth login`` stored, or ``HF_TOKEN``.

        Args:
            folder: a folder that ``bundle pack`` wrote.
            repo: ``user/name``.
            private: whether a repository that is made is private.
            latest: also tag it ``latest_version``, which MONAI loads when no version is asked for.
            yes: send without asking.
        """
        from ..question import ask
        from .push import push_bundle

        say(push_bundle(Path(folder), repo, private=private, latest=latest, confirm=_agreed if yes else ask))


def _agreed(question: str) -> bool:
    say(question.replace("?", ": yes"))
    return True
