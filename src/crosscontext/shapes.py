"""The letters of tensor shapes, used in every signature as ``Float[Tensor, "B D"]``.

======  =====================================================================
letter  meaning
======  =====================================================================
B       images in a batch
N       images in a data set
C       channels of a stage map, or colour channels of an image
H W     height and width of an image, h w of a stage map, in pixels
S       side of a square view, in pixels
D E     width of an embedding or feature vector, in one context and in another
K       slots of the memory, or nearest neighbours
V       classes
M P     boxes, queries, or other things that are counted
R       resamples
======  =====================================================================

The test session checks all annotations at run time; in production they cost nothing.
"""

from jaxtyping import Bool, Float, Float32, Float64, Int, Int64, Shaped, UInt8, UInt32

__all__ = ["Bool", "Float", "Float32", "Float64", "Int", "Int64", "Shaped", "UInt8", "UInt32"]
