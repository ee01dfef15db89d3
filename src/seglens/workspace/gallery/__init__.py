"""Prototype galleries: kept in a folder, edited by people, without a viewer."""

from seglens.workspace.gallery.adding import add_region
from seglens.workspace.gallery.cutting import open_as
from seglens.workspace.gallery.gallery import Gallery
from seglens.workspace.gallery.item import Edit, Info, Item, NewItem, Status
from seglens.workspace.gallery.making import gallery_of_bank, gallery_of_export, gallery_of_model, typical
from seglens.workspace.gallery.measuring import Share, coverage, edit_of, leaks, nearest_items, shares
from seglens.workspace.gallery.pictures import contrast_of, crop_of

__all__ = [
    "Edit", "Gallery", "Info", "Item", "NewItem", "Share", "Status", "add_region", "contrast_of", "coverage",
    "crop_of", "edit_of", "gallery_of_bank", "gallery_of_export", "gallery_of_model", "leaks", "nearest_items",
    "open_as", "shares", "typical",
]  # fmt: skip
