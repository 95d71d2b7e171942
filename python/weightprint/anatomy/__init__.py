"""Which tensor is layer 7's up-projection, however it is named, fused, transposed or quantised."""

from weightprint.anatomy.access import Anatomy, anatomy
from weightprint.anatomy.merged import Merged, merge_adapter
from weightprint.anatomy.place import Assignment, Geometry, Place, View

__all__ = ["Anatomy", "Assignment", "Geometry", "Merged", "Place", "View", "anatomy", "merge_adapter"]
