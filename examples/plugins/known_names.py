"""An outgoing filter for Covey: nothing leaves but tensors that the site knows, and of enough examples."""

from covey.errors import PolicyError
from covey.options import PluginOptions
from covey.outgoing.filters import OutgoingFilter
from pydantic import Field


class KnownNames(OutgoingFilter):
    """Refuses an update with a tensor whose name begins with none of `names`, or of fewer than `examples` examples.

    What it lets pass it rounds to `digits` decimal digits: the last digits of a change tell most about single examples.
    """

    class Options(PluginOptions):
        """[[policy.outgoing]] options of `known-names`."""

        names: tuple[str, ...]
        examples: int = Field(default=1, ge=1)
        digits: int = Field(default=6, ge=0, le=9)

    options: Options

    def tensors(self, tensors, leaving):
        unknown = [name for name in tensors if not name.startswith(self.options.names)]
        if unknown:
            raise PolicyError(f"{unknown[0]!r} is no tensor that this site lets out")
        if leaving.examples < self.options.examples:
            raise PolicyError(f"{leaving.examples} examples are too few")
        return {
            name: tensor.round(decimals=self.options.digits) if tensor.is_floating_point() else tensor
            for name, tensor in tensors.items()
        }
