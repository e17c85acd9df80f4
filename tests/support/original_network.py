"""The original work's network from its weights alone, in float64 and by its facts: an oracle for loaded checkpoints."""

import math

import torch
import torch.nn.functional as F


def network_output(weights, x, t, *, heads=1, dilation=(1, 1, 1)):
    """Output (N, out, H, W) for images x and times t, of weights named as in the state_dict (fold 1).

    heads: attention heads, whose products are divided by the root of ALL channels. dilation: of the second
    convolution of the residual blocks on the way down, in the middle and on the way up.
    """
    w = {name: value.double() for name, value in weights.items()}

    def conv(name, h, **how):
        return F.conv2d(h, w[f"{name}.weight"], w[f"{name}.bias"], **how)

    def norm(name, h):
        return F.group_norm(h, 32, w.get(f"{name}.weight"), w.get(f"{name}.bias"))

    def block(name, h, step):
        out = conv(f"{name}.resblocks.conv1", F.silu(norm(f"{name}.resblocks.norm1", h)), padding=1)
        shift = F.linear(F.silu(time), w[f"{name}.resblocks.time.1.weight"], w[f"{name}.resblocks.time.1.bias"])
        if f"{name}.resblocks.norm2.weight" in w:
            out = norm(f"{name}.resblocks.norm2", out + shift[:, :, None, None])
        else:
            gain, bias = shift[:, :, None, None].chunk(2, 1)
            out = norm(f"{name}.resblocks.norm2", out) * (1 + gain) + bias
        out = conv(f"{name}.resblocks.conv2", F.silu(out), padding=step, dilation=step)
        out = out + (conv(f"{name}.resblocks.skip", h) if f"{name}.resblocks.skip.weight" in w else h)
        return attention(name, out) if f"{name}.attention.qkv.weight" in w else out

    def attention(name, h):
        n, channels, rows, columns = h.shape
        qkv = conv(f"{name}.attention.qkv", norm(f"{name}.attention.norm", h))
        parts = []
        for q, k, v in (head.chunk(3, 1) for head in qkv.flatten(2).chunk(heads, 1)):
            likeness = q.transpose(1, 2) @ k / math.sqrt(channels)
            parts.append(v @ likeness.softmax(-1).transpose(1, 2))
        return h + conv(f"{name}.attention.out", torch.cat(parts, 1).reshape(n, channels, rows, columns))

    def layers(part):
        return [f"{part}.{i}" for i in sorted({int(k.split(".")[1]) for k in w if k.startswith(f"{part}.")})]

    width = w["down.0.weight"].shape[0]
    angle = t.double()[:, None] * 10000.0 ** (-torch.arange(0, width, 2).double() / width)
    time = torch.cat([angle.sin(), angle.cos()], 1)
    time = F.linear(F.silu(F.linear(time, w["time.1.weight"], w["time.1.bias"])), w["time.3.weight"], w["time.3.bias"])

    h = conv("down.0", x.double(), padding=1)
    skips = [h]
    for name in layers("down")[1:]:
        h = conv(f"{name}.0", h, stride=2, padding=1) if f"{name}.0.weight" in w else block(name, h, dilation[0])
        skips.append(h)
    for name in layers("mid"):
        h = block(name, h, dilation[1])
    for name in layers("up"):
        if f"{name}.1.weight" in w:
            h = conv(f"{name}.1", h.repeat_interleave(2, 2).repeat_interleave(2, 3), padding=1)
        else:
            h = block(name, torch.cat([h, skips.pop()], 1), dilation[2])
    return conv("out.2", F.silu(norm("out.0", h)), padding=1)
