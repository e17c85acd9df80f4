"""DICOM in and out: files to scans, scans to volumes, volumes to derived series and Parametric Maps."""
