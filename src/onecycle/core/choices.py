"""Settings that take one of a few values, as Literal types. Imports no torch: the command line reads it too."""

from typing import Literal, TypeAlias

EngineName: TypeAlias = Literal["auto", "eager", "fast"]
Precision: TypeAlias = Literal["fp32", "bf16"]
ThreadCount: TypeAlias = Literal["auto"] | int
SetName: TypeAlias = Literal["train", "valid", "test", "fix"]
Task: TypeAlias = Literal["classes", "regression", "multilabel"]
ColumnKind: TypeAlias = Literal["number", "category", "date", "dropped"]
Mode: TypeAlias = Literal["min", "max"]
