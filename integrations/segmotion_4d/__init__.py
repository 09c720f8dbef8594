"""Into 4D reconstruction: a processed clip in the layouts that other pipelines load, and masks and tracks made elsewhere taken in.

``export(out, format, dest)`` writes one layout; ``FORMATS`` describes all of them. ``import_results(...)`` makes a processed folder
from masks or tracks that were made elsewhere. Both are also commands: ``segmotion export`` and ``segmotion import``.
"""

from __future__ import annotations

from segmotion_4d.export_command import export
from segmotion_4d.formats import FORMATS
from segmotion_4d.import_command import import_results

__all__ = ["FORMATS", "export", "import_results"]
