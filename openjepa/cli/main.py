"""The command line `jepa COMMAND`: find the command, run it, turn errors into one sentence."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from openjepa.recipes.registry import RECIPES, load_recipe, recipe_summary
from openjepa.training.config import Pretrain, load_config
from openjepa.training.perf.allocator import retain_freed_memory

HELP = """jepa: Joint-Embedding Predictive Architectures

  jepa pretrain [RECIPE] --data.root FOLDER --out RUN    an encoder from unlabelled images
  jepa probe RUN --data.root LABELLED                    linear and kNN accuracy beside baselines
  jepa show RUN PICTURES                                 masks, feature maps, predictions; map, curves, spectrum
  jepa report RUN …                                      a run, or several side by side, in one page
  jepa explore RUN FOLDER                                a page to click: patches, neighbours, hidden boxes, a map
  jepa decode train RUN                                  a decoder: what a representation holds, drawn as pixels
  jepa compare RUN RUN … --data.root LABELLED            several encoders, peers' too, in one table
  jepa suite RUN --folders cifar10=FOLDER                many tasks in one table; goes on where it stopped
  jepa embed RUN FOLDER --out photos.safetensors         a row of features for every picture
  jepa search photos.safetensors PICTURE                 the pictures most like one: a table, a sheet, a page
  jepa duplicates photos.safetensors                     groups of pictures that are nearly the same
  jepa cluster photos.safetensors                        pictures in groups, and a page of them
  jepa predict RUN PICTURES                              classes, by a classifier that jepa probe kept
  jepa export RUN --format hf                            for other tools: hf, timm, onnx, torch, safetensors, official
  jepa convert FILE --out FOLDER                         weights of the authors, Hugging Face or timm, for every verb
  jepa push FOLDER NAME/REPOSITORY                       an export to the Hugging Face hub
  jepa demo                                              scenes rendered, learnt and measured in some minutes
  jepa doctor FOLDER                                     what is wrong with a folder, before hours are spent
  jepa shards make FOLDER OUT                            a folder as tar files, smaller if asked; every verb reads them
  jepa bench [RECIPE]                                    images/s, and the share of what this machine can do
  jepa recipes [NAME]                                    the recipes, or what is known of one

jepa VERB --help lists a verb's settings. Start with: jepa pretrain --data.root photos/ --out runs/photos"""

DECODE = """jepa decode: what a representation holds, drawn as pixels

  jepa decode train RUN               a decoder on top of a run, which stays as it is
  jepa decode sample DECODER PICTURES each picture drawn several times from what the representation holds of it
  jepa decode measure DECODER PICTURES   whether what is drawn agrees with what it was drawn from, beside a control

jepa decode train --help lists a word's settings"""


def main(arguments: list[str] | None = None) -> int:
    """Runs a verb; the exit status: 0 done, 1 a sentence on standard error, 2 no such verb, 128+n saved after signal n."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP)
        return 0
    if arguments[0] not in VERBS:
        print(f"jepa: no verb {arguments[0]!r}: there are {', '.join(VERBS)}; see jepa --help", file=sys.stderr)
        return 2
    retain_freed_memory()
    return guarded(VERBS[arguments[0]], [switch(each) for each in arguments[1:]])


def switch(typed: str) -> str:
    """A switch that is written with a value, as it is without: of --method.centre=false, --method.no-centre."""
    found = re.fullmatch(r"(--(?:[\w-]+\.)*)([\w-]+)=(true|false)", typed, re.IGNORECASE)
    return f"{found[1]}{'' if found[3].lower() == 'true' else 'no-'}{found[2]}" if found else typed


def guarded(verb: Callable[[list[str]], None], arguments: list[str]) -> int:
    """Runs a verb; what a person can mend is told in a sentence, what they cannot is a traceback."""
    from openjepa.core.errors import Interrupted, UserError

    try:
        verb(arguments)
    except Interrupted as stop:
        print(f"jepa: {stop}; go on with --resume", file=sys.stderr)
        return 128 + stop.number
    except KeyboardInterrupt:
        print("jepa: stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # who read our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (UserError, OSError) as error:
        print(f"jepa: {sentence(error)}", file=sys.stderr)
        return 1
    return 0


def sentence(error: Exception) -> str:
    """What went wrong; of what the system itself refused, where, and what to look at."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}: check that path, its permissions and its disk"
    return str(error)


def pretrain(arguments: list[str]) -> None:
    import tyro

    from openjepa.training.parallel.slurm import submit_to_slurm
    from openjepa.training.run import pretrain as run

    typed = ["pretrain", *arguments]
    arguments = [
        "--resume=yes" if each == "--resume" and bare(arguments, place) else each
        for place, each in enumerate(arguments)
    ]
    default, rest = starting_point(arguments)
    settings = tyro.cli(
        type(default), prog="jepa pretrain [RECIPE]", args=rest, default=default, config=(tyro.conf.AvoidSubcommands,)
    )
    if settings.slurm.nodes and not settings.dry_run:
        submit_to_slurm(settings, typed, main)
    else:
        say_typed(default, settings)
        run(settings)


def say_typed(default: Any, settings: Any) -> None:
    """What a new run has otherwise than chosen for it, or than its recipe says, as typed."""
    from openjepa.core.console import info
    from openjepa.training.config import config_differences

    typed = config_differences(default, settings)
    if typed and not (settings.out / "config.json").exists() and os.environ.get("RANK", "0") == "0":
        info(f"typed      {'; '.join(typed)}")


def bare(arguments: list[str], place: int) -> bool:
    """Whether a flag stands without its value."""
    return place + 1 == len(arguments) or arguments[place + 1].startswith("--")


def starting_point(arguments: list[str]) -> tuple[Any, list[str]]:
    """The config that the flags change: a resumed run's own, a recipe's, or one chosen for the images and the machine."""
    import dataclasses

    from openjepa.core.console import info
    from openjepa.recipes.auto import choose_config, start_from_run

    name, rest = (arguments[0], arguments[1:]) if arguments and not arguments[0].startswith("-") else (None, arguments)
    out, resume = Path(value_of(rest, "--out") or "runs/pretrain"), value_of(rest, "--resume")
    if resume in ("yes", "if-any") and (out / "config.json").is_file():
        return dataclasses.replace(load_config(out), out=out), rest
    if name:
        return load_recipe(name), rest
    root = values_of(rest, "--data.root")
    helping = "-h" in rest or "--help" in rest
    # a job chooses where it runs
    leaving = any(each.startswith("--slurm.") for each in rest) and "--dry-run" not in rest
    if not root or helping or leaving:
        return Pretrain(), rest
    threads = value_of(rest, "--threads") or ""  # of each process; what is no number is refused with the other flags
    all_threads = int(threads) * int(os.environ.get("WORLD_SIZE", "1")) if threads.isdecimal() else 0
    found = choose_config(root, value_of(rest, "--budget") or "", value_of(rest, "--device") or "auto", all_threads)
    begun = Path(value_of(rest, "--init-from") or "")
    if begun.name and (begun / "config.json").is_file():
        found = start_from_run(found, load_config(begun), begun)
    if os.environ.get("RANK", "0") == "0":
        info("\n".join(f"chosen     {reason}" for reason in found.reasons) + "; flags change it")
    return found.config, rest


def values_of(arguments: list[str], flag: str) -> tuple[str, ...]:
    """The values behind a flag, before the rest of the line is understood."""
    for place, each in enumerate(arguments):
        if each.startswith(f"{flag}="):
            return (each.removeprefix(f"{flag}="),)
        if each == flag:
            end = next((p for p in range(place + 1, len(arguments)) if arguments[p].startswith("--")), len(arguments))
            return tuple(arguments[place + 1 : end])
    return ()


def value_of(arguments: list[str], flag: str) -> str | None:
    return next(iter(values_of(arguments, flag)), None)


def verb(name: str, settings: str, module: str) -> Callable[[list[str]], None]:
    """A verb by the names of its function and its config, imported when it is called."""

    def called(arguments: list[str]) -> None:
        import tyro

        found = import_module(f"openjepa.{module}")
        getattr(found, name)(tyro.cli(getattr(found, settings), prog=f"jepa {name}", args=arguments))

    return called


def demo(arguments: list[str]) -> None:
    import tyro

    from openjepa.cli.demo import Demo
    from openjepa.cli.demo import demo as run

    run(tyro.cli(Demo, prog="jepa demo", args=arguments))


def doctor(arguments: list[str]) -> None:
    import tyro

    from openjepa.cli.doctor import Doctor
    from openjepa.cli.doctor import doctor as run

    run(tyro.cli(Doctor, prog="jepa doctor", args=arguments))


def shards(arguments: list[str]) -> None:
    import tyro

    from openjepa.cli.shards import make_shards as run
    from openjepa.core.errors import UserError
    from openjepa.data.shards import Shards

    rest = arguments[1:] if arguments[:1] == ["make"] else arguments
    if rest == arguments and rest not in (["-h"], ["--help"]):
        raise UserError("shards are made by jepa shards make FOLDER OUT; see jepa shards make --help")
    run(tyro.cli(Shards, prog="jepa shards make", args=rest))


def show(arguments: list[str]) -> None:
    from difflib import get_close_matches

    import tyro

    from openjepa.cli.show import FIGURES, Show
    from openjepa.cli.show import show as run
    from openjepa.core.errors import UserError

    name = arguments[0] if arguments and arguments[0] in FIGURES else None
    if (
        not name
        and arguments
        and (near := get_close_matches(arguments[0], FIGURES, 1))
        and not Path(arguments[0]).exists()
    ):
        raise UserError(f"there is no picture {arguments[0]!r}: did you mean jepa show {near[0]}?")
    settings = FIGURES[name].settings if name else Show
    run(tyro.cli(settings, prog=" ".join(filter(None, ("jepa show", name))), args=arguments[1 if name else 0 :]))


def explore(arguments: list[str]) -> None:
    import tyro

    from openjepa.viz.explorer.page import explore as run
    from openjepa.viz.explorer.session import Explore

    run(tyro.cli(Explore, prog="jepa explore", args=arguments))


def decode(arguments: list[str]) -> None:
    import tyro

    from openjepa.cli.decoder import MeasureDecoder, SampleDecoder, measure_decoder, sample_decoder, train_decoder
    from openjepa.core.errors import UserError
    from openjepa.recipes.decoder import TrainDecoder

    kinds = {
        "train": (TrainDecoder, train_decoder),
        "sample": (SampleDecoder, sample_decoder),
        "measure": (MeasureDecoder, measure_decoder),
    }
    name = arguments[0] if arguments else ""
    if name in ("-h", "--help"):
        print(DECODE)
        return
    if name not in kinds:
        raise UserError(
            f"a decoder is used by jepa decode {'|'.join(kinds)}, as in jepa decode train RUN; each has a --help"
        )
    settings, run = kinds[name]
    run(tyro.cli(settings, prog=f"jepa decode {name}", args=arguments[1:]))


def bench(arguments: list[str]) -> None:
    import tyro

    from openjepa.cli.bench import Bench
    from openjepa.cli.bench import bench as run

    default, rest = starting_point(arguments)
    settings = Bench(**vars(default))
    run(tyro.cli(Bench, prog="jepa bench [RECIPE]", args=rest, default=settings, config=(tyro.conf.AvoidSubcommands,)))


def list_recipes(arguments: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    if arguments:
        load_recipe(arguments[0])
        print(RECIPES[arguments[0]].__doc__)
        return
    table = Table("recipe", "what it is")
    for name in RECIPES:
        table.add_row(name, recipe_summary(name))
    Console().print(table)


VERBS = {
    "pretrain": pretrain,
    "probe": verb("probe", "Probe", "evaluate.probing"),
    "compare": verb("compare", "Compare", "evaluate.probing"),
    "suite": verb("suite", "Suite", "evaluate.suite"),
    "embed": verb("embed", "Embed", "evaluate.embedding"),
    "search": verb("search", "Search", "retrieval.searching"),
    "duplicates": verb("duplicates", "Duplicates", "retrieval.twins"),
    "cluster": verb("cluster", "Cluster", "retrieval.clusters"),
    "predict": verb("predict", "Predict", "evaluate.predicting"),
    "export": verb("export", "Export", "exchange"),
    "convert": verb("convert", "Convert", "exchange"),
    "push": verb("push", "Push", "exchange"),
    "show": show,
    "report": verb("report", "Report", "figures.report"),
    "decode": decode,
    "explore": explore,
    "demo": demo,
    "doctor": doctor,
    "shards": shards,
    "bench": bench,
    "recipes": list_recipes,
}
