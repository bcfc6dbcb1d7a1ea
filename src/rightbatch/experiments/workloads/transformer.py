"""A small decoder-only transformer that predicts the next byte of a text."""

import torch
from torch import Tensor, nn
from torch.nn import functional

NUM_BYTES = 256


class Block(nn.Module):
    """Attention, then a layer four times as wide, each on a normalised input.

    Args:
        width: Of the stream the block adds to.
        num_heads: Of attention; they share the width.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, stream: Tensor) -> Tensor:
        """Return the stream with what the block adds, shape (B, length, width)."""
        stream = stream + self._attention(self.attention_norm(stream))
        return stream + self.feed_forward(stream)

    def _attention(self, inputs: Tensor) -> Tensor:
        count, length, width = inputs.shape
        # Each of shape (B, heads, length, width / heads).
        queries, keys, values = (
            part.view(count, length, self.num_heads, -1).transpose(1, 2)
            for part in self.queries_keys_values(inputs).chunk(3, 2)
        )
        attended = functional.scaled_dot_product_attention(
            queries, keys, values, is_causal=True
        )
        return self.attention_output(
            attended.transpose(1, 2).reshape(count, length, width)
        )


class ByteTransformer(nn.Module):
    """Bytes to logits of the byte that follows each.

    Pre-norm; positions are learned; the output layer has weights of its own.

    Args:
        context: Bytes it sees at once, at most.
        width: Of the stream.
        num_layers: Blocks.
        num_heads: Of attention, in each block.

    Example:
        >>> model = ByteTransformer(context=8, width=16, num_layers=1, num_heads=2)
        >>> model(torch.tensor([[72, 105, 33]])).shape
        torch.Size([1, 3, 256])
    """

    def __init__(
        self, *, context: int, width: int, num_layers: int, num_heads: int
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NUM_BYTES, width)
        self.positions = nn.Parameter(torch.empty(context, width))
        self.blocks = nn.Sequential(
            *(Block(width, num_heads) for _ in range(num_layers))
        )
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, NUM_BYTES, bias=False)
        # As small as the blocks' own additions at the start (GPT-2).
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.02)
        nn.init.normal_(self.output.weight, std=0.02)

    def forward(self, text: Tensor) -> Tensor:
        """Return the logits of what follows each byte.

        Args:
            text: Bytes as whole numbers, shape (B, length), at most the context long.

        Returns:
            Shape (B, length, 256).
        """
        stream = self.embedding(text) + self.positions[: text.shape[1]]
        return self.output(self.norm(self.blocks(stream)))
