"""Weight files: read strictly, mapped, written in order; no tensor library needed.

``seal`` cuts files by their header, ``mark`` writes marked copies and reads suspects, ``tune`` and ``audit`` name model
directories by their digest::

    header = read_header(path)                     # strict; raises InvalidSafetensors
    tensors = open_model(directory)                # name -> Tensor, memory-mapped, bf16 as uint16
    values = tensors["lm_head.weight"].to_float32()
    adapter = open_adapter(directory)              # LoRA factors and their effective scales
    digest = directory_digest(directory).root      # what the ledger calls this directory
    write_safetensors(path, [Tensor.from_float32("w", values, "BF16")])
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
