"""Expert amalgamation for medical image segmentation: what the bundles of this collection share.

The map of the house, from the ground up; each package's own docstring says in which order to read it:

===============  ================================================================================================
``*.py`` here    the ground: errors, geometry, labels, prompts, names (``literals``, ``name_words``,
                 ``vocabulary``, ``synonyms``, ``modalities``, ``wording``, ``negations``), files (``atomic``,
                 ``integrity``), one Dice (``overlap``), weights with their ``card``, and its ``contract``
``data/``        scans and pictures in: DICOM, datasets, transforms, intensities, slices, prompts, the phantom;
                 prepared cases (``store``), what is drawn from them (``samples``), formats (``volumes``)
``layers/``      attention, gating, fusion and LoRA: the parts that methods are put together from
``losses/``      what a training minimises, one idea a file
``backbones/``   nnU-Net, SAM, SAM2, H-SAM, SAM-Med3D, Swin-Unet, Swin UNETR: networks and their public weights
``engine/``      what any method may use: a run, an iteration, a click, inference, scores, what a run shows
``experts/``     networks that were trained elsewhere, and how they are asked in their own axes and intensities
``methods/``     one package per paper, with what only it shows; they never import each other
===============  ================================================================================================

The ground in its order. First: :mod:`.errors`, :mod:`.paths`, :mod:`.whole_numbers`, :mod:`.intensity_range`,
:mod:`.prompts`. How a name is read: :mod:`.name_words`, :mod:`.negations`, :mod:`.vocabulary`, :mod:`.modalities`,
:mod:`.wording`, :mod:`.synonyms`, :mod:`.command_words`, :mod:`.bundle_words`, :mod:`.channel_order`,
:mod:`.channel_doubt`, :mod:`.more_telling`, :mod:`.dicom_tags`, :mod:`.literals`, :mod:`.labels`. How files are read
and written: :mod:`.atomic`, :mod:`.integrity`, :mod:`.plain_json`, :mod:`.plain_yaml`, :mod:`.zips`, :mod:`.tables`,
:mod:`.pages`, :mod:`.figure_text`, :mod:`.visible_output`. What is measured: :mod:`.geometry`, :mod:`.overlap`.
What weights say of themselves: :mod:`.card`, :mod:`.weights`, :mod:`.overridden`, :mod:`.contract` with
:mod:`.contract_form` and :mod:`.contract_names`; how a scan fits that: :mod:`.scan_fit`, :mod:`.spacing_range`.

``tools/`` beside this package are the commands; ``bundles/`` are the configurations that name what lies here.

Shape letters, used in every docstring:

==========  =====================================================================
``B``       batch
``E``       experts
``C``       channels
``K``       foreground classes (index 0 is the background, so logits have K+1)
``N``       tokens
``X Y Z``   voxels along the array axes as MONAI loads them (NIfTI order i, j, k)
``D H W``   depth, height, width in nnU-Net's and torch's order (k, j, i)
``P``       prompts
==========  =====================================================================
"""

__version__ = "0.1.0"
