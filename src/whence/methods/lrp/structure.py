"""Operations whose gradient is their LRP-0 rule, by the names that torch gives them."""

from collections.abc import Mapping
from typing import Any

from whence.models.operations import Function

_MOVES = """
    view view_as reshape reshape_as permute transpose t adjoint movedim moveaxis swapaxes swapdims flatten
    unflatten ravel squeeze unsqueeze cat concat concatenate stack hstack vstack dstack chunk split
    split_with_sizes unsafe_chunk unsafe_split tensor_split unbind __getitem __setitem select narrow slice
    index_select gather take_along_dim masked_select roll flip fliplr flipud rot90 expand expand_as broadcast_to
    broadcast_tensors repeat repeat_interleave tile contiguous clone detach alias to float double half bfloat16
    type type_as cpu cuda pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d
    replication_pad1d replication_pad2d replication_pad3d _pad_circular unfold im2col pixel_shuffle
    pixel_unshuffle channel_shuffle native_channel_shuffle as_strided diagonal tril triu masked_fill where copy
    index_copy index_fill scatter nan_to_num requires_grad
"""
_SUMS = """
    add sub subtract rsub __radd __rsub __add __sub __iadd __isub neg negative positive sum mean nansum cumsum
    fold col2im avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    interpolate upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d
    upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler abs
    dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout
"""
_CHOOSE = """
    max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d fractional_max_pool2d max amax min amin topk
    sort
"""
_RECTIFIERS = "relu leaky_relu prelu rrelu _prelu_kernel"
# These return nothing that relevance could come back from.
_ASKS = """
    size dim ndimension numel nelement stride storage_offset is_contiguous is_floating_point is_complex
    is_nested element_size data_ptr get_device item tolist __len __bool __repr __hash __format argmax argmin
    sign eq ne lt le gt ge new_zeros new_ones new_empty new_full new_tensor zeros_like ones_like empty_like
    full_like __eq __ne __lt __le __gt __ge isnan isinf isfinite allclose equal register_hook retain_grad
    untyped_storage
"""

RECTIFIERS = frozenset(_RECTIFIERS.split())
ASKS = frozenset(_ASKS.split())
STRUCTURAL = frozenset(" ".join((_MOVES, _SUMS, _CHOOSE, _RECTIFIERS)).split())
# With constants, before the first linear operation, these only change the scale on which the input is written.
_SCALES = "add sub subtract rsub __rsub __radd mul multiply __mul __rmul div divide"
ELEMENTWISE = RECTIFIERS | frozenset(_SCALES.split())
# These move values about, or choose among them: relevance itself goes back the same way.
MOVES = frozenset((_MOVES + _CHOOSE).split())
# Nothing that these return is negative; or nothing, where nothing was that they were given.
POSITIVE = frozenset(["relu", "relu6", "sigmoid", "hardsigmoid", "softmax", "square"])
_KEEPS_SIGN = """
    max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d flatten view reshape permute transpose
    contiguous clone dropout mean chunk split cat __getitem
"""
KEEPS_SIGN = frozenset(_KEEPS_SIGN.split())


def may_write(function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Return whether a function writes to its first argument, as its name tells."""
    name = getattr(function, "__name__", "")
    if name.startswith("__i") and name.endswith("__"):
        return True
    return name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
