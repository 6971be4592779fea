"""Export an adapter or a model as verified, quantized GGUF: `python convert/export_gguf.py SOURCE --out DIR`."""

from __future__ import annotations

import logging
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sgft_edge.errors import InputError
from sgft_edge.host.files import place
from sgft_edge.host.machine import MB
from sgft_edge.terminal import words
from sgft_edge.terminal.run import run
from sgft_edge.terminal.streams import remark, say

if TYPE_CHECKING:
    from convert.pipeline import Result

_DATA = Path(__file__).resolve().parent.parent / "train" / "data"
_TRAIN, _DEV = _DATA / "solution_guidance.train.jsonl", _DATA / "solution_guidance.dev.jsonl"


class _Command(click.Command):
    """Keeps its arguments as they came, for the card."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["arguments"] = list(args)
        return super().parse_args(ctx, args)


@click.command(
    "export_gguf", cls=_Command, context_settings={"help_option_names": ["-h", "--help"], "show_default": True}
)
@click.argument("source", metavar="ADAPTER_OR_MODEL", type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=words.path, metavar="DIR", help="A folder that is not there.")
@click.option("--name", help="Of the export.  [default: the source's]", show_default=False)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["merged", "adapter", "both"]),
    help="[default: merged]",
    show_default=False,
)
@click.option("--quant", default="Q8_0", metavar="TYPE,...", help="llama.cpp's file types; F32, F16 and BF16 as well.")
@click.option("--base", metavar="BASE", help="A folder, a GGUF file, a known model's name, or OWNER/NAME on the hub.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", help="To merge in.")
@click.option(
    "--unquantized",
    type=click.Choice(["F32", "F16", "BF16"]),
    help="What is quantized.  [default: the weights' own type]",
    show_default=False,
)
@click.option("--adapter-type", type=click.Choice(["F32", "F16", "Q8_0"]), default="F16")
@click.option(
    "--imatrix",
    default=str(_TRAIN),
    metavar="DATA|none",
    help="Problems (.jsonl), a text, or a finished matrix (.gguf).",
    show_default="the training data",
)
@click.option("--imatrix-rows", default=128, metavar="N", help="How many of them are read.")
@click.option(
    "--tensor-type", "tensor_types", multiple=True, metavar="PATTERN=TYPE", help="Another type for some tensors."
)
@click.option("--allow-requantize", is_flag=True, help="Take a model that is quantized already.")
@click.option("--pre", metavar="NAME", help="llama.cpp's name of an unknown pre-tokenizer.")
@click.option(
    "--converter",
    type=words.path,
    metavar="PATH",
    help="A llama.cpp checkout, for other architectures.",
)
@click.option("--verify/--no-verify", default=True, help="Prove the files before they appear.")
@click.option("--verify-data", type=words.path, default=_DEV, metavar="FILE", show_default="the dev data")
@click.option("--verify-rows", default=20, metavar="N")
@click.option(
    "--max-logit-error",
    type=words.number(0),
    metavar="E",
    help="[default: 1e-3 for F32, 0.01 for F16, 0.05 for BF16]",
    show_default=False,
)
@click.option(
    "--max-kld", type=words.number(0), default=1.0, metavar="NATS", help="Of a quantized file from the unquantized one."
)
@click.option(
    "--min-agreement", type=words.number(0, 1), default=0.5, metavar="SHARE", help="Of most likely tokens, likewise."
)
@click.option("--force", is_flag=True, help="Replace the folder.")
def command(source: Path, **given: Any) -> int:
    """Export a PEFT adapter, or a model, as GGUF files that are proven to be what was trained.

    ADAPTER_OR_MODEL is an adapter's folder, a model's folder as transformers writes it, or a GGUF file.
    """
    try:
        from convert.pipeline import export
    except ImportError as e:
        raise click.ClickException(f"{e}: run `pip install -e '.[convert]'` in the checkout") from e
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, about their own future
        logging.getLogger("gguf").setLevel(logging.ERROR)  # its guesses about tokenizers, which are proven here
        result = export(_options(source, given))
    for warning in result.warnings:
        remark(f"export_gguf: warning: {warning}")
    _report(result)
    return 0


def _options(source: Path, given: dict[str, Any]) -> Any:
    import torch

    from convert.proof import Limits
    from convert.quantize import check_type, parse_override
    from convert.request import Options

    if given["format_"] == "adapter" and _was_given("quant"):
        raise InputError("--quant: an adapter has no quantized model; its own type is --adapter-type")
    limits = Limits(max_kld=given["max_kld"], min_agreement=given["min_agreement"])
    if (error := given["max_logit_error"]) is not None:
        limits = Limits(error, error, error, max_kld=given["max_kld"], min_agreement=given["min_agreement"])
    return Options(
        source=source,
        out=given["out"],
        name=given["name"],
        format=given["format_"] or "merged",
        quants=tuple(check_type(name) for name in given["quant"].split(",") if name.strip()),
        base=given["base"],
        dtype=getattr(torch, given["dtype"]),
        unquantized=given["unquantized"],
        adapter_type=given["adapter_type"],
        pre=given["pre"],
        imatrix=_imatrix("none" if given["converter"] and not _was_given("imatrix") else given["imatrix"]),
        imatrix_rows=given["imatrix_rows"],
        overrides=dict(parse_override(text) for text in given["tensor_types"]),
        allow_requantize=given["allow_requantize"],
        verify=given["verify"],
        verify_data=_file("--verify-data", given["verify_data"]) if given["verify"] else None,
        verify_rows=given["verify_rows"],
        limits=limits,
        converter=given["converter"],
        force=given["force"],
        command=shlex.join(["python", "convert/export_gguf.py", *click.get_current_context().meta["arguments"]]),
    )


def _was_given(name: str) -> bool:
    from click.core import ParameterSource

    return click.get_current_context().get_parameter_source(name) is not ParameterSource.DEFAULT


def _imatrix(text: str) -> Path | None:
    return None if text == "none" else _file("--imatrix", place(text))


def _file(option: str, path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{option}: expected a file, found none at {path}")
    return path


def _report(result: Result) -> None:
    """The checks, and what each quantized file costs."""
    from rich.table import Table

    from sgft_edge.terminal.display import PlainConsole

    console = PlainConsole(soft_wrap=True)
    for check in result.proof.checks:
        console.print(f"{'ok  ' if check.passed else 'FAIL'} {check.name}: {check.found}")
    if result.proof.quantized:
        table = Table(box=None, pad_edge=False)
        for title in ("TYPE", "MB", "BITS/WEIGHT", "KLD", "TOP-1", "PERPLEXITY", "TENSORS"):
            table.add_column(title, justify="left" if title in ("TYPE", "TENSORS") else "right", no_wrap=True)
        table.add_row("unquantized", "", "", "", "", f"{result.proof.reference_perplexity:.3f}", "")
        for q in result.proof.quantized:
            types = ", ".join(f"{count} {kind}" for kind, count in q.types.items())
            figures = (f"{q.bytes / MB:.1f}", f"{q.bits_per_weight:.2f}", f"{q.kld:.4f}", f"{q.agreement:.3f}")
            table.add_row(q.type, *figures, f"{q.perplexity:.3f}", types)
        console.print(table)
    for name, role in result.files.items():
        say(f"{role}: {result.folder / name}")


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run(command, argv, "export_gguf")


if __name__ == "__main__":
    sys.exit(main())
