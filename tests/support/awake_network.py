"""A freshly made network returns nearly nothing: this gives every layer weights of ordinary size."""

import torch


def awake(module, seed=0):
    """The module with weights that keep the scale of what passes through; norms and biases as they were."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
    return module
