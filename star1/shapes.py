"""The shape of a decoder-only model, read from its config.json: how many weights it has, and where."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from star1.errors import InputError
from star1.records import read_json

# Families whose layers are what is counted here: grouped attention, a gated feed-forward layer, two norms.
BIASED = ("qwen2",)  # biases on query, key and value, whatever the config says of them
NORMED = ("qwen3",)  # a norm on each head's query and key
KNOWN = (*BIASED, *NORMED, "llama", "mistral")


@dataclass(frozen=True)
class Shape:
    """A model's sizes.

    Attributes:
        hidden: width [features].
        intermediate: width of the feed-forward layers [features].
        layers: number of decoder layers.
        heads: query heads.
        kv_heads: key and value heads.
        head_width: of one head [features].
        vocabulary: rows of the embedding.
        tied: whether input and output embedding are one matrix.
        biases: of all linear layers of one layer together [weights].
        norms: of one layer [weights].
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    tied: bool
    biases: int
    norms: int

    @property
    def linear(self) -> int:
        """Weights of the matrices of one layer."""
        query, key = self.heads * self.head_width, self.kv_heads * self.head_width
        return self.hidden * (2 * query + 2 * key) + 3 * self.hidden * self.intermediate

    @property
    def head(self) -> int:
        """Weights of the output matrix."""
        return self.vocabulary * self.hidden

    @property
    def layer(self) -> int:
        """Weights of one layer."""
        return self.linear + self.biases + self.norms

    @property
    def weights(self) -> int:
        """All weights; a matrix that is tied counts once."""
        return self.layers * self.layer + self.hidden + self.head * (1 if self.tied else 2)


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The shape that a config.json tells of.

    Raises:
        InputError: it is of a family whose weights are not counted here.
    """
    family = str(config.get("model_type"))
    if family not in KNOWN:
        raise InputError("config.json: model_type", family, "one of " + ", ".join(KNOWN))
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    width, intermediate = int(config.get("head_dim") or hidden // heads), int(config["intermediate_size"])
    outputs = (heads + 2 * kv_heads) * width
    biases = outputs if family in BIASED else (outputs + hidden) * bool(config.get("attention_bias"))
    biases += (2 * intermediate + hidden) * bool(config.get("mlp_bias"))
    return Shape(
        hidden=hidden,
        intermediate=intermediate,
        layers=int(config["num_hidden_layers"]),
        heads=heads,
        kv_heads=kv_heads,
        head_width=width,
        vocabulary=int(config["vocab_size"]),
        tied=bool(config.get("tie_word_embeddings")),
        biases=biases,
        norms=2 * hidden + (2 * width if family in NORMED else 0),
    )


def read_shape(folder: str | Path) -> Shape:
    """The shape of the checkpoint in `folder`."""
    return shape_of(read_json(Path(folder) / "config.json"))
