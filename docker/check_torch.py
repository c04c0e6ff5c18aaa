"""Stop an image's build if PyTorch is not the build that was asked for: any, cpu or cuda."""

import sys

import torch

wanted, installed = sys.argv[1], "cpu" if torch.version.cuda is None else "cuda"
if wanted not in ("any", installed):
    sys.exit(
        f"TORCH_BUILD={wanted}, but pip installed the {installed} build {torch.__version__}: "
        "name the right package index with --build-arg TORCH_INDEX=URL (PyTorch's 'Get started' page shows them)"
    )
print(f"PyTorch {torch.__version__} ({installed})")
