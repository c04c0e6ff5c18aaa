"""Speed, size and error of every installed codec, on one core, beside a copy of the same memory in the same run.

    python -m benchmarks.codecs [--d 10000000] [--codecs int8,bf16] [--repeats 5] [--json]

Speeds are MB (10^6 bytes) of float32 input a second, those of the fastest of the repeats, since others on the machine
only slow it down. `encode` ends with the bytes in memory; `open` checks a received message; `decode` is that check
and all elements, 65,536 at a time, as the rules read them. `of copy` is the speed of encoding by that of the copy.
The error is ||decoded - x|| / ||x||; a codec of plain signs is held against its vector times the best factor.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from pydantic import JsonValue
from rich.console import Console
from rich.table import Table
from torch import Tensor

from covey.codecs.contract import CODECS, Codec, CodecContext
from covey.errors import CoveyError
from covey.vectors import TensorVector, Vector, spans

WIDTH = 1 << 16
AIMS = {"bf16": 1000.0, "int8": 1000.0, "sign": 2000.0}
"""MB a second that encode and decode should have at least."""
OPTIONS: dict[str, dict[str, JsonValue]] = {
    "dp-sign": {"epsilon": 0.5, "delta": 1e-5, "clip": 1.0},
    "sto-sign": {"bound": 4.0},
}
"""Of codecs that cannot do without; all others are measured with their defaults."""


@dataclass(frozen=True)
class Measured:
    """What one codec did."""

    codec: str
    size: int
    """Bytes of the message."""
    bits_per_element: float
    encode_mb_s: float
    open_mb_s: float
    decode_mb_s: float
    encode_of_copy: float
    decode_of_copy: float
    relative_error: float

    @property
    def met(self) -> bool | None:
        """Whether the codec is as fast as it should be; None where nothing is asked."""
        aim = AIMS.get(self.codec)
        return None if aim is None else min(self.encode_mb_s, self.decode_mb_s) >= aim


def fastest(action: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest run, after one that does not count."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return min(times[1:])


def encode_into(out: memoryview, codec: Codec, vector: Tensor, context: CodecContext) -> int:
    """Encode, copy the pieces one behind the other, and return their size in bytes."""
    at = 0
    for piece in codec.encode(TensorVector(vector), context):
        out[at : at + piece.nbytes] = piece
        at += piece.nbytes
    return at


def decode_all(reader: Vector) -> None:
    """Read every element once."""
    out = torch.empty(WIDTH)
    for columns in spans(reader.d, WIDTH):
        reader.read(columns, out[: columns.stop - columns.start])


def relative_error(reader: Vector, vector: Tensor, signs: bool) -> float:
    """||decoded - x|| / ||x|| in float64, block by block; with `signs` of the decoded vector times its best factor."""
    inner = own = whole = lost = 0.0
    for columns in spans(reader.d, WIDTH):
        x, y = vector[columns].double(), reader.read(columns).double()
        inner, own, whole = inner + float(x @ y), own + float(y @ y), whole + float(x @ x)
        lost += float((x - y).square().sum())
    if signs:
        lost = whole - inner**2 / own
    return float((lost / whole) ** 0.5)


def measure(name: str, vector: Tensor, copy_mb_s: float, repeats: int) -> Measured:
    """Measure one codec with the options in `OPTIONS`."""
    codec = CODECS.make(name, OPTIONS.get(name, {}))
    context, d = CodecContext(seed=1, round=1), len(vector)
    memory = memoryview(bytearray(codec.encoded_bytes(d)))
    size = encode_into(memory, codec, vector, context)
    data, megabytes = memory[:size], 4 * d / 1e6
    encode = megabytes / fastest(lambda: encode_into(memory, codec, vector, context), repeats)
    check = megabytes / fastest(lambda: codec.reader(data, d), repeats)
    decode = megabytes / fastest(lambda: decode_all(codec.reader(data, d)), repeats)
    error = relative_error(codec.reader(data, d), vector, codec.signs)
    ratios = encode / copy_mb_s, decode / copy_mb_s
    return Measured(name, size, 8 * size / d, encode, check, decode, *ratios, error)


def copy_speed(vector: Tensor, repeats: int) -> float:
    """MB a second of copying the vector to memory that is there."""
    out = torch.empty_like(vector)
    return 4 * len(vector) / 1e6 / fastest(lambda: out.copy_(vector), repeats)


def show(measured: list[Measured], copy_mb_s: float, d: int) -> None:
    """The results as a table."""
    table = Table(title=f"{d:,} float32 on one core; a copy of them: {copy_mb_s:,.0f} MB/s")
    for column in ("codec", "bytes", "bits", "encode MB/s", "of copy", "open MB/s", "decode MB/s", "rel. error", "aim"):
        table.add_column(column, justify="left" if column in ("codec", "aim") else "right", no_wrap=True)
    for row in measured:
        aim = f">= {AIMS[row.codec]:,.0f}: {'met' if row.met else 'MISSED'}" if row.met is not None else ""
        speeds = (
            f"{row.encode_mb_s:,.0f}",
            f"{row.encode_of_copy:.2f}",
            f"{row.open_mb_s:,.0f}",
            f"{row.decode_mb_s:,.0f}",
        )
        cells = f"{row.size:,}", f"{row.bits_per_element:.3f}", *speeds, f"{row.relative_error:.2e}"
        table.add_row(row.codec, *cells, aim)
    Console(width=None if sys.stdout.isatty() else 130).print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the results; exit code 0, whatever the speeds."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.codecs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--d", type=int, default=10_000_000, help="number of elements")
    parser.add_argument("--codecs", help="names with commas between them; all that are installed if not given")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    given = parser.parse_args(arguments)
    if given.d < 1 or given.repeats < 1:
        parser.error("--d and --repeats must be at least 1")
    torch.set_num_threads(1)
    vector = torch.randn(given.d, generator=torch.Generator().manual_seed(1))
    names = given.codecs.split(",") if given.codecs else [plugin.name for plugin in CODECS.installed()]
    copy_mb_s = copy_speed(vector, given.repeats)
    try:
        measured = [measure(name, vector, copy_mb_s, given.repeats) for name in names]
    except CoveyError as error:
        print(f"benchmarks.codecs: {error}", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps({"d": given.d, "copy_mb_s": copy_mb_s, "rows": [asdict(row) for row in measured]}))
    else:
        show(measured, copy_mb_s, given.d)
    return 0


if __name__ == "__main__":
    sys.exit(main())
