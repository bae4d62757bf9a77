"""Loss functions: how far predictions are from targets.

All take a `reduction`: "none" keeps the losses apart, "mean" and "sum" make them one. ValueError for any other, and
wherever shapes that must agree do not.
"""

from __future__ import annotations

import math
from typing import Literal

import mlxlite.core as mx

from ..core._registry import remembered

Reduction = Literal["none", "mean", "sum"]

_REDUCTIONS = {"none": lambda loss: loss, "mean": mx.mean, "sum": mx.sum}


def _reduced(loss: mx.array, reduction: Reduction, weights: mx.array | None = None) -> mx.array:
    if reduction not in _REDUCTIONS:
        raise ValueError(f"The reduction must be one of {list(_REDUCTIONS)}, got {reduction!r}.")
    if weights is not None:
        _require_same_shape("Weights", weights, "the losses", loss)
        loss = loss * weights
    return _REDUCTIONS[reduction](loss)


def _require_same_shape(what: str, a: mx.array, other: str, b: mx.array) -> None:
    if a.shape != b.shape:
        raise ValueError(f"{what} of shape {a.shape} must have the shape of {other}, {b.shape}.")


def _norm(x: mx.array, axis: int) -> mx.array:
    """The lengths of the vectors along an axis."""
    wide = x if mx.issubdtype(x.dtype, mx.inexact) else x.astype(mx.float32)
    return mx.sqrt(mx.sum(mx.square(mx.abs(wide)), axis=axis))


def _picked(a: mx.array, indices: mx.array, axis: int) -> mx.array:
    """The element of each vector along an axis that its index names."""
    return mx.take_along_axis(a, mx.expand_dims(indices, axis), axis).squeeze(axis)


@remembered
def cross_entropy(
    logits: mx.array,
    targets: mx.array,
    weights: mx.array | None = None,
    axis: int = -1,
    label_smoothing: float = 0.0,
    reduction: Reduction = "none",
) -> mx.array:
    """-log(softmax(logits)) of the right class.

    Args:
        logits: one number for each class along `axis`.
        targets: the right classes, integers shaped as logits without the axis; or probabilities of the logits' shape.
        weights: one factor for each loss.
        axis: the axis of the classes.
        label_smoothing: in [0, 1): how much of the target is spread evenly over all classes.
        reduction: see the module.

    >>> cross_entropy(mx.array([[0.0, 0.0], [100.0, 0.0]]), mx.array([0, 0]))
    array([0.693147, 0], dtype=float32)
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"Label smoothing must be in [0, 1), got {label_smoothing}.")
    expected = list(logits.shape)
    as_probabilities = targets.ndim == logits.ndim
    if not as_probabilities:
        expected.pop(axis)
    if targets.shape != tuple(expected):
        raise ValueError(f"Targets of shape {targets.shape} do not fit logits of shape {logits.shape}, axis {axis}.")
    dtype = logits.dtype
    if short := dtype in (mx.float16, mx.bfloat16):
        logits = logits.astype(mx.float32)  # a difference of large numbers, of which 16 bits would keep few digits
    score = mx.sum(logits * targets, axis=axis) if as_probabilities else _picked(logits, targets, axis)
    # Softmax does not see a constant. Less this one, the logarithm is exact where the right class is likely.
    shift = mx.stop_gradient(mx.where(mx.isfinite(score), score, 0))
    loss = mx.logsumexp(logits - mx.expand_dims(shift, axis), axis=axis)
    if label_smoothing > 0:
        loss = loss + (shift - (1 - label_smoothing) * score - label_smoothing * mx.mean(logits, axis=axis))
    else:
        loss = loss + (shift - score)
    return _reduced(loss.astype(dtype) if short else loss, reduction, weights)


@remembered
def binary_cross_entropy(
    inputs: mx.array,
    targets: mx.array,
    weights: mx.array | None = None,
    with_logits: bool = True,
    reduction: Reduction = "mean",
) -> mx.array:
    """-log of the probability that inputs give to targets of 0 or 1 (or in between).

    Args:
        inputs: logits, or probabilities of 1.
        targets: of the same shape.
        weights: one factor for each loss.
        with_logits: whether inputs are logits. The log of a probability counts as -100 at least.
        reduction: see the module.

    >>> binary_cross_entropy(mx.array([0.25]), mx.array([1.0]), with_logits=False)
    array(1.38629, dtype=float32)
    """
    _require_same_shape("Inputs", inputs, "the targets", targets)
    if with_logits:
        loss = mx.logaddexp(0.0, inputs) - inputs * targets
    else:
        log_one = mx.maximum(mx.log(inputs), -100)
        log_zero = mx.maximum(mx.log(1 - inputs), -100)
        loss = -(targets * log_one + (1 - targets) * log_zero)
    return _reduced(loss, reduction, weights)


@remembered
def l1_loss(predictions: mx.array, targets: mx.array, reduction: Reduction = "mean") -> mx.array:
    """|predictions - targets|, of arrays of one shape.

    >>> l1_loss(mx.array([1.0, 4.0]), mx.array([2.0, 2.0]))
    array(1.5, dtype=float32)
    """
    _require_same_shape("Predictions", predictions, "the targets", targets)
    return _reduced(mx.abs(predictions - targets), reduction)


@remembered
def mse_loss(predictions: mx.array, targets: mx.array, reduction: Reduction = "mean") -> mx.array:
    """(predictions - targets)**2, of arrays of one shape.

    >>> mse_loss(mx.array([1.0, 4.0]), mx.array([2.0, 2.0]))
    array(2.5, dtype=float32)
    """
    _require_same_shape("Predictions", predictions, "the targets", targets)
    return _reduced(mx.square(predictions - targets), reduction)


@remembered
def nll_loss(inputs: mx.array, targets: mx.array, axis: int = -1, reduction: Reduction = "none") -> mx.array:
    """-inputs at the right class.

    Args:
        inputs: log probabilities of the classes along `axis`.
        targets: the right classes, integers shaped as inputs without the axis.
        axis: the axis of the classes.
        reduction: see the module.

    >>> nll_loss(mx.array([[-1.0, -2.0]]), mx.array([1]))
    array([2], dtype=float32)
    """
    return _reduced(-_picked(inputs, targets, axis), reduction)


@remembered
def gaussian_nll_loss(
    inputs: mx.array,
    targets: mx.array,
    vars: mx.array,
    full: bool = False,
    eps: float = 1e-6,
    reduction: Reduction = "mean",
) -> mx.array:
    """-log of the density of targets under normal distributions.

    Args:
        inputs: the means.
        targets, vars: the targets and the variances, of the same shape.
        full: whether to add the constant log(2 pi) / 2.
        eps: the least variance that counts.
        reduction: see the module.

    Source: Nix and Weigend, Estimating the mean and variance of the target probability distribution, 1994.

    >>> gaussian_nll_loss(mx.array([1.0]), mx.array([3.0]), mx.array([1.0]))
    array(2, dtype=float32)
    """
    _require_same_shape("Inputs", inputs, "the targets", targets)
    _require_same_shape("Inputs", inputs, "vars", vars)
    vars = mx.maximum(vars, eps)
    loss = 0.5 * (mx.log(vars) + mx.square(targets - inputs) / vars)
    return _reduced(loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


@remembered
def kl_div_loss(inputs: mx.array, targets: mx.array, axis: int = -1, reduction: Reduction = "none") -> mx.array:
    """The Kullback-Leibler divergence of two distributions along an axis, both given as log probabilities.

    >>> kl_div_loss(mx.log(mx.array([[0.5, 0.5]])), mx.log(mx.array([[0.5, 0.5]])))
    array([0], dtype=float32)
    """
    return _reduced(mx.sum(mx.exp(targets) * (targets - inputs), axis), reduction)


@remembered
def smooth_l1_loss(
    predictions: mx.array, targets: mx.array, beta: float = 1.0, reduction: Reduction = "mean"
) -> mx.array:
    """d**2 / (2 beta) where d = |predictions - targets| is below beta, and d - beta / 2 beyond.

    >>> smooth_l1_loss(mx.array([1.5, 4.0]), mx.array([2.0, 2.0]), reduction="none")
    array([0.125, 1.5], dtype=float32)
    """
    _require_same_shape("Predictions", predictions, "the targets", targets)
    d = mx.abs(predictions - targets)
    return _reduced(mx.where(d < beta, 0.5 * mx.square(d) / beta, d - 0.5 * beta), reduction)


@remembered
def triplet_loss(
    anchors: mx.array,
    positives: mx.array,
    negatives: mx.array,
    axis: int = -1,
    p: int = 2,
    margin: float = 1.0,
    eps: float = 1e-6,
    reduction: Reduction = "none",
) -> mx.array:
    """How much less than `margin` an anchor is nearer to the positive than to the negative; 0 if it is not.

    Args:
        anchors, positives, negatives: vectors along `axis`.
        axis: the axis of the vectors.
        p: distances are (sum |difference|**p + eps)**(1/p).
        margin: by how much nearer the positive should be.
        eps: keeps the root of 0 from having no gradient.
        reduction: see the module.

    Source: Schroff, Kalenichenko and Philbin, FaceNet, 2015, arXiv:1503.03832.

    >>> triplet_loss(mx.array([[0.0]]), mx.array([[1.0]]), mx.array([[1.0]]))
    array([1], dtype=float32)
    """

    def distance(others: mx.array) -> mx.array:
        return mx.power(mx.sum(mx.power(mx.abs(anchors - others), p), axis) + eps, 1.0 / p)

    return _reduced(mx.maximum(distance(positives) - distance(negatives) + margin, 0), reduction)


@remembered
def hinge_loss(inputs: mx.array, targets: mx.array, reduction: Reduction = "none") -> mx.array:
    """max(1 - inputs * targets, 0), for targets of -1 and 1.

    >>> hinge_loss(mx.array([0.25, 2.0]), mx.array([-1.0, 1.0]))
    array([1.25, 0], dtype=float32)
    """
    return _reduced(mx.maximum(1 - inputs * targets, 0), reduction)


@remembered
def huber_loss(inputs: mx.array, targets: mx.array, delta: float = 1.0, reduction: Reduction = "none") -> mx.array:
    """d**2 / 2 where d = |inputs - targets| is at most delta, and delta * (d - delta / 2) beyond.

    >>> huber_loss(mx.array([0.5, 3.0]), mx.array([0.0, 0.0]))
    array([0.125, 2.5], dtype=float32)
    """
    d = mx.abs(inputs - targets)
    quadratic = mx.minimum(d, delta)
    return _reduced(0.5 * mx.square(quadratic) + delta * (d - quadratic), reduction)


@remembered
def log_cosh_loss(inputs: mx.array, targets: mx.array, reduction: Reduction = "none") -> mx.array:
    """log(cosh(inputs - targets)), with no overflow.

    >>> log_cosh_loss(mx.array([100.0]), mx.array([0.0]))
    array([99.3069], dtype=float32)
    """
    errors = inputs - targets
    return _reduced(mx.logaddexp(errors, -errors) - math.log(2), reduction)


@remembered
def cosine_similarity_loss(
    x1: mx.array, x2: mx.array, axis: int = 1, eps: float = 1e-8, reduction: Reduction = "none"
) -> mx.array:
    """The cosine of the angle between vectors along an axis; it is 1, not 0, for equal directions, as in MLX.

    Args:
        x1, x2: the vectors.
        axis: the axis of the vectors.
        eps: the least product of their lengths that counts.
        reduction: see the module.

    >>> cosine_similarity_loss(mx.array([[1.0, 0.0]]), mx.array([[3.0, 0.0]]))
    array([1], dtype=float32)
    """
    lengths = _norm(x1, axis) * _norm(x2, axis)
    return _reduced(mx.sum(x1 * x2, axis=axis) / mx.maximum(lengths, eps), reduction)


@remembered
def margin_ranking_loss(
    inputs1: mx.array, inputs2: mx.array, targets: mx.array, margin: float = 0.0, reduction: Reduction = "none"
) -> mx.array:
    """max(margin - targets * (inputs1 - inputs2), 0): targets of 1 want inputs1 above inputs2, of -1 below.

    >>> margin_ranking_loss(mx.array([1.0]), mx.array([3.0]), mx.array([1.0]))
    array([2], dtype=float32)
    """
    _require_same_shape("inputs1", inputs1, "inputs2", inputs2)
    _require_same_shape("inputs1", inputs1, "the targets", targets)
    return _reduced(mx.maximum(0, -targets * (inputs1 - inputs2) + margin), reduction)
