"""A page that shows scans in a browser: slices in three planes, side by side or under a slider, without a network."""

from cdm4mi.viewer.page import write_page
from cdm4mi.viewer.scene import Mark, Scene, Summary, make_scene
from cdm4mi.viewer.server import serving

__all__ = ["Mark", "Scene", "Summary", "make_scene", "serving", "write_page"]
