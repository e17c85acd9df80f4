"""cdm4mi: conditional diffusion models that restore medical images."""

__version__ = "0.1.0"
