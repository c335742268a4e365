"""The bytes of an exported model. Both makers of models write theirs by this, since the hash of the file is its version."""

from typing import Any


def onnx_file(model: Any) -> bytes:
    """`model` (an onnx.ModelProto) as a file: the same for the same model, in each process."""
    model.opset_import.sort(key=lambda opset: opset.domain)  # the converter takes their order from a set, so it is by chance
    onnx: bytes = model.SerializeToString()
    return onnx
