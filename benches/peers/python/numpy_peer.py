"""numpy with the BLAS of its wheel: matrix products only."""

import numpy as np

from protocol import serve, uniform


def load(words):
    if words[0] not in ("gemm", "packed"):
        raise ValueError("only matrix products")
    m, k, n = (int(w) for w in words[1:])
    a, b, c = uniform("a", (m, k), 1.0), uniform("b", (k, n), 1.0), np.empty((m, n), np.float32)
    return lambda: np.matmul(a, b, out=c), lambda: c


serve(load)
