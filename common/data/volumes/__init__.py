"""Volume files: NIfTI by nibabel, NRRD and MetaImage by SimpleITK, whose world positions are the judge.

Reading goes :mod:`.contents` (what a file is, whatever its name says), then :mod:`.nifti`, or :mod:`.nrrd` and
:mod:`.metaimage` (what SimpleITK would read wrongly without a word is refused by the header's text, :mod:`.detached`
included: the files that it names) and :mod:`.simple_itk`.
"""
