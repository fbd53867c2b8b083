"""The command line `jepa COMMAND`: find the command, run it, turn errors into one sentence."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from openjepa.cli.document import pop_json_switch, print_as_json
from openjepa.core.console import prepare_streams, print_line, warn
from openjepa.training.perf.allocator import retain_freed_memory
from openjepa.training.perf.openmp import set_openmp_defaults

# heading -> command -> (arguments, summary); its function is in cli/COMMAND.py, its settings in cli/settings.py
COMMANDS = {
    "Train": {
        "pretrain": ("[RECIPE] --data.root FOLDER --out RUN", "train an encoder on unlabeled images, clips or signals"),
        "demo": ("[DEMO]", "render scenes, train on them and measure the encoder, in minutes"),
        "collect": ("ENV --episodes 100 --out FOLDER", "record episodes of an environment, for world models"),
        "doctor": ("FOLDER", "check images or clips before training on them"),
        "labels": ("FOLDER", "describe labeled data: classes, splits, what is left out"),
        "shards": ("FOLDER OUT", "pack a folder into tar shards; every command reads them"),
        "bench": ("[RECIPE]", "samples/s, and the share of what this machine can do"),
        "recipes": ("[NAME]", "list the recipes, or describe one"),
    },
    "Measure": {
        "probe": ("RUN --data.root LABELED", "linear, logistic and kNN accuracy beside baselines"),
        "compare": ("RUN RUN … --data.root LABELED", "several encoders in one table, also other projects'"),
        "suite": ("RUN --folders cifar10=FOLDER", "many tasks in one table; resumes where it stopped"),
        "anomalies": ("RUN FILES --normal FOLDER", "score how unusual files are: faults, defects, errors"),
        "surprise": ("RUN VIDEO …", "when a video does what the predictor does not expect"),
        "horizon": ("RUN CLIPS", "error of predicted features by how far ahead they lie"),
        "equivariance": ("RUN IMAGES", "does an image world model know what a change of color does?"),
        "flow": ("RUN FIRST SECOND", "optical flow between two frames, as a file and in colors"),
        "predict": ("RUN IMAGES", "classify images with a classifier that `jepa probe` kept"),
    },
    "Look": {
        "show": ("RUN FILES", "masks, feature maps, predictions; also map, curves, spectrum"),
        "report": ("RUN …", "one page about a run, or several side by side"),
        "explore": ("RUN FILES", "an interactive page: click patches, hide regions, see neighbors"),
        "decoder": ("train|sample|measure …", "train a decoder on frozen features and draw what they contain"),
    },
    "Act": {
        "plan": ("RUN --mode 2", "let an agent act by planning, beside baselines; rooms or gymnasium"),
        "diagnose": ("RUN", "which module of an agent fails: porous walls, dynamics, critic"),
    },
    "Search": {
        "embed": ("RUN FOLDER --out photos.safetensors", "write a row of features for every file"),
        "search": ("photos.safetensors FILE", "find the most similar files"),
        "duplicates": ("photos.safetensors", "group files that are nearly the same"),
        "cluster": ("photos.safetensors", "cluster the files, with a page to look at them"),
    },
    "Exchange": {
        "export": ("RUN --format hf", "write for other tools: hf, timm, onnx, torch, safetensors, official"),
        "convert": ("WEIGHTS --out FOLDER", "read weights of the authors, Hugging Face or timm"),
        "push": ("FOLDER NAME/REPOSITORY", "upload an export to the Hugging Face hub"),
    },
}
NAMES = [name for group in COMMANDS.values() for name in group]
OWN_PARSERS = {"pretrain", "bench", "recipes"}  # commands whose module parses its arguments
PLUGINS = (
    "Every command takes --plugin FILE_OR_MODULE …: modalities, methods, masks, probes, tasks, recipes of your own."
)
JSON = "--json prints the result as one JSON document on standard output, and everything else on standard error."
START = "Start with: jepa pretrain --data.root photos/ --out runs/photos"


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return the exit status.

    0: done; 1: an error that the user can fix, one sentence on standard error; 2: unknown command; 128 + n: stopped by
    signal n, with everything saved.
    """
    prepare_streams()
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print_line(overview())
        return 0
    if arguments[0] not in NAMES:
        warn(f"unknown command {arguments[0]!r}{did_you_mean(arguments[0])}; see jepa --help")
        return 2
    if not working_folder_exists():
        print("jepa: the working folder has been removed: cd to a folder that exists", file=sys.stderr)
        return 1
    retain_freed_memory()
    set_openmp_defaults()
    return run_guarded(command(arguments[0]), arguments[1:])


def working_folder_exists() -> bool:
    """Return whether the shell's folder is still there; torch's libraries end the process without it."""
    try:
        return bool(os.getcwd())  # noqa: PTH109 (pathlib would be imported for it)
    except OSError:
        return False


def load_named_plugins(arguments: list[str]) -> list[str]:
    """Load the files and modules after --plugin; return the arguments without them.

    --plugin takes one value, and after it any number of further .py files; it can be repeated.
    """
    from openjepa.core.errors import UserError
    from openjepa.core.registry import load_plugins

    rest: list[str] = []
    sources: list[str] = []
    expects_value = expects_file = False
    for each in arguments:
        if each == "--plugin":
            expects_value = True
        elif each.startswith("--plugin="):
            sources.append(each.removeprefix("--plugin="))
        elif expects_value or (expects_file and each.endswith(".py")):
            sources.append(each)
            expects_value, expects_file = False, True
        else:
            expects_file = False
            rest.append(each)
    if expects_value:
        raise UserError("--plugin needs a file or a module: type --plugin my_plugin.py")
    load_plugins(sources)
    return rest


def overview() -> str:
    """Format the commands in groups, with their arguments and summaries."""
    lines = ["jepa: Joint-Embedding Predictive Architectures"]
    for heading, group in COMMANDS.items():
        lines += ["", f"{heading}:"]
        lines += [
            f"  jepa {f'{name} {arguments}'.strip():<49} {summary}" for name, (arguments, summary) in group.items()
        ]
    return "\n".join([*lines, "", PLUGINS, JSON, f"jepa COMMAND --help lists the settings of a command. {START}"])


def did_you_mean(typed: str) -> str:
    """Suggest the most similar command, if one is similar, and list all."""
    from difflib import get_close_matches

    similar = get_close_matches(typed, NAMES, 1)
    suggestion = f": did you mean {similar[0]}?" if similar else "."
    return f"{suggestion} Commands: {', '.join(NAMES)}"


def command(name: str) -> Callable[[list[str]], object]:
    """Return the function that runs a command on its arguments.

    It imports the command's module, and with it torch, only after the settings are parsed: --help is quick.
    """

    def call(arguments: list[str]) -> object:
        from openjepa.core.arguments import check_no_path_is_empty

        arguments = [normalize_switch(expand_tilde(each)) for each in arguments]
        as_json, arguments = pop_json_switch(name, arguments)
        with print_as_json(name, as_json) as document:
            check_no_path_is_empty(arguments)
            arguments = load_named_plugins(arguments)
            if name in OWN_PARSERS:
                document.result = import_module(f"openjepa.cli.{name}").main(arguments)
            else:
                settings = parse_settings(name, arguments)
                module = import_module(f"openjepa.cli.{name}")
                document.result = getattr(module, name)(settings)
                if as_json and hasattr(module, "describe_result"):
                    document.result = module.describe_result(settings, document.result)
        return document.result

    return call


def parse_settings(name: str, arguments: list[str]) -> Any:
    """Parse the arguments of a command. Prints and exits for --help and for wrong arguments."""
    import tyro

    from openjepa.cli.actions import choose_settings

    cls, prog, rest = choose_settings(name, arguments)
    return tyro.cli(cls, prog=prog, args=rest)


def expand_tilde(typed: str) -> str:
    """Rewrite `--out=~/runs` and a quoted `~/runs`, in which the shell leaves ~ as it is.

    Raises UserError if there is no such home, as for `~/runs` in some containers.
    """
    from openjepa.core.errors import UserError

    flag, path = re.fullmatch(r"(--[\w.-]+=)?(.*)", typed, re.DOTALL).groups("")  # pyright: ignore[reportOptionalMemberAccess]
    expanded = os.path.expanduser(path)  # noqa: PTH111 (leaves all else alone)
    if expanded.startswith("~"):
        raise UserError(f"{path} is below a home folder that this machine does not have: write the whole path")
    return flag + expanded


def normalize_switch(typed: str) -> str:
    """Rewrite `--x.flag=false` as `--x.no-flag`, and `--x.flag=true` as `--x.flag`."""
    match = re.fullmatch(r"(--(?:[\w-]+\.)*)([\w-]+)=(true|false)", typed, re.IGNORECASE)
    return f"{match[1]}{'' if match[3].lower() == 'true' else 'no-'}{match[2]}" if match else typed


def run_guarded(call: Callable[[list[str]], object], arguments: list[str]) -> int:
    """Run a command; print errors that the user can fix as one sentence, let all others end in a traceback."""
    from openjepa.core.errors import Interrupted, UserError

    try:
        call(arguments)
    except Interrupted as stop:
        warn(f"{stop}; resume with --resume")
        return 128 + stop.signal_number
    except KeyboardInterrupt:
        warn("stopped")
        return 128 + signal.SIGINT
    except (UserError, OSError) as error:
        warn(error_sentence(error))
        return 1
    return 0


def error_sentence(error: Exception) -> str:
    """Format an error; for one of the operating system with the path and what to check."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}: check that path, its permissions and its disk"
    return str(error)
