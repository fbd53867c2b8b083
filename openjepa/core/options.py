"""Types and defaults of settings that several rooms share; without torch, so that --help is quick."""

from __future__ import annotations

from typing import Literal

Precision = Literal["auto", "bf16", "fp32"]

EvalCrop = Literal["crop", "margin", "squash"]

Box = tuple[float, float, float, float]  # left, top, right, bottom as fractions of width and height

PooledKind = Literal["last", "last4"]

FeatureKind = Literal["last", "last4", "patches"]

ExportFormat = Literal["hf", "timm", "onnx", "torch", "safetensors", "official"]

Condition = Literal["features", "prediction"]

FLOW_STEPS = 25  # integration steps of a decoder's flow
