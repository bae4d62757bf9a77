"""Matrix products: kernels of our own for one row, and for a few of 16-bit floats; cuBLASLt for the rest."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..kernels import few_rows as few_rows_kernels
from ..kernels import matvec as kernels
from ..kernels.codegen import Instruction
from ..kernels.kernel import KernelSource
from ..kernels.ops import FLOATS
from .analysis import Analysis, Dims, dim_rule
from .builder import Builder, Operand, lowers
from .elementwise import ProgramWriter, collapse
from .plan import MatmulNode, View
from .sym import IntLike, Sym

DTYPES = ("float32", "float16", "bfloat16", "float64", "complex64")


@dim_rule("matmul")
def _matmul_dims(a: Analysis, i: int) -> Dims:
    left, right = (a.dims[j] for j in a.nodes[i].inputs)
    return _product_dims(a, i, left, right)


@dim_rule("addmm")
def _addmm_dims(a: Analysis, i: int) -> Dims:
    c, left, right = (a.dims[j] for j in a.nodes[i].inputs)
    dims = _product_dims(a, i, left, right)
    a.broadcast(i, [dims, c])
    return dims


def _product_dims(a: Analysis, i: int, left: Dims, right: Dims) -> Dims:
    a.table.equate(left[-1], right[-2])
    rank = len(a.nodes[i].shape)
    batch = [a.table.lift(1)] * (rank - 2)
    for shape in (left[:-2], right[:-2]):
        for k, dim in enumerate(shape, rank - 2 - len(shape)):
            if dim.const != 1:
                if batch[k].const == 1:
                    batch[k] = dim
                else:
                    a.table.equate(batch[k], dim)
    return (*batch, left[-2], right[-1])


@dataclass
class Matrix:
    """An operand as cuBLASLt takes it: rows `ld` elements apart, stored transposed or not, and a batch stride."""

    view: View
    transposed: bool
    ld: Sym
    batch_stride: Sym

    def swapped(self) -> Matrix:
        """Its transpose, where it lies."""
        return Matrix(self.view, not self.transposed, self.ld, self.batch_stride)


@dataclass
class Product:
    """a @ b as one strided batch."""

    m: Sym
    n: Sym
    k: Sym
    batch: Sym
    a: Matrix
    b: Matrix
    ldd: Sym
    batch_stride_d: Sym

    def transposed(self) -> Product:
        """b.T @ a.T, whose rows are the columns of this one: for a single product."""
        a, b = self.b.swapped(), self.a.swapped()
        return Product(self.n, self.m, self.k, self.batch, a, b, self.m, self.batch_stride_d)


def is_stored_transposed(a: Analysis, i: int) -> bool:
    """Whether node i is a product that is only read transposed, as a weight's gradient is: its columns are stored."""
    node = a.nodes[i]
    if node.name != "matmul" or node.is_output or len(node.shape) != 2 or any(d.const == 1 for d in a.dims[i]):
        return False
    readers = [a.nodes[c] for c in a.consumers[i]]
    return bool(readers) and all(r.name == "transpose" and r.static[0] == (1, 0) for r in readers)


def _new_transposed(b: Builder, i: int) -> View:
    """New memory for the matrix of node i, its columns contiguous."""
    stored = b.new(b.dims(i)[::-1], b.dtype(i))
    return View(stored.buffer, stored.dtype, stored.offset, stored.dims[::-1], stored.strides[::-1])


def layout(b: Builder, view: View) -> tuple[bool, Sym] | None:
    """(stored transposed, row length) of the last two dims, or None if neither is contiguous."""
    rows, columns = view.dims[-2:]
    row_stride, column_stride = view.strides[-2:]
    # The key tells a stride's sign, so that the call that is lowered speaks for all.
    if any(b.table.value(s) < 0 for s in view.strides):
        return None
    if columns.const == 1 and rows.const == 1:
        return False, b.lift(1)
    if column_stride == 1 or columns.const == 1:
        if rows.const == 1:
            return False, columns
        if columns.const == 1 and column_stride != 1:
            # A column: its elements are rows of one element, or one stored row of a transposed matrix.
            return (True, rows) if row_stride == 1 else (False, row_stride)
        return (False, row_stride) if row_stride != 0 else None
    if row_stride == 1 or rows.const == 1:
        if rows.const == 1:
            return True, column_stride
        return (True, column_stride) if column_stride != 0 else None
    return None


def matrices(b: Builder, left: int, right: int, batch_dims: Dims) -> tuple[View, View]:
    """The operands with layouts that cuBLASLt takes, copied where they have none."""
    views = []
    for j in (left, right):
        view = b.read(j)
        if layout(b, view) is None:
            view = b.read_contiguous(j)
        views.append(view)
    return views[0], views[1]


def plan_product(b: Builder, left: int, right: int, out: View) -> Product:
    """How to compute the product as one call: batch dims merged, or folded into the rows of a."""
    x, w = matrices(b, left, right, out.dims[:-2])
    batch_dims = out.dims[:-2]
    rank = len(batch_dims)

    def batch_strides(view: View) -> list[Sym]:
        zero = b.lift(0)
        own = [zero if d.const == 1 else s for d, s in zip(view.dims[:-2], view.strides[:-2], strict=True)]
        return [zero] * (rank - len(own)) + own

    for attempt in range(3):
        x_strides, w_strides = batch_strides(x), batch_strides(w)
        m, n, k = out.dims[-2], out.dims[-1], x.dims[-1]
        if all(s == 0 for s in w_strides) and rank:
            # One matrix b for the whole batch: the batch dims are further rows of a.
            dims, (rows_x, rows_d) = collapse(
                b, [*batch_dims, m], [[*x_strides, x.strides[-2]], [*out.strides[:-2], out.strides[-2]]]
            )
            if len(dims) == 1 and (x.strides[-1] == 1 or k.const == 1):
                return Product(
                    dims[0], n, k, b.lift(1),
                    Matrix(x, False, rows_x[0] if dims[0].const != 1 else k, b.lift(0)),
                    _matrix(b, w, b.lift(0)), rows_d[0] if dims[0].const != 1 else n, b.lift(0),
                )  # fmt: skip
        dims, (bx, bw, bd) = collapse(b, batch_dims, [x_strides, w_strides, list(out.strides[:-2])])
        if len(dims) == 1:
            return Product(m, n, k, dims[0], _matrix(b, x, bx[0]), _matrix(b, w, bw[0]), n, bd[0])
        # The batch does not step evenly: write operands out, first b, then a too.
        if attempt == 0:
            w = _broadcast_copy(b, right, w, batch_dims)
        else:
            x = _broadcast_copy(b, left, x, batch_dims)
    raise AssertionError("contiguous operands make one batch")


def _matrix(b: Builder, view: View, batch_stride: Sym) -> Matrix:
    found = layout(b, view)
    assert found is not None
    return Matrix(view, found[0], found[1], batch_stride)


def _broadcast_copy(b: Builder, j: int, view: View, batch_dims: Dims) -> View:
    """The operand contiguous, its batch dims written out."""
    dims = (*batch_dims, *view.dims[-2:])
    target = b.new(dims, view.dtype)
    zero = b.lift(0)
    missing = len(dims) - len(view.dims)
    strides = [zero] * missing + [zero if d.const == 1 else s for d, s in zip(view.dims, view.strides, strict=True)]
    wide = View(view.buffer, view.dtype, view.offset, dims, tuple(strides))
    b.copy(wide, target)
    b.reads_as(j, target)
    return target


def emit_product(
    b: Builder,
    product: Product,
    out: View,
    covers: Sequence[int],
    label: str,
    *,
    addend: View | None = None,
    factors: tuple[int | None, int | None] = (None, None),
    outputs: Mapping[int, View] | None = None,
) -> None:
    """The product by cuBLASLt.

    Args:
        b: the builder.
        product: how it is computed.
        out: where to.
        covers: the tape nodes that it completes.
        label: for errors.
        addend: what is added to it, row-major and of the dims of `out`.
        factors: scalar slots of what the product and the addend are multiplied by; None: 1.
        outputs: the memory of tape nodes that is written; `out` for all that are covered, by default.
    """
    node = MatmulNode(label, tuple(covers))
    node.places = {"a": product.a.view, "b": product.b.view, "d": out}
    sizes: dict[str, IntLike] = {
        "m": product.m, "n": product.n, "k": product.k, "batch": product.batch,
        "lda": product.a.ld, "ldb": product.b.ld, "ldd": product.ldd,
        "batch_stride_a": product.a.batch_stride, "batch_stride_b": product.b.batch_stride,
        "batch_stride_d": product.batch_stride_d,
    }  # fmt: skip
    node.sizes = sizes
    node.options = {
        "trans_a": int(product.a.transposed), "trans_b": int(product.b.transposed), "dtype": out.dtype,
        "alpha": factors[0], "beta": factors[1],
    }  # fmt: skip
    if addend is not None:
        node.places["c"] = addend
        node.sizes |= {"ldc": product.ldd, "batch_stride_c": product.batch_stride_d}
    node.reads = [product.a.view.buffer, product.b.view.buffer]
    node.writes = [out.buffer]
    node.outputs = {i: out for i in covers} if outputs is None else dict(outputs)
    b.emit(node)


def _fill_zero(b: Builder, out: View, covers: Sequence[int]) -> None:
    """A product over no elements."""
    writer = ProgramWriter(b, out.dims)
    zero: Instruction = ("iota", None, ("int", 0), ("int", 0), out.dtype)
    if out.dtype == "complex64":
        zero = ("iota", None, ("int", 0), ("int", 0), "float32")
    writer.ints = [b.lift(0)]
    register = writer.instruction(zero)
    if out.dtype == "complex64":
        register = writer.instruction(("op", "astype", (), (register,), ("float32",), "complex64"))
    writer.emit([(out, register)], covers=covers, label="zeros")


@lowers("matmul")
def _matmul(b: Builder, i: int) -> None:
    left, right = b.tape_nodes[i].inputs
    out = b.define(i, _new_transposed(b, i)) if is_stored_transposed(b.analysis, i) else b.result(i)
    if b.analysis.is_empty(left):
        b.read(left)
        b.read(right)
        _fill_zero(b, out, (i,))
        return
    multiply(b, left, right, out, (i,), b.label((i,)))


def multiply(b: Builder, left: int, right: int, out: View, covers: Sequence[int], label: str) -> None:
    """Emit a product that is not over an empty dim."""
    product = plan_product(b, left, right, out)
    if covers and is_stored_transposed(b.analysis, covers[0]):
        emit_product(b, product.transposed(), out, covers, label)
        return
    emit(b, product, right, out, covers, label)


def emit(b: Builder, product: Product, right: int, out: View, covers: Sequence[int], label: str) -> None:
    """The product by whichever kernel is for it; `right` is the node of its right operand."""
    is_own = product.m.const == 1 and matvec(b, product, out, covers, label)
    if not is_own and not few_rows(b, product, right, out, covers, label):
        emit_product(b, product, out, covers, label)


def is_given(b: Builder, j: int) -> bool:
    """Whether node j is a leaf, maybe transposed: kernels may read it before those in front of them are done."""
    while b.tape_nodes[j].role == "op" and b.tape_nodes[j].name == "transpose":
        j = b.tape_nodes[j].inputs[0]
    return b.tape_nodes[j].role == "leaf"


@functools.lru_cache(maxsize=1024)
def _few_rows_kernel(dtype: str, adds: bool, early: bool, variant: few_rows_kernels.Variant) -> KernelSource:
    return few_rows_kernels.generate(dtype, adds=adds, early=early, variant=variant)


def few_rows(
    b: Builder, product: Product, right: int, out: View, covers: Sequence[int], label: str, addend: View | None = None
) -> bool:
    """A product of a few rows by our own kernel, and an addend as of `emit_product`; whether there is one for it."""
    x, w = product.a, product.b
    if out.dtype not in few_rows_kernels.DTYPES or product.batch.const != 1 or x.transposed or not w.transposed:
        return False
    variant = b.table.choose(few_rows_kernels.choose_variant, of=(product.m, product.n, product.k))
    if variant is None:
        return False
    zero, one = b.lift(0), b.lift(1)
    is_same = w.view.buffer is b.value(right).buffer  # else it is a copy that the plan makes
    operands = [Operand(x.view, (x.ld, zero, one)), Operand(w.view, (zero, w.ld, one))]
    if addend is not None:
        operands.append(Operand(addend, (product.ldd, one)))
    b.kernel(
        _few_rows_kernel(out.dtype, addend is not None, is_given(b, right) and is_same, variant),
        [product.m, product.n, product.k],
        operands,
        [Operand(out, (product.ldd, one))],
        covers=covers,
        label=label,
    )
    return True


@functools.lru_cache(maxsize=1024)
def _matvec_kernel(dtype: str, layout: kernels.Layout, batched: bool, variant: kernels.Variant) -> KernelSource:
    return kernels.generate(dtype, layout, batched=batched, variant=variant)


def matvec(b: Builder, product: Product, out: View, covers: Sequence[int], label: str) -> bool:
    """A one-row product by our own kernel, if x is contiguous along k."""
    x, w = product.a, product.b
    if x.transposed:
        return False
    zero, one = b.lift(0), b.lift(1)
    batched = product.batch.const != 1
    layout: kernels.Layout = "nk" if w.transposed else "kn"
    sizes = (product.n, product.k, product.batch)
    variant = b.table.choose(kernels.choose_variant, out.dtype, layout, of=sizes)
    source = _matvec_kernel(out.dtype, layout, batched, variant)
    weight = (w.batch_stride, w.ld, one) if w.transposed else (w.batch_stride, one, w.ld)
    b.kernel(
        source,
        [product.batch, product.n, product.k],
        [Operand(x.view, (x.batch_stride, zero, one)), Operand(w.view, weight)],
        [Operand(out, (product.batch_stride_d, one))],
        covers=covers,
        label=label,
    )
    return True


def _factor(writer: ProgramWriter, number: int, dtype: str) -> int:
    """The register of a floating-point attribute, which is kept as a real number."""
    if dtype != "complex64":
        return writer.instruction(("scalar", number, dtype))
    real = writer.instruction(("scalar", number, "float32"))
    return writer.instruction(("op", "astype", (), (real,), ("float32",), dtype))


def scaled_sum(writer: ProgramWriter, i: int, product: int) -> int:
    """The register of beta c + alpha product for the addmm node i, in the product's dims."""
    b = writer.b
    node, dtype = b.tape_nodes[i], b.dtype(i)
    bias = writer.operand(node.inputs[0])
    slots = [writer.scalar_number(node.scalar_slot + k) for k in range(2)]
    alpha, beta = (_factor(writer, s, dtype) for s in slots)
    scaled = writer.instruction(("op", "multiply", (), (product, alpha), (dtype, dtype), dtype))
    added = writer.instruction(("op", "multiply", (), (bias, beta), (dtype, dtype), dtype))
    return writer.instruction(("op", "add", (), (scaled, added), (dtype, dtype), dtype))


def _is_matrix_like(b: Builder, c: int, i: int) -> bool:
    """Whether array c is as cuBLASLt can add it to the product i: of its dims, row-major."""
    if b.dtype(i) not in FLOATS or b.tape_nodes[c].role == "scalar" or b.dims(c) != b.dims(i):
        return False
    return b.is_contiguous(b.value(c))


@lowers("addmm")
def _addmm(b: Builder, i: int) -> None:
    node = b.tape_nodes[i]
    c, left, right = node.inputs
    dtype = b.dtype(i)
    out = b.result(i)
    if _is_matrix_like(b, c, i) and not b.analysis.is_empty(left):
        planned = plan_product(b, left, right, out)
        if planned.m.const != 1:
            # As in BLAS, nothing of c is read if beta is zero.
            slots = (node.scalar_slot, node.scalar_slot + 1)
            emit_product(b, planned, out, (i,), b.label((i,)), addend=b.read(c), factors=slots)
            return
    product = b.new(b.dims(i), dtype)
    if b.analysis.is_empty(left):
        _fill_zero(b, product, ())
    else:
        multiply(b, left, right, product, (), "addmm")
    writer = ProgramWriter(b, out.dims)
    total = scaled_sum(writer, i, writer.load(product))
    b.read(left)
    b.read(right)
    writer.emit([(out, total)], covers=(i,), label="addmm")
