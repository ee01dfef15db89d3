"""Prototype galleries: kept in a folder, edited by people, without a viewer."""

from seglens.workspace.gallery.gallery import Gallery
from seglens.workspace.gallery.item import Edit, Info, Item, NewItem, Status
from seglens.workspace.gallery.pictures import contrast_of, crop_of

__all__ = ["Edit", "Gallery", "Info", "Item", "NewItem", "Status", "contrast_of", "crop_of"]
