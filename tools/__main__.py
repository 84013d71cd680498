"""``python -m tools COMMAND``: one door to every command, each imported only when it is asked for."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from common.errors import AmalgamationError, ConfigError, cause_of, visible

from .command_line import parse_by_annotations, with_values
from .terminal import visible_output

__all__ = ["COMMANDS", "help_text", "main"]

_HELP = frozenset({"--help", "-h", "-help"})
_FLAG = re.compile(r"--?(?=[a-zA-Z])|--")  # what Fire takes for an option, one dash or two

COMMANDS: dict[str, str] = {
    "doctor": "what is installed, whether it was tested together, what to run next",
    "phantom": "write the synthetic multi-modality collection (data/phantom)",
    "data": "check, convert, split, merge and list datasets and collections",
    "amalgamate": "experts and scans in, one student that answers as they do in one pass out",
    "chain": "train the experts that are missing, amalgamate them, evaluate, report",
    "train": "run one bundle's training",
    "evaluate": "score one bundle on a dataset or collection",
    "predict": "segment a scan, a folder of scans or a DICOM series",
    "compare": "methods and baselines on one collection, split and budget: one table, one page",
    "report": "one HTML page out of finished runs",
    "bench": "measure speed, with an equality check beside each figure",
    "weights": "look into weight files and compare them",
    "experts": "describe an expert from elsewhere; add a modality to an M4oE, a decoder to a SAM-Med3D-MoE",
    "export": "write the inference network as TorchScript, torch.export or ONNX, with a parity check",
    "bundle": "check a bundle without running its code; pack, unpack and publish it",
    "label": "serve a trained model to 3D Slicer and OHIF through MONAI Label",
}


def usage() -> str:
    """The list of commands."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return (
        f"usage: python -m tools COMMAND [ARGUMENTS] [--debug]\n\n{rows}\n\n"
        "python -m tools COMMAND --help shows a command's arguments; --debug shows tracebacks."
    )


def find(name: str) -> Any:
    """The function or class behind a command: ``<name>`` or ``<Name>`` of ``tools.<name>``.

    A command that is a package keeps it in its module ``command``.

    Raises:
        ConfigError: for an unknown command, with the nearest known one.
    """
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean 'python -m tools {close[0]}'?" if close else "python -m tools --help"
        raise ConfigError(f"there is no command {name!r}", expected=", ".join(COMMANDS), hint=hint)
    module = importlib.import_module(f"tools.{name}")
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"tools.{name}.command")
    for attribute in (name, name.capitalize()):
        component = getattr(module, attribute, None)
        if component is not None:
            return component() if inspect.isclass(component) else component
    raise AttributeError(f"{module.__name__} defines neither {name} nor {name.capitalize()}")


def refuse_unknown_flags(component: Any, arguments: Sequence[str], *, where: str) -> None:
    """Refuse misspelt ``--flags`` and words too many before anything runs (Fire would run first and complain then).

    Args:
        component: a function, or an object whose methods are sub-commands.
        arguments: what follows the command's name.
        where: the command, for the message.

    Raises:
        ConfigError: for a flag that the function does not take, with the nearest one that it does; for a word that
            none of its arguments takes, and a lone ``-``, behind which Fire would take words for parts of the result.
    """
    target, named = _function(component, arguments)
    if target is None or _HELP & set(arguments):
        return
    where = " ".join([where, *named])
    parameters = inspect.signature(target).parameters
    _refuse_extra_words(parameters, arguments[: _own(arguments)], named, where)
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    for word in arguments[: _own(arguments)]:
        flag = _FLAG.sub("", word, count=1).split("=")[0].replace("-", "_")
        short = word[1:2] == flag and sum(p.startswith(flag) for p in parameters) == 1  # -o, of one option alone
        if _FLAG.match(word) and not short and not {flag, flag.removeprefix("no")} & set(parameters):
            close = difflib.get_close_matches(flag, parameters, n=1)
            raise ConfigError(
                f"unknown option {word.split('=')[0]}",
                where=where,
                expected=", ".join(f"--{p}" for p in parameters) or "no options",
                hint=f"did you mean --{close[0]}?" if close else f"python -m tools {where} --help",
            )


def _refuse_extra_words(
    parameters: Mapping[str, inspect.Parameter], words: Sequence[str], named: Sequence[str], where: str
) -> None:
    """Refuse the first word that Fire would find no argument for, counted as Fire counts."""
    free = [n for n, p in parameters.items() if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    takes_rest = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters.values())
    left, extra = list(words), list[str]()
    for name in named:
        left.remove(name)
    while left:
        word = left.pop(0)
        if not _FLAG.match(word):
            extra.append(word)
            continue
        flag = _FLAG.sub("", word, count=1).split("=")[0].replace("-", "_")
        short = [p for p in parameters if p.startswith(flag)] if word[1:2] == flag else []
        for name in {flag, flag.removeprefix("no"), *(short if len(short) == 1 else ())} & set(free):
            free.remove(name)
        followed = "=" not in word and bool(left) and not _FLAG.match(left[0])
        if flag not in parameters and flag.removeprefix("no") in parameters and (followed or "=" in word):
            raise ConfigError("a switch that is turned off by no... takes no value", where=where, got=word,
                              hint=f"--{flag.removeprefix('no')}=False")  # fmt: skip
        if followed:
            left.pop(0)
    if "-" in extra or (len(extra) > len(free) and not takes_rest):
        word = "-" if "-" in extra else extra[len(free)]
        got = " ".join(map(ascii, extra))[:200]
        raise ConfigError(f"there is a word too many: {word!a:.100}", where=where, got=got,
                          expected=" ".join(n.upper() for n in free) or "options alone",
                          hint=f"python -m tools {where} --help")  # fmt: skip


def _own(arguments: Sequence[str]) -> int:
    """How many of the words are the command's: what follows the last ``--`` is Fire's."""
    return len(arguments) - 1 - arguments[::-1].index("--") if "--" in arguments else len(arguments)


def help_text(component: Any, arguments: Sequence[str], *, where: str) -> str:
    """The help of a command, or of the sub-command that is named, with nothing run: Fire runs what needs no argument.

    Args:
        component: as of :func:`refuse_unknown_flags`.
        arguments: what follows the command's name.
        where: the command.

    Raises:
        ConfigError: for a sub-command that there is not.
    """
    from fire.helptext import HelpText
    from fire.trace import FireTrace

    trace = FireTrace(component, name=where)
    target, named = _function(component, arguments)
    if target is None and (word := next((a for a in arguments if not a.startswith("-")), None)) is not None:
        known = [m for m in dir(component) if not m.startswith("_")]
        close = difflib.get_close_matches(word, known, n=1)
        group, where = where, " ".join([where, *close])
        raise ConfigError(f"there is no sub-command {word!a:.100}", where=group, expected=", ".join(known),
                          hint=f"python -m tools {where} --help")  # fmt: skip
    for name in named:
        trace.AddAccessedProperty(target, name, [name], None, None)
    return str(HelpText(component if target is None else target, trace))


def _function(component: Any, arguments: Sequence[str]) -> tuple[Any, list[str]]:
    """The function that a command line means, and the sub-command's name; no function when it names none."""
    if inspect.isroutine(component):
        return component, []
    named = [a for a in arguments if not a.startswith("-")][:1]
    name = named[0].replace("-", "_") if named else "_"
    target = None if name.startswith("_") else getattr(component, name, None)
    return (target, named) if callable(target) else (None, [])


def call(arguments: Sequence[str]) -> None:
    """Run one command line (without the program's name)."""
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(usage())
        return
    name, *rest = arguments
    component = find(name)
    if _HELP & set(rest):
        print(help_text(component, rest, where=name))
        return
    function, _ = _function(component, rest)
    if function is not None:
        rest = with_values(rest, function)
        parse_by_annotations(function)
    refuse_unknown_flags(component, rest, where=name)
    import fire

    os.environ.setdefault("PAGER", "cat")
    fire.Fire(component, command=rest, name=name)


def guarded(run: Callable[[], None], *, debug: bool) -> int:
    """Exit status of ``run``: 2 with a plain message for errors that the user can act on, 130 for Ctrl-C."""
    try:
        run()
    except AmalgamationError as error:
        if debug:
            raise
        print(visible(f"{type(error).__name__}: {error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except RuntimeError as error:  # what MONAI makes of a refusal within a configuration or a chain of transforms
        found = cause_of(error, AmalgamationError)
        if debug or found is None:
            raise
        print(visible(f"{type(found).__name__}: {found}"), file=sys.stderr)
        return 2
    except OSError as error:  # a place that cannot be read or written is no fault of the code
        if debug or error.filename is None:
            raise
        place = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else str(error.filename)
        print(visible(f"{type(error).__name__}: {place[:300]}: {error.strerror or error}"), file=sys.stderr)
        return 2
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m tools`` and of the ``amalgam`` script."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    with visible_output():
        return guarded(lambda: call([w for w in words if w != "--debug"]), debug=debug)


if __name__ == "__main__":
    sys.exit(main())
