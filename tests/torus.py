"""The exact energy of the two-dimensional Ising model on a finite torus."""

import mpmath


def torus_energy(lattice, temperature):
    """Exact energy per site of the L x L torus: -d log Z / dK / L**2, Z of Kaufman 1949."""

    def log_z(K):
        def gamma(r):
            if r == 0:
                return 2 * K + mpmath.log(mpmath.tanh(K))
            cosh = mpmath.cosh(2 * K) * mpmath.coth(2 * K)
            return mpmath.acosh(cosh - mpmath.cos(r * mpmath.pi / lattice))

        parts = (
            mpmath.fprod(2 * function(lattice * gamma(r) / 2) for r in range(first, 2 * lattice, 2))
            for function in (mpmath.cosh, mpmath.sinh)
            for first in (0, 1)
        )
        scale = mpmath.mpf(lattice**2) / 2 * mpmath.log(2 * mpmath.sinh(2 * K))
        return scale + mpmath.log(sum(parts) / 2)

    with mpmath.workdps(30):
        return float(-mpmath.diff(log_z, 1 / mpmath.mpf(temperature)) / lattice**2)
