"""A codec for Covey: 16-bit integers under one scale, 2 bytes an element and 4 for the scale."""

import numpy as np
import torch
from covey.vectors import ComputedVector
from covey.vectors import BLOCK_ELEMENTS, spans
from covey.codecs.blocked import as_bytes, require_size
from covey.codecs.contract import Codec
from covey.errors import LayoutError

STEPS = 32767


class Int16(Codec):
    """round(x * 32767 / max|x|), little-endian; the error of an element is at most max|x| / 65534."""

    def encoded_bytes(self, d, layout=None):
        return 4 + 2 * d

    def encode(self, source, context):
        blocks = spans(source.d, BLOCK_ELEMENTS)
        scale = max((float(source.read(columns).abs().max()) for columns in blocks), default=0.0)
        yield memoryview(np.float32(scale).tobytes())
        for columns in blocks:
            steps = (source.read(columns) * (STEPS / scale if scale else 0.0)).round().clamp(-STEPS, STEPS)
            yield memoryview(steps.to(torch.int16).numpy()).cast("B")

    def reader(self, buffer, d, layout=None):
        data = as_bytes(buffer)
        require_size(len(data), self.encoded_bytes(d), d, "int16")
        return Int16Reader(data, d)


class Int16Reader(ComputedVector):
    """Decodes any columns."""

    def __init__(self, data, d):
        super().__init__(d)
        self._scale, self._steps = float(data[:4].view("<f4")[0]), data[4:].view("<i2")
        if not (np.isfinite(self._scale) and self._scale >= 0):
            raise LayoutError(f"a scale of {self._scale} is not a scale")

    def decode(self, columns, out):
        out.copy_(torch.from_numpy(self._steps[columns].astype(np.float32))).mul_(self._scale / STEPS)
