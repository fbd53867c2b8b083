"""Tiny modalities, methods, masks and recipes outside the package, one file each: what a plug-in looks like."""
