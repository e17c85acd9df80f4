"""Photon counts: noisy line integrals of a new measurement or of a share of an old one, and their variance."""

from __future__ import annotations

import math
from functools import lru_cache

from cdm4mi.degradation.lazy_torch import Tensor, torch

# Expected counts between which the variance of the logarithm is measured, in equal steps of the logarithm
LOG_LEAST, LOG_MOST, STEPS, DRAWS = math.log(1e-2), math.log(1e4), 139, 2**14


def measured_error(line: Tensor, flux: float, electronic: float, generator: torch.Generator) -> Tensor:
    """p_hat - p of a measurement of the line integrals p with ``flux`` photons a ray without the patient.

    N ~ Poisson(flux exp(-p)) + Normal(0, electronic), p_hat = -ln(max(N, 1) / flux). Drawn where the generator is.
    """
    line = line.to(generator.device)
    counts = torch.poisson(flux * torch.exp(-line), generator) + _electronic(line, electronic, generator)
    return -torch.log(counts.clamp(min=1) / flux) - line


def thinned_error(line: Tensor, flux: float, dose: float, electronic: float, generator: torch.Generator) -> Tensor:
    """p_hat - p of a binomial share ``dose`` of the counts flux exp(-p) that gave p, itself a noisy measurement.

    The share of a Poisson number is a Poisson number of the share, so that the noise in p and the noise added make
    that of the lower dose: 1/(d N) - 1/N to first order. Of the electronic variance a share d^2 came along in p; the
    rest is added (Zeng et al., IEEE Trans. Nucl. Sci. 62, 2015).
    """
    line = line.to(generator.device)
    full = (flux * torch.exp(-line)).round()
    counts = torch.binomial(full, torch.full_like(full, dose), generator)
    counts += _electronic(line, electronic * (1 - dose**2), generator)
    return torch.log(full.clamp(min=1)) - torch.log(counts.clamp(min=1) / dose)


def log_variance(expected: Tensor, electronic: float) -> Tensor:
    """Variance of p_hat at the ``expected`` counts, float64: (N + electronic) / N^2 for many, bounded for few."""
    expected = expected.double()
    table = _log_variances(electronic).to(expected.device)
    position = (torch.log(expected) - LOG_LEAST) * ((STEPS - 1) / (LOG_MOST - LOG_LEAST))
    position = position.clamp(0, STEPS - 1 - 1e-9)
    low = position.long()
    few = torch.lerp(table[low], table[low + 1], position - low).exp()
    many = (expected + electronic) / expected**2
    return torch.where(expected < math.exp(LOG_MOST), few, many)


@lru_cache(maxsize=16)
def _log_variances(electronic: float) -> Tensor:
    """(STEPS,) logarithm of the variance, measured on draws: no series holds for the few counts that matter most."""
    generator = torch.Generator().manual_seed(0)
    line = -torch.linspace(LOG_LEAST, LOG_MOST, STEPS)[:, None].expand(-1, DRAWS)
    return measured_error(line, 1.0, electronic, generator).double().var(dim=1).clamp(min=1e-12).log()


def _electronic(line: Tensor, variance: float, generator: torch.Generator) -> Tensor:
    return torch.randn(line.shape, generator=generator, device=generator.device) * math.sqrt(variance)
