"""Expert amalgamation for medical image segmentation: what the bundles of this collection share.

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
