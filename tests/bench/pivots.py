"""Pivoted Cholesky of a Gram matrix: daskim's, which breaks ties by index, against LAPACK's pstrf."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from daskim.kernels import qr
from tests.bench import Options
from tests.bench.context import speed_up, timed
from tests.bench.inputs import coefficients, source
from tests.bench.table import Table


def against_pstrf(n: int, d: int, options: Options) -> Table:
    """pivoted_cholesky and LAPACK's pstrf on one Gram matrix, and on one in which every column comes three times."""
    total = qr.gram(coefficients(n, d))
    third = total[: d // 3, : d // 3]
    ties = np.tile(third, (3, 3))
    table = Table(
        "columns: pivoted Cholesky of a Gram matrix",
        {"data": source(), "n": n, "d": d, "ties": "each column three times; chosen by rule = the first of three"},
        ["contender", "seconds", "against LAPACK", "rank", "pivots before the first other one", "by rule with ties"],
    )
    contenders = {
        "LAPACK dpstrf (naive)": lambda: scipy.linalg.lapack.dpstrf(total, lower=0),
        "daskim pivoted_cholesky": lambda: qr.pivoted_cholesky(total),
    }
    theirs, ours = timed(contenders, options.repeat).values()
    lapack, lapack_ties = theirs.result, scipy.linalg.lapack.dpstrf(ties, lower=0)
    here_ties = qr.pivoted_cholesky(ties)
    pivots = [(lapack[1][: lapack[2]] - 1, lapack_ties[1][: lapack_ties[2]] - 1)]
    pivots.append((ours.result.permutation[: ours.result.rank], here_ties.permutation[: here_ties.rank]))
    steps = min(len(pivots[0][0]), len(pivots[1][0]))
    other = np.flatnonzero(pivots[0][0][:steps] != pivots[1][0][:steps])
    for name, timing, (chosen, tied) in zip(contenders, (theirs, ours), pivots):
        rule = f"{(tied < len(third)).sum()} of {len(tied)}"
        row = [name, timing.seconds, speed_up(theirs.seconds, timing.seconds), len(chosen)]
        table.rows.append([*row, int(other[0]) if other.size else steps, rule])
    slack = qr.greedy_slack(ours.result.r[:, : ours.result.rank])
    table.checks.append(("daskim: each pivot's residual is the largest, to 1e-6", slack < 1e-6))
    table.checks.append(
        ("daskim: of equal columns the one of the smallest index", bool((pivots[1][1] < len(third)).all()))
    )
    table.checks.append(
        ("the same rank with ties as without the copies", here_ties.rank == qr.pivoted_cholesky(third).rank)
    )
    return table
