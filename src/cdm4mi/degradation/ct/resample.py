"""Interpolation along the last axis: the sum of shifted rows that both projection and backprojection are, and cubic."""

from __future__ import annotations

from cdm4mi.degradation.lazy_torch import F, Tensor, torch

# Elements gathered at a time: they should stay in the processor's cache; a GPU wants more at once.
CHUNK_CPU = 2**21
CHUNK_GPU = 2**26


def shift_sum(table: Tensor, start: Tensor, width: int) -> Tensor:
    """Sum over the table's rows, each read from its own start by linear interpolation.

    ``table`` (N, R, L), ``start`` (O, R) float64 with 0 <= start and start + width < L. Returns (N, O, width):
    out[n, o, m] = sum_r table[n, r, start[o, r] + m].

    Along a straight line every row of an image is read at unit step from some offset. So whole rows are
    copied and weighed by one matrix product, and no index is computed for a single sample.
    """
    images, count, length = table.shape
    # every run of width + 1 elements as one row of a view that overlaps itself
    runs = table.contiguous().as_strided((table.numel() - width, width + 1), (1, 1))
    whole = start.floor()
    fraction = (start - whole).to(table)
    index = whole.long().to(table.device) + torch.arange(count, device=table.device) * length
    weights = torch.stack([1 - fraction, fraction], dim=1)  # (O, 2, R)
    image = torch.arange(images, device=table.device)[:, None, None] * (count * length)

    out = table.new_empty((images, len(start), width))
    limit = CHUNK_CPU if table.device.type == "cpu" else CHUNK_GPU
    step = max(1, limit // (images * count * (width + 1)))
    for low in range(0, len(start), step):
        part = slice(low, low + step)
        taken = runs.index_select(0, (image + index[part]).flatten()).view(images, -1, count, width + 1)
        pair = torch.matmul(weights[part], taken)  # (N, o, 2, width + 1)
        torch.add(pair[..., 0, :-1], pair[..., 1, 1:], out=out[:, part])
    return out


def cubic(rows: Tensor, position: Tensor) -> Tensor:
    """Keys's cubic interpolation (IEEE Trans. ASSP 29, 1981, a = -1/2), zero outside.

    ``rows`` (N, V, L), ``position`` (V, M) in elements. Returns (N, V, M).
    """
    length = rows.shape[-1]
    padded = F.pad(rows, (3, 3))  # two zeros beyond each end, and one more for the fourth tap
    position = position.clamp(-2, length) + 3
    whole = position.floor()
    f = (position - whole).to(rows)
    index = whole.long().to(rows.device).expand(len(rows), -1, -1)
    weights = (
        ((-0.5 * f + 1) * f - 0.5) * f,
        (1.5 * f - 2.5) * f * f + 1,
        ((-1.5 * f + 2) * f + 0.5) * f,
        (0.5 * f - 0.5) * f * f,
    )
    out = weights[0] * padded.gather(-1, index - 1)
    for tap in (1, 2, 3):
        out += weights[tap] * padded.gather(-1, index + (tap - 1))
    return out
