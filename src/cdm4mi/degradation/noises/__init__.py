"""The noises, a file each: a class with its keys in a configuration and its physics, registered by ``noise``.

Every file of this folder is loaded by ``cdm4mi.degradation.registry``: nothing has to be listed elsewhere.
"""
